"""The report of the prompt engine's agreement with published words: two tables and a page."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from featherseg.core.files import atomic_path
from featherseg.core.markup import csv_cell
from featherseg.data.prepared import PreparedDataset
from featherseg.papers.medvlsm.agreement import DRAWS, NONE, RELEASED, Agreement, agreements
from featherseg.reporting.page import render

TITLE = "Words of the prompt engine and published words"
SUMMARY = ("How far the words that the prompt engine measures agree with the published ones, attribute by attribute, "
           "and why they differ where they do.")
MOST_WORDS = 7  # in a table of counts; the rest are summed up


def write_agreement(folders: Sequence[Path], out_dir: Path, split: str = "test") -> list[Agreement]:
    """Compare prepared datasets and write `agreement.csv`, `confusion.csv` and `agreement.html`.

    Raises:
        UserError: a folder is not a prepared dataset, or has no published attributes in that split.
    """
    results = []
    for folder in folders:
        results += agreements(PreparedDataset.read(folder), split)
    _write_table(out_dir / "agreement.csv", [_figures(result) for result in results])
    _write_table(out_dir / "confusion.csv", _pairs(results))
    with atomic_path(out_dir / "agreement.html") as beside:
        beside.write_text(_page(results), encoding="utf-8")
    return results


def _figures(result: Agreement) -> dict[str, Any]:
    low, high = result.interval()
    return {"dataset": result.dataset, "split": result.split, "attribute": result.attribute,
            "samples": len(result.published), "not measured": result.measured.count(NONE),
            "published words": len(set(result.published)), "agreement": round(result.share, 4),
            "most frequent word": round(result.chance, 4), "kappa": round(result.kappa, 4),
            "kappa 95 % from": round(low, 4), "to": round(high, 4)}


def _pairs(results: Sequence[Agreement]) -> list[dict[str, Any]]:
    """How many samples have each pair of words, one pair per line."""
    lines = []
    for result in results:
        counts = Counter(zip(result.published, result.measured, strict=True))
        for (published, measured), count in sorted(counts.items()):
            lines.append({"dataset": result.dataset, "attribute": result.attribute, "published": published,
                          "measured": measured, "samples": count})
    return lines


def _write_table(path: Path, lines: list[dict[str, Any]]) -> None:
    with atomic_path(path) as beside:
        pd.DataFrame(lines).map(csv_cell).to_csv(beside, index=False, lineterminator="\n", na_rep="nan")


def _page(results: Sequence[Agreement]) -> str:
    datasets: dict[str, list[Agreement]] = {}
    for result in results:
        datasets.setdefault(result.dataset, []).append(result)
    return render("papers/medvlsm/agreement.html", title=TITLE, summary=SUMMARY, split=results[0].split,
                  results=[(result, *_shown(result)) for result in results], datasets=datasets, confusion=confusion,
                  several=_said_to_be_several, sides=_sides, not_measured=NONE, released=RELEASED, draws=DRAWS)


def _shown(result: Agreement) -> tuple[str, str]:
    """Kappa and its interval as text, a dash where it is undefined."""
    low, high = result.interval()
    kappa = "–" if np.isnan(result.kappa) else f"{result.kappa:.2f}"
    return kappa, "–" if np.isnan(low) else f"{low:.2f} to {high:.2f}"


class Confusion(NamedTuple):
    """Counts of samples by published word (rows) and measured word (columns), the most frequent first.

    Attributes:
        columns: the engine's words; the last may stand for several others.
        rows: for each published word, the last of which may stand for others, its counts, and which of them is of
            the same word on both sides (None where none is).
    """

    columns: list[str]
    rows: list[tuple[str, list[int], int | None]]


def confusion(result: Agreement) -> Confusion:
    """The table of counts of one attribute."""
    rows, columns = _most_frequent(result.published), _most_frequent(result.measured)
    other_rows = len(set(result.published)) - len(rows)
    other_columns = len(set(result.measured)) - len(columns)
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for published, measured in zip(result.published, result.measured, strict=True):
        counts[published if published in rows else None, measured if measured in columns else None] += 1
    column_keys = [*columns, *([None] if other_columns else [])]
    lines = []
    for row in [*rows, *([None] if other_rows else [])]:
        same = columns.index(row) if row in columns else None
        lines.append((row or f"{other_rows} others", [counts[row, column] for column in column_keys], same))
    return Confusion([column or f"{other_columns} others" for column in column_keys], lines)


def _most_frequent(words: Sequence[str]) -> list[str]:
    return [word for word, _ in Counter(words).most_common(MOST_WORDS)]


def _said_to_be_several(number: Agreement) -> str:
    """Of how many masks with one part the lists say more, by the attribute `number`."""
    single = [word for word, count in zip(number.published, number.measured, strict=True) if count == "one"]
    return f"{len(single) - single.count('one')} of {len(single)}"


def _sides(location: Agreement) -> str:
    """How often the lists and the engine say right and left, by the attribute `location`."""
    lists, engine = (f"{words.count('right')} and {words.count('left')}"
                     for words in (location.published, location.measured))
    return f"{lists} times, the engine {engine} times"
