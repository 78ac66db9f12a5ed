"""What a verification found: a short text for the terminal, and `verify.html` in the study's reports."""

from typing import NamedTuple

import pandas as pd

from featherseg.core import paths
from featherseg.core.files import atomic_path
from featherseg.reporting.page import render
from featherseg.verify.cells import EQUAL, FAULTS, MISSING, NEW, OFF, VERDICTS, WITHIN, Verification, verification
from featherseg.verify.sides import KEYS, Side, sides

MOST_SHOWN, MOST_PRINTED = 500, 5  # cells that are not equal
MACHINE = {"hardware": "hardware", "threads": "threads", "versions.torch": "torch", "python": "Python",
           "commit": "commit"}
ARITHMETIC = "arithmetic."  # in front of the columns that `core.arithmetic` records


class Machine(NamedTuple):
    """Where some runs of a side were made: values by title, empty where they were not recorded."""

    side: str
    facts: dict[str, str]
    runs: int


class Lost(NamedTuple):
    """A run that lacks committed cells here, how many, and why where that is known."""

    run: str
    cells: int
    reason: str


def write_verification(study: str, against: str = "HEAD") -> Verification:
    """Compare a study's results with the committed ones and write `reports/<study>/verify.html`.

    Raises:
        UserError: one of the sides is missing or cannot be read.
    """
    found = verification(study, *sides(study, against))
    with atomic_path(paths.verification(study)) as beside:
        beside.write_text(page(found), encoding="utf-8")
    return found


def verdict(found: Verification) -> str:
    """Whether the results are reproduced, in one sentence."""
    committed = len(found.cells) - found.count(NEW)
    cells = f"{committed:,} cells of {found.committed.label}"
    if found.count(EQUAL) == committed:
        return f"Reproduced to the digit: all {cells} are equal here."
    counts = f"{found.count(EQUAL):,} are equal and {found.count(WITHIN):,} within the spread of seeds"
    if found.reproduced:
        return f"Reproduced within the spread of seeds: of {cells}, {counts}."
    return f"Not reproduced: of {cells}, {found.count(OFF):,} are off and {found.count(MISSING):,} missing; {counts}."


def made_again(found: Verification) -> str:
    """How many of the committed runs were trained again here, in one sentence."""
    starts = found.committed.runs.merge(found.here.runs, on="run", suffixes=("_committed", "_here"))
    both = starts[(starts.started_committed != "") & (starts.started_here != "")]
    again = int((both.started_committed != both.started_here).sum())
    if not len(both):
        return "When the runs of both sides were trained is not recorded."
    return f"Of {len(both):,} runs, {again:,} were trained again here."


def summary(found: Verification) -> str:
    """Counts by metric, the worst cells and the verdict, as text."""
    parts = [_aligned(found.counts.reset_index())]
    worst = found.unequal[found.unequal.verdict.isin((*FAULTS, WITHIN))].head(MOST_PRINTED)
    if len(worst):
        lines = worst.assign(cell=worst.apply(place, axis=1), spread=worst.deviation.map(number))
        named = lines[["verdict", "run", "cell", "value_committed", "value_here", "spread"]]
        titles = {"value_committed": "committed", "value_here": "here"}
        parts.append(_aligned(named.rename(columns=titles).fillna("–")))
    return "\n\n".join([*parts, f"{verdict(found)} {made_again(found)}"])


def place(cell: pd.Series) -> str:
    """Where in a run a cell stands: its keys that are not empty, the run aside."""
    keys = [str(cell[key]) for key in KEYS if key != "run"]
    return ", ".join(filter(None, keys))


def number(value: float) -> str:
    """A difference or a deviation, to the places of the results; a dash where there is none."""
    return "–" if pd.isna(value) else f"{value:.6f}"


def page(found: Verification) -> str:
    """The page: verdict, counts, the cells that are not equal, and the machines of both sides."""
    unequal = found.unequal
    shown = unequal.head(MOST_SHOWN)
    return render(
        "verify/page.html", title=f"Verification of {found.study}", summary=verdict(found),
        made_again=made_again(found), committed=found.committed.label, verdicts=VERDICTS, counts=found.counts,
        cells=[row for _, row in shown.iterrows()], left_out=len(unequal) - len(shown), place=place, number=number,
        value=_value, lost=lost(found), machines=[*machines(found.committed), *machines(found.here)])


def lost(found: Verification) -> list[Lost]:
    """The runs that lack committed cells here."""
    counts = found.cells[found.cells.verdict == MISSING].groupby("run").size()
    reasons = found.here.runs.set_index("run").reason
    return [Lost(str(run), int(count), reasons.get(run, "")) for run, count in counts.items()]


def machines(side: Side) -> list[Machine]:
    """The machines of a side's runs that were made, by what was recorded of them."""
    titles = MACHINE | {name: name.removeprefix(ARITHMETIC) for name in side.runs if name.startswith(ARITHMETIC)}
    made = side.runs[side.runs.status != "not_run"].reindex(columns=list(titles), fill_value="")
    sizes = made.groupby(list(titles)).size()
    facts = [dict(zip(titles.values(), values, strict=True)) for values in sizes.index]
    return [Machine(side.label, fact, int(count)) for fact, count in zip(facts, sizes, strict=True)]


def _value(cell: pd.Series, side: str) -> str:
    """The value of a cell on one side with its unit and number of samples; a dash where that side lacks it."""
    if pd.isna(cell[f"value_{side}"]):
        return "–"
    unit = "" if cell[f"unit_{side}"] == "1" else f" {cell[f'unit_{side}']}"
    return f"{cell[f'value_{side}']}{unit} (n = {cell[f'n_{side}']})"


def _aligned(table: pd.DataFrame) -> str:
    """A table as lines of text, its columns aligned to the left."""
    lines = [[str(title) for title in table.columns], *table.astype(str).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in padded)
