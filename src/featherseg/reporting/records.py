"""The records of a run: what it is, where its data and weights come from, what it took, and what it scored.

`collect` writes them as tables. Whatever reports say about a run is read from its record, never from its name.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherseg.config import DataParams, ModelConfig, Run, read_params
from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason, read_object
from featherseg.core.paths import CHECKSUMS, WEIGHTS
from featherseg.core.terminal import shortened
from featherseg.data.raw.checksums import Checksums
from featherseg.models import public
from featherseg.models.weights import is_random
from featherseg.tasks.base import RECORD

if TYPE_CHECKING:
    import pandas as pd

    from featherseg.reporting.study import Study

SYNTHETIC, EMBEDDED, OWN, OFFICIAL = "synthetic", "embedded", "own", "official"  # kinds of data
DATA_LABELS = {SYNTHETIC: "synthetic stand-in", EMBEDDED: "real images, embedded", OWN: "own folder",
               OFFICIAL: "official"}
RANDOM, SMALL, PUBLIC, ASSEMBLED = "random", "small", "public", "assembled"  # kinds of weights, and OWN
SMALL_WEIGHTS, EMBEDDED_DATA = Path("pipelines/pretrain/weights"), Path("data/embedded")
SEGMENTATION = "segmentation"  # the task of the papers' tables
JOIN = "+"  # between the parts of a record's value
SCORE_COLUMNS = ("run", *RECORD)


def run_record(study: "Study", run: Run) -> dict[str, Any]:
    """One row of `runs.csv`: the flattened plan, the origin of data and weights, parameters, machine and status.

    Raises:
        UserError: the run has not been scored; the message names the stage that does it.
    """
    folder = study.evaluate(run.name)
    if not (folder / "status.json").is_file():
        raise UserError(f"run '{run.name}' is declared but not scored: {folder} does not exist; "
                        f"run it first: dvc repro evaluate@{run.name}.")
    reason = not_run_reason(folder)
    recipe = study.recipes[run.recipe]
    counted = {} if reason else read_object(folder / "model.json", "trainable_parameters", "total_parameters")
    identity = {"run": run.name, "study": study.name, "task": run.task, "recipe": run.recipe, "title": recipe["title"],
                "published": JOIN.join(recipe["published"]), "dataset": run.dataset, "seed": run.seed}
    origin = {"data.kind": JOIN.join(data_kinds(run.dataset)), **weights_record(run.model)}
    parameters = {key: counted.get(key) for key in ("trainable_parameters", "total_parameters")}
    status = {"status": "not_run" if reason else "ok", "reason": reason or ""}
    return identity | status | origin | parameters | plan_record(run) | machine_record(study, run)


def plan_record(run: Run) -> dict[str, Any]:
    """The settings of a run that have an effect, under dotted names such as `adapter.dim`."""
    settings = run.model_dump(mode="json", include={"model", "adapter", "evaluate"}, exclude_none=True)
    settings["train"] = run.train.knobs() if run.train else {}
    return dict(_flattened(settings))


def machine_record(study: "Study", run: Run) -> dict[str, Any]:
    """Hardware, versions, commit and times of a training, as far as they were recorded."""
    path = study.info(run.name)
    facts = read_object(path) if path.is_file() else {}
    facts.pop("not_run", None)
    return dict(_flattened(facts))


def data_kinds(dataset: str) -> list[str]:
    """Where a dataset comes from: `SYNTHETIC`, `EMBEDDED` (a folder of this repository), `OWN` or `OFFICIAL`; of a
    pooled one, the kinds of its members."""
    data = read_params("study").data
    members = data.pooled[dataset].members if dataset in data.pooled else [dataset]
    return sorted({_data_kind(data, name) for name in members}, key=DATA_LABELS.__getitem__)


def _data_kind(data: DataParams, name: str) -> str:
    """The kind of a dataset that is not pooled."""
    if name in data.synthetic:
        return SYNTHETIC
    if name in data.folders:
        return EMBEDDED if Path(data.folders[name].path).parent == EMBEDDED_DATA else OWN
    return OFFICIAL


def data_label(kinds: str) -> str:
    """What reports call the kinds of data of a record, such as `official and own folder`."""
    return " and ".join(DATA_LABELS[kind] for kind in kinds.split(JOIN))


def weights_record(model: ModelConfig) -> dict[str, str]:
    """Where a run's base weights come from.

    Returns:
        weights.kind: `RANDOM`, `SMALL` (the embedded stand-in of public weights), `PUBLIC`, `ASSEMBLED` from public
        ones, or `OWN`. Weights in the folder of public ones whose SHA-256 is not the recorded one are `OWN`.
        weights.name: the folder's name, or its path where there are no weights yet; weights.sha256;
        weights.parts: the public weights that assembled ones are made of.
    """
    path, sha256 = Path(model.weights), model.sha256 or ""
    parts = public.ASSEMBLED.get(path.name, ()) if path.parent == WEIGHTS else ()
    if is_random(model.weights):
        kind = RANDOM
    elif path.parent == SMALL_WEIGHTS:
        kind = SMALL
    elif parts:
        kind = ASSEMBLED
    else:
        kind = PUBLIC if _is_public(path, sha256) else OWN
    return {"weights.kind": kind, "weights.name": path.name if sha256 else model.weights, "weights.sha256": sha256,
            "weights.parts": JOIN.join(parts)}


def _is_public(path: Path, sha256: str) -> bool:
    """Whether a folder is that of public weights, unchanged since the first download where that was recorded."""
    if path.parent != WEIGHTS or path.name not in public.WEIGHTS:
        return False
    known = Checksums(CHECKSUMS)
    recorded = [known.get(f"weights/{path.name}/{file}") for file in public.WEIGHTS[path.name].files]
    return sha256 in recorded or not any(recorded)


def weights_label(kind: str, name: str, sha256: str, parts: str) -> str:
    """What reports call base weights: their folder, what they are put together from or whether they are small
    stand-ins, and the start of the SHA-256."""
    if not sha256:
        return name
    made_of = " and ".join(parts.split(JOIN)) if parts else "small stand-in" if kind == SMALL else ""
    return f"{name} ({made_of}{', ' if made_of else ''}sha256 {sha256[:12]})"


def score_records(study: "Study", run: Run) -> "pd.DataFrame":
    """The rows of `results.csv` of one run, values to six places; empty for a run that was not made.

    Split `test` comes first where it was scored, then the splits in the order of the run's settings.

    Raises:
        UserError: the scores are not in the form that an evaluation writes.
    """
    import pandas as pd

    folder = study.evaluate(run.name)
    path = folder / "results.parquet"
    if not_run_reason(folder):
        return pd.DataFrame(columns=list(SCORE_COLUMNS))
    splits = sorted(run.evaluate.splits, key=lambda split: split != "test")
    try:
        scores = pd.read_parquet(path)[list(RECORD)]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not what an evaluation writes ({shortened(' '.join(str(error).split()), 200)}); "
                        f"score the run again: dvc repro -f evaluate@{run.name}.") from None
    scores = scores[scores.split.isin(splits)].assign(run=run.name)
    if scores.empty:
        raise UserError(f"{path} holds no scores of split {', '.join(splits)}; score the run again: "
                        f"dvc repro -f evaluate@{run.name}.")
    order = {split: place for place, split in enumerate(splits)}
    scores = scores.assign(order=scores.split.map(order)).sort_values(["order", "condition"], kind="stable")
    return scores.round({"value": 6, "std": 6})[list(SCORE_COLUMNS)]


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings under dotted names; lists as text, their items joined by `+`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", JOIN.join(map(str, value))
        else:
            yield f"{prefix}{key}", value
