"""What every table of a notebook has in common: its looks, and where each of its lines comes from."""

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import pandas as pd

from featherseg.core.markup import html_text

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

FROM = "where from"
METRICS = {"DSC": ("dsc", 100), "IoU": ("iou", 100), "HD95": ("hd95", 1)}


def show(frame: pd.DataFrame, caption: str = "", digits: int = 2) -> "Styler":
    """A frame as a table for people: numbers to the right, text to the left, a dash for no number.

    Every text in it is shown as it is, whatever markup it holds.
    """
    text = [name for name in frame.columns if frame[name].dtype.kind not in "iuf"]
    short = [name for name in text if frame[name].astype(str).str.len().max() <= 34]
    style = frame.style.hide(axis="index").format(lambda value: html_text(_cell(value, digits)))
    style = style.format_index(html_text, axis="columns").set_caption(html_text(caption))
    style = style.set_properties(subset=text, **{"text-align": "left"})
    style = style.set_properties(subset=short, **{"white-space": "nowrap"})
    style = style.set_properties(subset=[name for name in text if name not in short], **{"min-width": "15em"})
    heads = {name: [{"selector": "th", "props": "text-align: left"}] for name in text}
    return style.set_table_styles(heads, overwrite=False)


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
    """DSC in % (`dsc`) by recipe, dataset and width, mean over seeds, for one text condition."""
    rows = results[(results.text_condition == condition) & (results.metric == "dsc")]
    keys = ["recipe", "title", "released", "adapter", "positions", "dim", "dataset", "data", "weights",
            "trainable_parameters"]
    means = rows.groupby(keys, dropna=False, sort=False)["mean"].mean()
    return means.mul(100).rename("dsc").reset_index()


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


def made_here(row: Any) -> str:
    """Data, weights, hardware and commit of a run (a row of the results), or why it was not made."""
    if row.status != "ok":
        return f"not run: {row.reason}"
    commit, changed, _ = (row.commit or "not recorded").partition("+changes")
    return (f"{source_of(row)}; {row.hardware or 'hardware not recorded'}; "
            f"commit {commit[:12]}{' with changes' if changed else ''}")


def _cell(value: object, digits: int) -> str:
    if value is None or value is pd.NA or value != value:
        return "–"
    if isinstance(value, Integral):
        return f"{value:,}"
    return f"{value:.{digits}f}" if isinstance(value, Real) else str(value)
