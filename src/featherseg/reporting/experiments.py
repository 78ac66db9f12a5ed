"""Committed results and DVC experiments beside the workspace, where they differ in a few params only.

They are read with git: `dvc.api` collects every stage of a commit before it says that a file is missing, which takes
ten seconds, and DVC's list of experiments waits for the lock that a `dvc repro` may hold.
"""

import io
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from featherseg.config import study_params_path
from featherseg.reporting.frames import joined, read_runs, read_scores, whole_sets
from featherseg.reporting.study import Study

if TYPE_CHECKING:
    import pandas as pd


def with_experiments(study: Study, knobs: Sequence[str] = ("adapter.dim",)) -> "pd.DataFrame":
    """Every result of the study, and of the current commit and its experiments whose params differ from the
    workspace's in these knobs only (`section.key`); a setting that was run twice counts once."""
    import pandas as pd

    params = study_params_path(study.name)
    own = _without(knobs, params.read_text())
    frames = [study.every_result]
    for commit in _commit_and_experiments():
        text = _committed(commit, params)
        runs, scores = _committed(commit, study.reports / "runs.csv"), _committed(commit, study.reports / "results.csv")
        if text and runs and scores and _without(knobs, text) == own:
            rows = joined(read_runs(io.StringIO(runs)), read_scores(io.StringIO(scores)))
            # a commit of new params may hold the results of the older ones
            frames.append(whole_sets(rows[rows.run.isin(study.every_result.run)]))
    columns = [knob.partition(".")[2] for knob in knobs]
    once = ["run", *columns, "split", "text_condition", "sentences", "threshold", "metric"]
    return pd.concat(frames).drop_duplicates(once).reset_index(drop=True)


def _commit_and_experiments() -> list[str]:
    """The current commit, and those of the DVC experiments whose baseline it is."""
    baseline = _git("rev-parse", "HEAD").strip()
    if not baseline:
        return []
    refs = f"refs/exps/{baseline[:2]}/{baseline[2:]}/"
    return [baseline, *sorted(_git("for-each-ref", "--format=%(objectname)", refs).split())]


def _without(knobs: Sequence[str], text: str) -> Any:
    params = YAML(typ="safe", pure=True).load(text)
    for knob in knobs:
        section, _, key = knob.partition(".")
        (params.get(section) or {}).pop(key, None)
    return params


def _committed(commit: str, path: Path) -> str:
    """A file's text in a commit; the empty string where it is not in it."""
    return _git("show", f"{commit}:{path.as_posix()}")


def _git(*arguments: str) -> str:
    """What git answers; the empty string where there is no git, no repository or no such object."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
