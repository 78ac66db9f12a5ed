"""The two sides of a verification: a study's results as they lie here, and as a commit or a file has them."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from featherseg.core import paths
from featherseg.core.errors import UserError
from featherseg.core.files import read_text
from featherseg.core.markup import from_csv_cell
from featherseg.core.provenance import git
from featherseg.core.registry import unknown
from featherseg.core.terminal import shortened
from featherseg.reporting.records import SCORE_COLUMNS

HERE = "here"  # the label of what lies in this checkout
CELL = ("value", "std", "n", "unit")
KEYS = tuple(column for column in SCORE_COLUMNS if column not in CELL)
PLACES = 6  # of the values in results.csv
RECORDED = ("run", "recipe", "dataset", "seed", "started", "status", "reason")  # of runs.csv


class Files(NamedTuple):
    """The text of a `results.csv` and of the `runs.csv` beside it, empty where there is none, and what reports call
    them."""

    label: str
    results: str
    records: str


@dataclass(frozen=True)
class Side:
    """Results and the records of their runs, every value as the text that the file holds.

    Attributes:
        label: what reports call this side.
        scores: `results.csv`.
        runs: `runs.csv`, with empty text in those of `RECORDED` that it lacks; without rows where there is none.
    """

    label: str
    scores: pd.DataFrame
    runs: pd.DataFrame


def sides(study: str, against: str = "HEAD") -> tuple[Side, Side]:
    """The committed results of a study and those that lie here.

    Args:
        study: its name.
        against: a revision of git, or the path of a `results.csv`, whose `runs.csv` lies beside it.

    Raises:
        UserError: the study is unknown, one of the sides is missing or cannot be read, or the results here are the
            committed file and no run was made.
    """
    here, committed = _here(study), _of(against, study)
    results = _results(study)
    made = any((paths.RUNS / study / "evaluate").glob("*/status.json"))
    if here.results.strip() == committed.results.strip() and not made:
        raise UserError(f"there are no results of study '{study}' yet: {results} is that of {committed.label}, and "
                        f"{paths.RUNS / study} holds no scored run; make them first: {_command(study)}.")
    return _side(committed), _side(here)


def one_side(study: str, source: str | None = None) -> Side:
    """The results of a study that lie here, or those of `source`, which is as `against` in `sides`.

    Raises:
        UserError: the study is unknown, or its results are missing or cannot be read.
    """
    return _side(_here(study) if source is None else _of(source, study))


def _results(study: str) -> Path:
    return paths.reports(study) / "results.csv"


def _here(study: str) -> Files:
    """Results as they lie in this checkout."""
    results = _results(study)
    if not results.is_file():
        raise _without_results(study)
    return Files(HERE, read_text(results), _optional(results.with_name("runs.csv")))


def _of(source: str, study: str) -> Files:
    """Results as a revision of git or a `results.csv` has them."""
    is_path = source.endswith(".csv") or Path(source).is_file()
    return _of_file(Path(source)) if is_path else _of_commit(source, _results(study))


def _without_results(study: str) -> UserError:
    """The sentence for a study whose results do not lie here: it is unknown, or has not been run."""
    from featherseg.check import studies

    known = studies()
    if study not in known:
        return unknown("study", study, known)
    return UserError(f"{paths.reports(study)}/results.csv does not exist: there are no results yet; make them first: "
                     f"{_command(study)}.")


def _command(study: str) -> str:
    """What makes a study's results."""
    return "make repro" if study == "study" else f"dvc repro pipelines/{study}/dvc.yaml"


def _of_file(results: Path) -> Files:
    """Results that lie anywhere."""
    return Files(str(results), read_text(results), _optional(results.with_name("runs.csv")))


def _of_commit(revision: str, results: Path) -> Files:
    """Results as a commit has them.

    Args:
        revision: what git calls the commit.
        results: the path of the study's `results.csv`.
    """
    if git("rev-parse", "--show-toplevel") is None:
        raise UserError("there is no git checkout here, or no git, and so no committed results; name a results.csv to "
                        "compare with: --against <file>.")
    commit = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if commit is None:
        raise UserError(f"git knows no commit '{shortened(revision)}'; name a commit, a branch or a tag, or the path "
                        "of a results.csv: --against HEAD.")
    label, text = f"{revision} ({commit[:12]})", _in_commit(commit, results)
    if not text:
        raise UserError(f"{label} holds no {results.as_posix()}: there are no committed results to compare with; name "
                        "a commit that has them, or the path of a results.csv: --against <file>.")
    return Files(label, text, _in_commit(commit, results.with_name("runs.csv")))


def _in_commit(commit: str, path: Path) -> str:
    """A file's text in a commit, by its path from here; empty where the commit lacks it."""
    try:
        return git("show", f"{commit}:./{path.as_posix()}") or ""
    except UnicodeDecodeError:
        raise UserError(f"{path.as_posix()} of commit {commit[:12]} is not text in UTF-8; compare with another commit: "
                        "--against <revision>.") from None


def _optional(path: Path) -> str:
    """A file's text; empty where there is none."""
    return read_text(path) if path.is_file() else ""


def _side(files: Files) -> Side:
    """Both tables of a side."""
    source = f"results.csv of {files.label}" if files.label != HERE else "results.csv here"
    scores = _table(files.results, source, SCORE_COLUMNS)
    if scores.empty:
        raise UserError(f"{source} holds no score, so that there is nothing to compare.")
    twice = scores[scores.duplicated(list(KEYS))]
    if len(twice):
        raise UserError(f"{source} holds a cell twice, of run '{shortened(twice.run.iloc[0])}'; collect the study "
                        "again: featherseg collect.")
    if not files.records:
        return Side(files.label, scores, pd.DataFrame(columns=list(RECORDED), dtype=str))
    runs = _table(files.records, source.replace("results", "runs", 1), ["run"])
    columns = dict.fromkeys([*RECORDED, *runs.columns])
    return Side(files.label, scores, runs.reindex(columns=list(columns), fill_value="").drop_duplicates("run"))


def _table(text: str, source: str, needed: Iterable[str]) -> pd.DataFrame:
    """A table that `collect` wrote, every value as text."""
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, index_col=False)
    except ValueError as error:  # whatever its parser meets
        cause = shortened(" ".join(str(error).split()), 120)
        raise UserError(f"{source} cannot be read as a table ({cause}); collect the study again: featherseg "
                        "collect.") from None
    for column in needed:
        if column not in table:
            raise UserError(f"{source} lacks the column '{column}', as those of an older version do; collect the study "
                            "again, or compare with a later commit: --against <revision>.")
    return table.fillna("").map(from_csv_cell)
