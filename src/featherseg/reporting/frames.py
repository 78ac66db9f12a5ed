"""Records as frames: what `collect` wrote, under the column names that tables use."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from featherseg.core.errors import UserError
from featherseg.core.markup import from_csv_cell
from featherseg.reporting.records import SCORE_COLUMNS, SEGMENTATION, data_label, weights_label
from featherseg.tasks.base import TASKS

if TYPE_CHECKING:
    import pandas as pd

# columns of runs.csv by what tables call them
TEXT_OF_RUNS = {
    "run": "run",
    "study": "study",
    "task": "task",
    "recipe": "recipe",
    "title": "title",
    "published": "published",
    "dataset": "dataset",
    "model": "model.name",
    "adapter": "adapter.name",
    "positions": "adapter.positions",
    "direction": "adapter.direction",
    "head_parts": "model.head_parts",
    "train_prompts": "train.prompts",
    "prompts": "evaluate.prompts",
    "data_kind": "data.kind",
    "weights_kind": "weights.kind",
    "weights_name": "weights.name",
    "weights_sha256": "weights.sha256",
    "weights_parts": "weights.parts",
    "hardware": "hardware",
    "commit": "commit",
    "status": "status",
    "reason": "reason",
}
NUMBERS_OF_RUNS = {
    "seed": "seed",
    "share": "train.share",
    "training_images": "training_images",
    "dim": "adapter.dim",
    "stages": "adapter.stages",
    "trainable_parameters": "trainable_parameters",
    "total_parameters": "total_parameters",
    "images_per_second": "images_per_second",
    "memory_process": "peak_memory_mib.process",
    "memory_accelerator": "peak_memory_mib.accelerator",
}
# columns of results.csv by what tables call them
TEXT_OF_SCORES = {
    "run": "run",
    "split": "split",
    "member": "member",
    "target": "target",
    "text_condition": "condition",
    "sentences": "scope",
    "metric": "metric",
    "unit": "unit",
}
NUMBERS_OF_SCORES = {"threshold": "threshold", "mean": "value", "std": "std", "n": "n"}


def joined(runs: "pd.DataFrame", scores: "pd.DataFrame") -> "pd.DataFrame":
    """Scores with the records of their runs and the counts of their masks: one row per score that is no count.

    Args:
        runs, scores: as `read_runs` and `read_scores` return them.

    Returns:
        their columns, and one for each metric that segmentation and the runs' tasks count. A run without a score has
        one row, with status `not_run`.
    """
    place = ["run", "split", "member", "target", "text_condition", "sentences", "threshold"]
    tasks = {SEGMENTATION: None} | dict.fromkeys(runs.task)  # tables of masks read its counts, even without a run
    metrics = [metric for task in tasks for metric in TASKS[task].metrics]
    counted = list(dict.fromkeys(metric.name for metric in metrics if metric.average == "count"))
    is_count = scores.metric.isin(counted)
    counts = scores[is_count].pivot(index=place, columns="metric", values="mean")
    counts = counts.reindex(columns=counted).reset_index()
    measured = scores[~is_count].merge(counts, on=place, how="left", sort=False)
    rows = runs.merge(measured, on="run", how="left", sort=False)
    text = list(TEXT_OF_SCORES)
    rows[text] = rows[text].fillna("")
    return rows


def read_runs(source: "Path | TextIO") -> "pd.DataFrame":
    """`runs.csv` under the column names of tables; absent text is the empty string, an absent number NaN.

    Beside its columns: `released`, whether a run follows released code instead of what is correct, `data` and
    `weights`, as reports call them, and `memory`, the peak in MiB, the accelerator's where one was used. `share` is 1
    where a run states none.

    Raises:
        UserError: a column is missing, as in results of an older version.
    """
    import pandas as pd

    table = _read(source, TEXT_OF_RUNS.values(), ("run", "recipe", "title", "published", "data.kind", "weights.kind"))
    columns = {name: table.get(column, "") for name, column in TEXT_OF_RUNS.items()}
    columns |= {name: table.get(column, float("nan")) for name, column in NUMBERS_OF_RUNS.items()}
    runs = pd.DataFrame(columns)
    weights = zip(runs.weights_kind, runs.weights_name, runs.weights_sha256, runs.weights_parts, strict=True)
    return runs.assign(
        released=runs.published != "",
        share=runs.share.fillna(1.0),
        data=runs.data_kind.map(data_label),
        weights=[weights_label(*record) for record in weights],
        memory=runs.memory_accelerator.fillna(runs.memory_process).astype(float))


def read_scores(source: "Path | TextIO") -> "pd.DataFrame":
    """`results.csv` under the column names of tables; absent text is the empty string, an absent number NaN.

    Raises:
        UserError: a column is missing, as in results of an older version.
    """
    names = TEXT_OF_SCORES | NUMBERS_OF_SCORES
    return _read(source, TEXT_OF_SCORES.values(), SCORE_COLUMNS)[list(names.values())].set_axis(list(names), axis=1)


def _read(source: "Path | TextIO", text: Iterable[str], needed: Iterable[str]) -> "pd.DataFrame":
    """A table that `collect` wrote."""
    import pandas as pd

    table = pd.read_csv(source, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])  # a target "NA"
    for column in needed:
        if column not in table:
            name = source if isinstance(source, Path) else "a committed table"
            raise UserError(f"{name} lacks the column '{column}'; collect the study again: featherseg collect.")
    columns = list(table.columns.intersection(list(text)))
    table[columns] = table[columns].fillna("").map(from_csv_cell)
    return table


def in_order(rows: "pd.DataFrame", recipes: Sequence[str]) -> "pd.DataFrame":
    """The rows by recipe in this order; those of other recipes follow as they are."""
    places = {recipe: place for place, recipe in enumerate(recipes)}
    order = rows.recipe.map(places).fillna(len(places)).sort_values(kind="stable")
    return rows.loc[order.index].reset_index(drop=True)


def whole_sets(results: "pd.DataFrame") -> "pd.DataFrame":
    """The rows without those of the members of pooled datasets and of single targets."""
    return results[(results.member == "") & (results.target == "")].reset_index(drop=True)


def first_split(results: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of each run's first split, without the measures of referring segmentation."""
    first = results.groupby("run")["split"].transform("first")
    return results[(results["split"] == first) & (results["sentences"] == "")].reset_index(drop=True)
