"""Where a study's files lie, and reading them back."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from featherseg.config import Run, read_run
from featherseg.core.errors import UserError
from featherseg.core.files import read_object
from featherseg.core.markup import from_csv_cell
from featherseg.core.registry import unknown
from featherseg.recipes import declared

if TYPE_CHECKING:
    import pandas as pd

ROOT_FILES = ("dvc.yaml", "params.yaml")
TEXT = (
    "study",
    "run",
    "recipe",
    "model",
    "adapter",
    "positions",
    "direction",
    "head_parts",
    "dataset",
    "member",
    "target",
    "train_prompts",
    "prompts",
    "split",
    "unit",
    "text_condition",
    "sentences",
    "metric",
    "weights",
    "data",
    "status",
    "reason",
)


@dataclass(frozen=True)
class Study:
    """A study by name; every path is relative to the project root, which must be the working directory."""

    name: str

    @property
    def reports(self) -> Path:
        """Folder of what people read."""
        return Path("reports") / self.name

    def train(self, run: str) -> Path:
        """Folder of a run's checkpoint and history."""
        return Path("runs") / self.name / "train" / run

    def evaluate(self, run: str) -> Path:
        """Folder of a run's scores and predictions."""
        return Path("runs") / self.name / "evaluate" / run

    def info(self, run: str) -> Path:
        """File of a run's times, hardware and commit."""
        return Path("runs") / self.name / "info" / f"{run}.json"

    @cached_property
    def runs(self) -> list[Run]:
        """The declared runs, those with a plan file, in the order of their names.

        Raises:
            UserError: the study has no plan.
        """
        folder = Path("runs") / self.name / "plan"
        files = sorted(path for path in folder.glob("*.yaml") if not path.stem.endswith(".evaluate"))
        if not files:
            studies = sorted(path.parent.name for path in Path("runs").glob("*/plan"))
            if studies and self.name not in studies:
                raise unknown("study", self.name, studies)
            raise UserError(f"{folder} holds no plan; run the stage first: featherseg plan.")
        return [read_run(path) for path in files]

    @cached_property
    def unlisted(self) -> list[str]:
        """The runs on disk, trained or scored, that are not declared."""
        folder = Path("runs") / self.name
        made = {path.parent.name for part in ("train", "evaluate") for path in (folder / part).glob("*/status.json")}
        return sorted(made - {run.name for run in self.runs})

    @cached_property
    def results(self) -> "pd.DataFrame":
        """The rows of `results.csv` of each run's first split (`test` where it was scored), without the measures of
        `referring.py`: what every table of one split reads.

        Raises:
            UserError: the results have not been collected.
        """
        return first_split(self.every_result)

    @cached_property
    def every_result(self) -> "pd.DataFrame":
        """`results.csv` as `collect` wrote it, every split and measure, but for the rows of members and targets; absent
        text is the empty string.

        Raises:
            UserError: the results have not been collected.
        """
        return whole_sets(self._table("results.csv"))

    @cached_property
    def by_member(self) -> "pd.DataFrame":
        """The rows of `results.csv` for each member of a pooled set, of each run's first split."""
        table = self._table("results.csv")
        return first_split(table[table.member != ""])

    @cached_property
    def by_target(self) -> "pd.DataFrame":
        """The rows of `results.csv` for each target of a dataset that has several, of each run's first split."""
        table = self._table("results.csv")
        return first_split(table[table.target != ""])

    @cached_property
    def curves(self) -> "pd.DataFrame":
        """`curves.csv`: one row per run and epoch."""
        return self._table("curves.csv")

    def facts(self, run: str) -> dict:
        """What `info` holds about a run (hardware, commit, times), empty where it was not recorded here."""
        path = self.info(run)
        return read_object(path) if path.is_file() else {}

    def _table(self, name: str) -> "pd.DataFrame":
        path = self.reports / name
        if not path.is_file():
            raise UserError(f"{path} does not exist; collect the study first: featherseg collect.")
        table = read_results(path)
        for column in ("split", "head_parts", "member", "target", "n_missed") if name == "results.csv" else ():
            if column not in table:
                raise UserError(f"{path} lacks the column '{column}'; collect the study again: featherseg collect.")
        return table


def read_results(source: "Path | TextIO") -> "pd.DataFrame":
    """A table that `collect` wrote, from a file; absent text is the empty string, absent numbers are NaN."""
    import pandas as pd

    frame = pd.read_csv(source, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""])  # a target "NA"
    text = list(frame.columns.intersection(TEXT))
    frame[text] = frame[text].fillna("").map(from_csv_cell)
    return frame


def whole_sets(results: "pd.DataFrame") -> "pd.DataFrame":
    """The rows without those of the members of pooled sets and of single targets."""
    for part in results.columns.intersection(["member", "target"]):
        results = results[results[part] == ""]
    return results.reset_index(drop=True)


def first_split(results: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of each run's first split, without the measures of `referring.py`."""
    first = results.groupby("run")["split"].transform("first")
    return results[(results["split"] == first) & (results["sentences"] == "")].reset_index(drop=True)


def title_of(recipe: str) -> str:
    """A recipe's title, as tables and figures call it."""
    return declared(recipe).title


def find_root(start: Path | None = None) -> Path:
    """The project root: the closest folder with dvc.yaml and params.yaml, from `start` (here) upward.

    Raises:
        UserError: there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if all((folder / name).is_file() for name in ROOT_FILES):
            return folder
    raise UserError(f"no project root above {start}: no folder there holds {' and '.join(ROOT_FILES)}.")


def open_study(name: str) -> Study:
    """The study, with the project root as working directory: for notebooks, opened from wherever."""
    os.chdir(find_root())
    return Study(name)
