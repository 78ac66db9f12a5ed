"""Where a study's files lie, and reading them back."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from featherseg.config import RECIPES_FILE, RecipeNote, Run, read_run, read_yaml, study_params_path
from featherseg.core import paths
from featherseg.core.errors import UserError
from featherseg.core.files import read_object
from featherseg.core.registry import unknown
from featherseg.reporting.frames import first_split, in_order, joined, read_runs, read_scores, whole_sets
from featherseg.reporting.looks import Look, looks, rows_of
from featherseg.reporting.records import SEGMENTATION

if TYPE_CHECKING:
    import pandas as pd

ROOT_FILES = ("dvc.yaml", "params.yaml")


@dataclass(frozen=True)
class Study:
    """A study by name; every path is relative to the project root, which must be the working directory."""

    name: str

    @property
    def reports(self) -> Path:
        """Folder of what people read."""
        return paths.reports(self.name)

    @property
    def plan(self) -> Path:
        """Folder of the declared runs' plan files."""
        return paths.plans(self.name)

    def train(self, run: str) -> Path:
        """Folder of a run's checkpoint and history."""
        return paths.trained(self.name, run)

    def evaluate(self, run: str) -> Path:
        """Folder of a run's scores and predictions."""
        return paths.evaluated(self.name, run)

    def info(self, run: str) -> Path:
        """File of a run's times, hardware and commit."""
        return paths.info(self.name, run)

    @cached_property
    def runs(self) -> list[Run]:
        """The declared runs, those with a plan file, in the order of their names.

        Raises:
            UserError: the study has no plan.
        """
        files = sorted(path for path in self.plan.glob("*.yaml") if not path.stem.endswith(".evaluate"))
        if not files:
            studies = sorted(path.parent.name for path in paths.RUNS.glob("*/plan"))
            if studies and self.name not in studies:
                raise unknown("study", self.name, studies)
            raise UserError(f"{self.plan} holds no plan; run the stage first: featherseg plan.")
        return [read_run(path) for path in files]

    @cached_property
    def recipes(self) -> dict[str, RecipeNote]:
        """What the plan says of each recipe: its `title`, and in `published` the fields in which it follows released
        code instead of what is correct.

        Raises:
            UserError: the plan lacks the file of recipes.
        """
        path = self.plan / RECIPES_FILE
        if not path.is_file():
            raise UserError(f"{path} does not exist; run the stage again: featherseg plan.")
        return read_object(path)

    def title(self, recipe: str) -> str:
        """A recipe's title, as tables and figures call it."""
        return self.recipes[recipe]["title"]

    @cached_property
    def declared(self) -> list[str]:
        """The recipes that the study's params name, in the order in which every table and figure shows them."""
        path = study_params_path(self.name)
        params = read_yaml(path) if path.is_file() else {}
        return list(params.get("study", {}).get("recipes", []))

    @cached_property
    def looks(self) -> dict[str, Look]:
        """Colour and marker of each recipe, the same in every figure of the study."""
        return looks(rows_of(self.every_task))

    @cached_property
    def unlisted(self) -> list[str]:
        """Runs on disk, trained or scored, that the study does not declare."""
        folder = paths.RUNS / self.name
        made = {path.parent.name for part in ("train", "evaluate") for path in (folder / part).glob("*/status.json")}
        return sorted(made - {run.name for run in self.runs})

    @cached_property
    def every_task(self) -> "pd.DataFrame":
        """The scores of whole datasets, whatever the task, every split and measure: one row per score, as
        `frames.joined` makes them, and one for each run that was not made; in the order of `declared`.

        Raises:
            UserError: the results have not been collected.
        """
        return whole_sets(self._joined)

    @cached_property
    def every_result(self) -> "pd.DataFrame":
        """The rows of `every_task` for runs that segment."""
        return whole_sets(self._segmented)

    @cached_property
    def results(self) -> "pd.DataFrame":
        """The rows of `every_result` of each run's first split (`test` where it was scored), without the measures
        of referring segmentation: what every table of one split reads."""
        return first_split(self.every_result)

    @cached_property
    def by_member(self) -> "pd.DataFrame":
        """The scores of each member of a pooled dataset, of each segmenting run's first split."""
        return first_split(self._segmented[self._segmented.member != ""])

    @cached_property
    def by_target(self) -> "pd.DataFrame":
        """The scores of each target of a dataset that has several, of each segmenting run's first split."""
        return first_split(self._segmented[self._segmented.target != ""])

    @cached_property
    def curves(self) -> "pd.DataFrame":
        """`curves.csv`: one row per run and epoch."""
        import pandas as pd

        return pd.read_csv(self._collected("curves.csv"))

    @cached_property
    def _joined(self) -> "pd.DataFrame":
        runs, scores = self._collected("runs.csv"), self._collected("results.csv")
        return in_order(joined(read_runs(runs), read_scores(scores)), self.declared)

    @property
    def _segmented(self) -> "pd.DataFrame":
        return self._joined[self._joined.task == SEGMENTATION]

    def _collected(self, name: str) -> Path:
        path = self.reports / name
        if not path.is_file():
            raise UserError(f"{path} does not exist; collect the study first: featherseg collect.")
        return path


def find_root(start: Path | None = None) -> Path:
    """The project root: the closest folder with dvc.yaml and params.yaml, from `start` (here) upward.

    Raises:
        UserError: no folder above is one.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if all((folder / name).is_file() for name in ROOT_FILES):
            return folder
    raise UserError(f"no project root above {start}: no folder there holds {' and '.join(ROOT_FILES)}.")


def open_study(name: str) -> Study:
    """The study, with the project root as working directory; notebooks may be opened from any folder."""
    os.chdir(find_root())
    return Study(name)
