"""From the declared runs of a study to its results: one tidy table, the metrics of DVC, and training curves.

Only the plan says which runs there are. What a shrunk grid left on disk is never read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherseg.config import Run, read_params
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, not_run_reason, read_object, write_json
from featherseg.core.markup import csv_cell
from featherseg.reporting.study import Study, first_split, whole_sets
from featherseg.tasks.segmentation.metrics import UNITS
from featherseg.tasks.segmentation.referring import MEASURES

if TYPE_CHECKING:
    import pandas as pd

SYNTHETIC, OWN, OFFICIAL = "synthetic stand-in", "own folder", "official"
SMALL, EMBEDDED = "small stand-in", Path("pipelines/pretrain/weights")
COUNTS = ("n", "n_empty_truth", "n_empty_prediction", "n_own_prompt", "n_missed", "n_flooded")
MOST_TARGETS = 60  # of a dataset whose targets have rows of their own
COLUMNS = ("study", "run", "recipe", "model", "adapter", "positions", "dim", "stages", "direction", "head_parts",
           "dataset", "member", "target", "seed", "train_prompts", "prompts", "split", "text_condition", "sentences",
           "threshold", "metric", "mean", "std", "unit", *COUNTS,
           "trainable_parameters", "total_parameters", "weights", "data", "status", "reason")
CURVES = ("run", "recipe", "dataset", "seed", "epoch", "loss", "val_dsc")


def collect(study: str) -> None:
    """Write `results.csv`, `metrics.json` and `curves.csv` of a study into its folder in reports/.

    `results.csv` has one row per run, split, text condition and metric, on a pooled set one more for each member
    (column `member`, empty in all other rows), one more for each target's DSC where there are 2 to `MOST_TARGETS`
    (column `target`, likewise), and one per measure of `referring.py`, threshold and set of sentences
    (`first` or `all`; empty in all other rows); a run that was not made has one row with its reason. `metrics.json`
    holds the mean DSC of each recipe with its own prompt, on the first split, over datasets and seeds. Equal runs give
    equal bytes.

    Raises:
        UserError: the study has no plan, or a declared run was neither scored nor marked as not run.
    """
    import pandas as pd

    opened = Study(study)
    rows = [row for run in opened.runs for row in result_rows(opened, run)]
    results = pd.DataFrame(rows, columns=list(COLUMNS))
    _write_csv(opened.reports / "results.csv", results)
    _write_csv(opened.reports / "curves.csv", curves(opened))
    write_json(opened.reports / "metrics.json", {"dsc": mean_dsc(first_split(whole_sets(results)))})


def result_rows(study: Study, run: Run) -> list[dict[str, Any]]:
    """Rows of `results.csv` for one run: split `test` first where it was scored, then in the order of its settings.

    Raises:
        UserError: the run has no scores; the message names the stage that makes them.
    """
    folder = study.evaluate(run.name)
    if not (folder / "status.json").is_file():
        raise UserError(f"run '{run.name}' is declared but not scored: {folder} is absent; "
                        f"run it first: dvc repro evaluate@{run.name}.")
    row = {"study": study.name, "run": run.name, "recipe": run.recipe, "model": run.model.name,
           "adapter": run.adapter["name"], "positions": run.adapter.get("positions", ""),
           "dim": run.adapter.get("dim"), "stages": run.adapter.get("stages"),
           "direction": run.adapter.get("direction", ""), "head_parts": head_parts_of(run),
           "dataset": run.dataset, "member": "", "target": "", "seed": run.seed,
           "train_prompts": run.train.prompts if run.train else "", "prompts": run.evaluate.prompts,
           "split": "", "text_condition": "", "sentences": "", "metric": "",
           "weights": weights_of(run), "data": data_of(run.dataset), "status": "ok", "reason": ""}
    reason = not_run_reason(folder)
    if reason is not None:
        return [row | {"status": "not_run", "reason": reason}]
    path = folder / "metrics.json"
    metrics = read_object(path, "splits", "threshold", "trainable_parameters", "total_parameters")
    row |= {key: metrics[key] for key in ("trainable_parameters", "total_parameters")}
    rows = []
    try:
        splits = [split for split in run.evaluate.splits if split in metrics["splits"]]
        for split in sorted(splits, key=lambda split: split != "test"):
            scored = row | {"split": split, "threshold": metrics["threshold"]}
            rows += _condition_rows(scored, metrics["splits"][split]["conditions"])
            rows += _referring_rows(scored, metrics["splits"][split].get("referring", {}))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is not what a scoring writes ({type(error).__name__}: {error}); score the run again: "
                        f"dvc repro -f evaluate@{run.name}.") from None
    if not rows:
        raise UserError(f"{path} holds no scores of split {', '.join(run.evaluate.splits)}; score the run again: "
                        f"dvc repro -f evaluate@{run.name}.")
    return rows


def _condition_rows(row: dict[str, Any], conditions: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for condition, scores in sorted(conditions.items()):
        scored = row | {"text_condition": condition}
        members = {name: means for name, means in scores["datasets"].items() if name != row["dataset"]}
        targets = scores["targets"] if 2 <= len(scores["targets"]) <= MOST_TARGETS else {}
        rows += [_mean_row(scored | {"member": member}, means, metric)
                 for member, means in {"": scores, **members}.items() for metric in ("dsc", "hd95", "iou")]
        rows += [_mean_row(scored | {"target": target}, means, "dsc") for target, means in targets.items()]
    return rows


def _mean_row(row: dict[str, Any], means: dict[str, Any], metric: str) -> dict[str, Any]:
    counts = {key: means[key] for key in COUNTS}
    scores = {key: round(means[metric][key], 6) for key in ("mean", "std")}
    return row | counts | scores | {"metric": metric, "unit": means[metric].get("unit", UNITS[metric])}


def _referring_rows(row: dict[str, Any], scopes: dict[str, Any]) -> list[dict[str, Any]]:
    return [row | {"text_condition": "own", "sentences": scope, "threshold": float(threshold), "metric": measure,
                   "mean": round(found[measure], 6)} | {key: found[key] for key in COUNTS if key in found}
            for scope, thresholds in scopes.items() for threshold, found in thresholds.items() for measure in MEASURES]


def weights_of(run: Run) -> str:
    """Which base weights a run started from: their folder, whether they are the embedded stand-in of public ones, and
    the start of their SHA-256."""
    if run.model.sha256 is None:
        return run.model.weights
    folder = Path(run.model.weights)
    kind = f"{SMALL}, " if folder.parent == EMBEDDED else ""
    return f"{folder.name} ({kind}sha256 {run.model.sha256[:12]})"


def head_parts_of(run: Run) -> str:
    """The parts of the head, joined by `+`, where it is not whole."""
    return "+".join(run.model.knobs.get("head_parts", ()))


def data_of(dataset: str) -> str:
    """Where a dataset comes from: a synthetic stand-in, an own folder, an official archive, or a pool of them."""
    data = read_params("study").data
    if dataset in data.pooled:
        return " and ".join(sorted({data_of(member) for member in data.pooled[dataset].members}))
    return SYNTHETIC if dataset in data.synthetic else OWN if dataset in data.folders else OFFICIAL


def mean_dsc(results: "pd.DataFrame") -> dict[str, float]:
    """Mean DSC by recipe with the own prompt, over datasets and seeds; without a score it is left out.

    Args:
        results: rows of one split a run.
    """
    own = results[(results.text_condition == "own") & (results.metric == "dsc")]
    return {recipe: round(float(mean), 4) for recipe, mean in own.groupby("recipe")["mean"].mean().items()}


def curves(study: Study) -> "pd.DataFrame":
    """Loss and validation DSC of every epoch of every declared run that was trained."""
    import pandas as pd

    frames = [pd.DataFrame(columns=list(CURVES))]
    for run in study.runs:
        history = study.train(run.name) / "history.csv"
        if history.is_file():
            known = {"run": run.name, "recipe": run.recipe, "dataset": run.dataset, "seed": run.seed}
            try:
                frames.append(pd.read_csv(history).assign(**known)[list(CURVES)])
            except (ValueError, KeyError) as error:
                raise UserError(f"{history} is not the curve of a training ({' '.join(str(error).split())}); train the "
                                f"run again: dvc repro -f train@{run.name}.") from None
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _write_csv(path: Path, frame: "pd.DataFrame") -> None:
    with atomic_path(path) as partial:
        frame.map(csv_cell).to_csv(partial, index=False, lineterminator="\n")
