"""From the declared runs of a study to its results: records of runs and scores, the metrics of DVC, training curves.

Only the plan decides which runs there are. What a shrunk grid left on disk is never read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, write_json
from featherseg.core.markup import csv_cell
from featherseg.reporting.frames import first_split
from featherseg.reporting.records import run_record, score_records
from featherseg.reporting.study import Study
from featherseg.tasks.base import TASKS

if TYPE_CHECKING:
    import pandas as pd

CURVES = ("run", "recipe", "dataset", "seed", "epoch", "loss", "val_dsc")


def collect(study: str) -> None:
    """Write `runs.csv`, `results.csv`, `metrics.json` and `curves.csv` of a study into its folder in reports/.

    `runs.csv` has one row per run (`records.run_record`), `results.csv` one per score (`records.score_records`);
    a run that was not made stands in the former alone, with its reason. `metrics.json` holds the mean of each
    recipe in its task's main metric (`main_means`), on the first split. Equal runs give equal bytes.

    Raises:
        UserError: the study has no plan, or a declared run was neither scored nor marked as not run.
    """
    import pandas as pd

    opened = Study(study)
    runs = [run_record(opened, run) for run in opened.runs]
    scores = pd.concat([score_records(opened, run) for run in opened.runs], ignore_index=True)
    epochs = curves(opened)
    _write_csv(opened.reports / "runs.csv", pd.DataFrame(runs, columns=_columns(runs)))
    _write_csv(opened.reports / "results.csv", scores)
    _write_csv(opened.reports / "curves.csv", epochs)
    write_json(opened.reports / "metrics.json", main_means(first_split(opened.every_task)))


def main_means(results: "pd.DataFrame") -> dict[str, dict[str, float]]:
    """Each task's main metric by recipe, over datasets and seeds; a recipe without a score is left out.

    Of several conditions it is `own`, such as a sample's own prompt.

    Args:
        results: rows of one split per run.
    """
    own = results[results.text_condition.isin(["own", ""])]
    means = {}
    for task in results.task.unique():
        main = TASKS[task].metrics[0].name
        by_recipe = own[(own.task == task) & (own.metric == main)].groupby("recipe")["mean"].mean()
        means[main] = {recipe: round(float(mean), 4) for recipe, mean in by_recipe.items()}
    return means


def curves(study: Study) -> "pd.DataFrame":
    """Loss and validation score of every epoch of every declared run that was trained.

    The score is `val_dsc` where there is one, else that which chooses a run's best epoch.
    """
    import pandas as pd

    frames = [pd.DataFrame(columns=list(CURVES))]
    for run in study.runs:
        history = study.train(run.name) / "history.csv"
        if history.is_file():
            known = {"run": run.name, "recipe": run.recipe, "dataset": run.dataset, "seed": run.seed}
            try:
                table = pd.read_csv(history).assign(**known)
                scores = [name for name in table if name not in (*CURVES[:-1], "lr")]
                score = "val_dsc" if "val_dsc" in scores else scores[0]
                frames.append(table[[*CURVES[:-1], score]])
            except (ValueError, LookupError) as error:
                raise UserError(f"{history} is not the curve of a training ({' '.join(str(error).split())}); train the "
                                f"run again: dvc repro -f train@{run.name}.") from None
    table = pd.concat(frames[1:] or frames, ignore_index=True)
    return table.reindex(columns=[*CURVES, *table.columns.difference(CURVES)])


def _columns(records: list[dict[str, Any]]) -> list[str]:
    """Every name in the records; those of one section, such as `adapter.dim` and `adapter.positions`, side by side."""
    names = dict.fromkeys(name for record in records for name in record)
    sections = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return sorted(names, key=lambda name: sections.index(name.partition(".")[0]))


def _write_csv(path: Path, frame: "pd.DataFrame") -> None:
    with atomic_path(path) as partial:
        frame.map(csv_cell).to_csv(partial, index=False, lineterminator="\n")
