"""What every table of a notebook has in common: its looks, and where each of its lines comes from."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import pandas as pd

from featherseg.core.markup import elided, html_text

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

FROM = "where from"
NOT_RUN, NOT_SCORED, PUBLISHED = "not run", "not scored", "published"  # how the origin of such a line begins
LONGEST_LABEL, LONGEST_REASON = 44, 100  # letters
NOT_VERIFIED = "not verified"  # of a published number
_NUMBER = re.compile(r"[-+−]?\d[\d.,]*( (\*|mm))?( \([-+−]\d[\d.]*\))?$")
_DIGEST = re.compile(r", sha256 [0-9a-f]+(?=\))| \(sha256 [0-9a-f]+\)")
_BRACKETS = re.compile(r" \([^()]*\)")
METRICS = {"DSC": ("dsc", 100), "IoU": ("iou", 100), "HD95": ("hd95", 1)}


@dataclass(frozen=True)
class Table:
    """A table as notebooks display it: what ran, then where that comes from, then what was not run.

    Attributes:
        data: every line.
        ran: the lines that ran, as people see them; None where none did.
        caption: what stands above.
        below: HTML of what stands below.
    """

    data: pd.DataFrame
    ran: "Styler | None"
    caption: str = ""
    below: str = ""

    def to_html(self, **options: Any) -> str:
        """HTML of the whole.

        Args:
            options: of pandas, such as `table_uuid`.
        """
        if self.ran is not None:
            lines = f'<div class="table">{self.ran.to_html(**options)}</div>'
        else:
            lines = f'<p class="source">{html_text(self.caption)}</p>' if self.caption else ""
        return f"{lines}\n{self.below}"

    def _repr_html_(self) -> str:
        return self.to_html()


def show(frame: pd.DataFrame, caption: str = "", digits: int = 2, best: Sequence[str] = ()) -> Table:
    """A frame as a table for people: numbers to the right, text to the left, a dash for no number.

    Where all lines have one origin, it stands once below them; else each line has a short label, and a list that opens
    has the whole. Lines that were not run are below, in one line that opens. Every text is shown as it is, whatever
    markup it holds.

    Args:
        frame: the lines; their origins, if any, are in the column `FROM`.
        caption: what stands above.
        digits: behind the point.
        best: columns whose highest number is bold, on each dataset where there are several.
    """
    if frame.empty:
        return Table(frame, None, caption)
    if FROM not in frame:
        return Table(frame, _styled(frame, caption, digits, best), caption)
    unmade = frame[FROM].str.startswith((NOT_RUN, NOT_SCORED))
    ran, below = frame[~unmade], ""
    if len(ran):
        ran, below = _with_short_origins(ran)
    if unmade.any():
        below += _unmade(frame[unmade], digits)
    return Table(frame, _styled(ran, caption, digits, best) if len(ran) else None, caption, below)


def _styled(frame: pd.DataFrame, caption: str, digits: int, best: Sequence[str] = ()) -> "Styler":
    frame = frame.reset_index(drop=True)
    text = [name for name in frame.columns if not _is_number(frame[name])]
    short = [name for name in text if frame[name].astype(str).str.len().max() <= 34]
    style = frame.style.hide(axis="index").format(lambda value: html_text(_cell(value, digits)))
    style = style.format_index(html_text, axis="columns").set_caption(html_text(caption))
    style = style.set_properties(subset=text, **{"text-align": "left"})
    long = [name for name in text if name not in short]
    style = style.set_properties(subset=[name for name in frame if name not in long], **{"white-space": "nowrap"})
    style = style.set_properties(subset=long, **{"min-width": "15em"})
    for name in frame.columns.intersection(list(best)):
        highest = _highest(frame, name)
        style = style.set_properties(subset=(highest, [name]), **{"font-weight": "bold"})
    heads = {name: [{"selector": "th", "props": "text-align: left"}] for name in text}
    return style.set_table_styles(heads, overwrite=False)


def _is_number(column: pd.Series) -> bool:
    """Whether a column holds numbers, be they text, such as those with a difference in brackets."""
    if column.dtype.kind in "iuf":
        return True
    cells = column[~column.isin([NOT_RUN, NOT_VERIFIED, "–"])].dropna().astype(str)
    return len(cells) > 0 and bool(cells.str.match(_NUMBER).all())


def _highest(frame: pd.DataFrame, name: str) -> list[int]:
    """The lines with the highest number of a column, of each dataset where there are several."""
    values = frame[name].dropna()
    datasets = frame["dataset"] if "dataset" in frame else pd.Series("", frame.index)
    return list(values.groupby(datasets.loc[values.index]).idxmax())


def _with_short_origins(ran: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The lines with a short label of where each comes from, or without one where all come from one place; and HTML
    of the whole."""
    origins = list(dict.fromkeys(ran[FROM]))
    if len(origins) == 1:
        return ran.drop(columns=FROM), f'<p class="source">Where from: {html_text(origins[0])}</p>\n'
    here = [origin.split("; ") for origin in origins if not origin.startswith(PUBLISHED)]
    shared = [part for part in here[0] if all(part in parts for parts in here)] if len(here) > 1 else []
    labels = _labels(origins, shared)
    once = f'<p class="source">Made here: {html_text("; ".join(shared))}</p>\n' if shared else ""
    items = "".join(f"<li>{html_text(labels[origin])}: {html_text(origin)}</li>\n" for origin in origins)
    listed = f"<details><summary>Where each line comes from</summary>\n<ul>\n{items}</ul></details>\n"
    return ran.assign(**{FROM: ran[FROM].map(labels)}), once + listed


def _labels(origins: Sequence[str], shared: Sequence[str]) -> dict[str, str]:
    """A short label of each origin, without what all of them share; equal ones are numbered."""
    labels: dict[str, str] = {}
    for origin in origins:
        parts = [PUBLISHED] if origin.startswith(PUBLISHED) else origin.split("; ")
        own = [part.removeprefix("weights ") for part in parts if part not in shared and not part.startswith(NOT_RUN)]
        labels[origin] = elided(_BRACKETS.sub("", "; ".join(own or parts[:1])), LONGEST_LABEL)
    counts = Counter(labels.values())
    numbers: Counter[str] = Counter()
    for origin, label in labels.items():
        if counts[label] > 1:
            numbers[label] += 1
            labels[origin] = f"{label} {numbers[label]}"
    return labels


def _unmade(lines: pd.DataFrame, digits: int) -> str:
    """HTML of the lines that were not run, closed."""
    without = NOT_RUN if lines[FROM].str.startswith(NOT_RUN).all() else f"{NOT_RUN} or {NOT_SCORED}"
    reasons = list(dict.fromkeys(lines[FROM].str.removeprefix(NOT_RUN).str.lstrip(": ")))
    named = elided(reasons[0], LONGEST_REASON)
    more = len(reasons) - 1
    others = f", and {more} more {'reason' if more == 1 else 'reasons'}" if more else ""
    count = f"{len(lines)} {'row' if len(lines) == 1 else 'rows'} {without}"
    summary = f"{count}: {named}{others}" if named else count
    empty = [name for name in lines if lines[name].isin([NOT_RUN, "", None]).all() or lines[name].isna().all()]
    table = _styled(lines.drop(columns=empty), "", digits).to_html()
    return f'<details><summary>{html_text(summary)}</summary>\n<div class="table">{table}</div></details>\n'


def honest(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame without its column `data` (where the data of our runs come from), after a check that every line says
    where its numbers come from: published (and by whom), made here (on which data), or not run (and why).

    Raises:
        ValueError: a line with numbers made here does not carry the label of their data, or a line says
            nothing about where it comes from.
    """
    for line in frame.to_dict("records"):
        if not line[FROM]:
            raise ValueError(f"a line does not say where it comes from: {line}")
        if line["data"] and line["data"] not in line[FROM]:
            raise ValueError(f"a line with numbers from '{line['data']}' data lacks that label: {line}")
    return frame.drop(columns="data")


def own_dsc(results: pd.DataFrame, condition: str = "own") -> pd.DataFrame:
    """DSC in % (`dsc`) and peak memory in training in MiB (`memory_process`, `memory_accelerator`) by recipe, dataset
    and width, means over seeds, for one text condition."""
    rows = results[(results.text_condition == condition) & (results.metric == "dsc")]
    keys = ["recipe", "title", "released", "adapter", "positions", "dim", "dataset", "data", "weights",
            "trainable_parameters"]
    means = rows.groupby(keys, dropna=False, sort=False)[["mean", "memory_process", "memory_accelerator"]].mean()
    return means.assign(dsc=100 * means["mean"]).drop(columns="mean").reset_index()


def own_means(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Means of one metric with the own prompt, one per run, in the unit of `unit_of`."""
    name, factor = METRICS[metric]
    return factor * rows[(rows.text_condition == "own") & (rows.metric == name)]["mean"]


def unit_of(rows: pd.DataFrame, metric: str) -> str:
    """The unit of `own_means`: %, or that of the distances of these runs (px or mm)."""
    name, factor = METRICS[metric]
    if factor == 100:
        return "%"
    units = rows[rows.metric == name].unit.unique()
    return " and ".join(sorted(units))


def source_of(row: Any) -> str:
    """Data and base weights of a run (a row of the results)."""
    return f"{row.data}; weights {row.weights}"


def without_digests(source: str) -> str:
    """The source of a run as prose names it, without SHA-256."""
    return _DIGEST.sub("", source)


def made_here(row: Any) -> str:
    """Data, weights, hardware and commit of a run (a row of the results), or why it was not made."""
    if row.status != "ok":
        return f"{NOT_RUN}: {row.reason}"
    commit, changed, _ = (row.commit or "not recorded").partition("+changes")
    return (f"{source_of(row)}; {row.hardware or 'hardware not recorded'}; "
            f"commit {commit[:12]}{' with changes' if changed else ''}")


def _cell(value: object, digits: int) -> str:
    if value is None or value is pd.NA or value != value:
        return "–"
    if isinstance(value, Integral):
        return f"{value:,}"
    return f"{value:.{digits}f}" if isinstance(value, Real) else str(value)
