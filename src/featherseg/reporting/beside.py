"""Published numbers beside ours: the only place where one is subtracted from the other.

A difference is shown only where data and weights are those of the paper: data from the official archives, and the
public weights, as released or assembled from released parts. The records of the runs say so (`records.py`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featherseg.reporting.records import ASSEMBLED, OFFICIAL, PUBLIC
from featherseg.reporting.tables import FROM

if TYPE_CHECKING:
    import pandas as pd

HERE, RELEASED = "here", "here, as released"


@dataclass(frozen=True)
class Column:
    """A column of a paper's table and the recipes that make it here.

    Attributes:
        title: how reports call it.
        recipes: the correct recipes; of several, the first that a study declares.
        released: the recipe that does what the released code did.
    """

    title: str
    recipes: tuple[str, ...] = ()
    released: str = ""

    def made_by(self, label: str) -> tuple[str, ...]:
        """The recipes of a line's label, `HERE` or `RELEASED`."""
        if label == HERE:
            return self.recipes
        return (self.released,) if self.released else ()


def rows_of(rows: "pd.DataFrame", recipes: tuple[str, ...]) -> "pd.DataFrame":
    """The rows of the first of several recipes that has any."""
    for recipe in recipes:
        made = rows[rows.recipe == recipe]
        if len(made):
            return made
    return rows[:0]


def comparable(runs: "pd.DataFrame") -> bool:
    """Whether data and weights of all runs are those of the papers.

    Args:
        runs: rows with the columns `data_kind` and `weights_kind`.
    """
    return bool(runs.data_kind.eq(OFFICIAL).all() and runs.weights_kind.isin([PUBLIC, ASSEMBLED]).all())


def difference(runs: "pd.DataFrame", ours: float, published: float | None) -> float | None:
    """Our number less the published one; None where they cannot be compared or nothing is published.

    Args:
        runs: the rows that our number is the mean of.
        ours, published: in the same unit.
    """
    if published is None or not comparable(runs):
        return None
    return ours - published


def cell(runs: "pd.DataFrame", ours: float, published: float | None) -> str:
    """Our number, followed in brackets by its difference from the published one, where there is one."""
    apart = difference(runs, ours, published)
    return f"{ours:.2f}" if apart is None else f"{ours:.2f} ({apart:+.2f})"


def line(place: Mapping[str, Any], label: str, source: str, cells: Mapping[str, Any], data: str = "") -> dict[str, Any]:
    """One line of a table that sets published numbers beside ours.

    Args:
        place: what the line is about, by column: dataset, split, regime.
        label: `PUBLISHED`, `HERE` or `RELEASED`.
        source: where the numbers come from, or why they are missing.
        cells: the numbers as text, by column title.
        data: where our data come from, empty on a line without our numbers.
    """
    return {**place, "": label, FROM: source, "data": data, **cells}


def ran_first(lines: Iterable[dict[str, Any]], column: str = "dataset") -> list[dict[str, Any]]:
    """Lines of a table, those of the datasets on which something was made here before the others.

    Args:
        lines: as `line` makes them.
        column: whose values are kept together.
    """
    lines = list(lines)
    ran = {line[column] for line in lines if line["data"]}
    return sorted(lines, key=lambda line: line[column] not in ran)
