"""Committed results and DVC experiments beside the workspace, where they differ in the adapter's width only."""

import io
import subprocess
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from featherseg.config import study_params_path
from featherseg.reporting.study import Study, read_results

if TYPE_CHECKING:
    import pandas as pd


def with_experiments(study: Study) -> "pd.DataFrame":
    """The study's results, and those of the current commit and its experiments whose params differ from the
    workspace's in `adapter.dim` only; a width that was run twice counts once."""
    import pandas as pd

    params, frames = study_params_path(study.name).as_posix(), [study.results]
    own = _without_dim(study_params_path(study.name).read_text())
    for commit in _commit_and_experiments():
        text = _git("show", f"{commit}:{params}")
        results = _git("show", f"{commit}:{(study.reports / 'results.csv').as_posix()}")
        if text and results and _without_dim(text) == own:
            frames.append(read_results(io.StringIO(results)))
    return (
        pd.concat(frames).drop_duplicates(["run", "dim", "text_condition", "metric"]).reset_index(drop=True)
    )


def _commit_and_experiments() -> list[str]:
    """The current commit, and those of the DVC experiments whose baseline it is."""
    baseline = _git("rev-parse", "HEAD").strip()
    if not baseline:
        return []
    refs = f"refs/exps/{baseline[:2]}/{baseline[2:]}/"
    return [baseline, *sorted(_git("for-each-ref", "--format=%(objectname)", refs).split())]


def _without_dim(text: str) -> Any:
    params = YAML(typ="safe", pure=True).load(text)
    (params.get("adapter") or {}).pop("dim", None)
    return params


def _git(*arguments: str) -> str:
    """What git answers; the empty string where there is no git, no repository or no such object."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
