"""How many images a method needs: DSC against the number of images that it was trained on."""

from typing import TYPE_CHECKING

import pandas as pd

from featherseg.config import Run
from featherseg.reporting import style
from featherseg.reporting.looks import looks, rows_of
from featherseg.reporting.study import Study
from featherseg.reporting.style import legend, panel_title
from featherseg.reporting.tables import FROM, honest, show, source_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENGTH = {"epochs", "min_epochs", "early_stop_patience", "early_stop_min_delta"}  # of a training
EMPTY = "p0"
HEADING = """## How many images a method needs

Each method trained on shares of the training images, drawn once for each seed so that smaller shares are parts of \
larger ones. Solid: trained with prompts. Dashed: trained and scored with empty ones, which shows what words are \
worth where images are few."""


def shown(study: Study) -> list:
    """A heading, `figure` and `table`; nothing where no method was trained on several shares."""
    rows = scored(study)
    return [] if rows.empty else [style.note(HEADING), figure(rows), show(table(rows), digits=1)]


def scored(study: Study) -> pd.DataFrame:
    """DSC in % with the own prompt (`dsc`) of every method that was trained on several shares, by dataset and share,
    mean over seeds; method by method, the largest share last.

    Runs are of one method where they differ in share, seed and length of training alone. `method` is its number, and
    `title` and `recipe` are those of its largest share; all other columns are those of `Study.results`.
    """
    methods = {run.name: _method(run) for run in study.runs if run.train}
    own = study.results[(study.results.text_condition == "own") & (study.results.metric == "dsc")]
    rows = own[own.run.isin(methods) & own.training_images.notna()].assign(dsc=100 * own["mean"])
    rows["method"] = rows.groupby(rows.run.map(methods), sort=False).ngroup()
    rows = rows[rows.groupby("method").share.transform("nunique") > 1]
    place = ["dataset", "method", "share"]
    rows["dsc"] = rows.groupby(place).dsc.transform("mean")
    rows = rows.drop_duplicates(place).sort_values(["method", "share"], kind="stable")
    largest = rows.groupby("method")[["title", "recipe"]].transform("last")
    return rows.assign(title=largest.title, recipe=largest.recipe)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """DSC in % by dataset, method and number of training images.

    Args:
        rows: as `scored` returns them.
    """
    lines = [{"dataset": row.dataset, "method": row.title, "% of images": 100 * row.share,
              "training images": int(row.training_images), "DSC": row.dsc, FROM: source_of(row), "data": row.data}
             for row in rows.sort_values("dataset", kind="stable").itertuples()]
    return honest(pd.DataFrame(lines))


def figure(rows: pd.DataFrame) -> "Figure":
    """DSC in % against the number of training images (log scale): one line per method and training prompts, one panel
    per dataset.

    Args:
        rows: as `scored` returns them.
    """
    drawn = looks(rows_of(rows))
    datasets = sorted(rows.dataset.unique())
    made, axes = style.panels(len(datasets), width=4.6, height=3.5, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        here = rows[rows.dataset == dataset]
        for _, line in here.groupby("method"):
            first = line.iloc[0]
            look = drawn[first.recipe]
            axis.plot(line.training_images, line.dsc, marker=look.marker, color=look.colour, label=first.title,
                      linestyle="--" if first.train_prompts == EMPTY else "-")
        counts = sorted(int(count) for count in here.training_images.unique())
        axis.set(xscale="log", title=panel_title(here), xlabel="training images")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
    axes[0].set_ylabel("DSC (%)")
    legend(made, axes, order=rows.title)
    return made


def _method(run: Run) -> str:
    """What runs of one method have in common."""
    return repr((run.model, run.adapter, run.training.model_dump(exclude={"share", *LENGTH})))
