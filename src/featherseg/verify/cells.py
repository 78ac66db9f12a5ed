"""Each cell of a study's results beside the committed one: equal, within the spread of seeds, off, missing or new."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from featherseg.verify.sides import KEYS, PLACES, Side
from featherseg.verify.spread import deviations

EQUAL, WITHIN, OFF, MISSING, NEW = "equal", "within the spread", "off", "missing", "new"
VERDICTS = (EQUAL, WITHIN, OFF, MISSING, NEW)
FAULTS = (OFF, MISSING)
COMPARED = ("value", "n", "unit")


@dataclass(frozen=True)
class Verification:
    """A study's results beside the committed ones.

    Attributes:
        study: its name.
        committed, here: the two sides.
        cells: one row per cell of either side: the keys; `value`, `n` and `unit` of both, as text, with `_committed` or
            `_here` behind; `difference` and `deviation`, NaN where there is none; `verdict`, one of `VERDICTS`.
    """

    study: str
    committed: Side
    here: Side
    cells: pd.DataFrame

    @property
    def reproduced(self) -> bool:
        """Whether no cell is off or missing."""
        return not self.cells.verdict.isin(FAULTS).any()

    def count(self, verdict: str) -> int:
        """How many cells have a verdict."""
        return int((self.cells.verdict == verdict).sum())

    @property
    def counts(self) -> pd.DataFrame:
        """How many cells of each metric have each verdict."""
        table = pd.crosstab(self.cells.metric, self.cells.verdict)
        return table.reindex(columns=list(VERDICTS), fill_value=0)

    @property
    def unequal(self) -> pd.DataFrame:
        """The cells that are not equal: those that are off, then missing ones and the others; the largest relative
        difference first."""
        cells = self.cells[self.cells.verdict != EQUAL]
        rank = cells.verdict.map([*FAULTS, WITHIN, NEW].index)
        size = _number(cells.value_committed).abs()
        order = pd.DataFrame({"rank": rank, "least": -cells.difference / size})
        return cells.loc[order.sort_values(["rank", "least"], kind="stable").index]


def verification(study: str, committed: Side, here: Side) -> Verification:
    """Compare two sides of a study cell by cell.

    A cell is a value with its number of samples and its unit. Equal means the same text; within the spread, that the
    values differ by at most one standard deviation over seeds; where no deviation is known, a difference is off.

    Raises:
        UserError: `reports/spread.csv` is not a table of deviations.
    """
    runs = pd.concat([committed.runs, here.runs]).drop_duplicates("run")
    expected = committed.scores.assign(deviation=deviations(committed.scores, runs))
    columns = [*KEYS, *COMPARED]
    cells = expected[[*columns, "deviation"]].merge(
        here.scores[columns], on=list(KEYS), how="outer", suffixes=("_committed", "_here"), indicator="side")
    difference = (_number(cells.value_here) - _number(cells.value_committed)).abs()
    cells = cells.assign(difference=difference.round(PLACES))
    same = {column: cells[f"{column}_committed"] == cells[f"{column}_here"] for column in COMPARED}
    alike = same["n"] & same["unit"]
    verdicts = np.select(
        [cells.side == "left_only", cells.side == "right_only", alike & same["value"],
         alike & (cells.difference <= cells.deviation.round(PLACES))],
        [MISSING, NEW, EQUAL, WITHIN], default=OFF)
    return Verification(study, committed, here, cells.assign(verdict=verdicts).drop(columns="side"))


def _number(texts: pd.Series) -> pd.Series:
    """The numbers that texts hold, NaN where they hold none."""
    return pd.to_numeric(texts, errors="coerce")
