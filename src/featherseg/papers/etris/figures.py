"""ETRIS's charts: accuracy against what tuning costs, and two prompts on one image."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from featherseg.core.paths import processed
from featherseg.data.prepared import PreparedDataset, Sample
from featherseg.papers.etris.ablations import ablations
from featherseg.papers.etris.accuracy import accuracy, methods
from featherseg.papers.etris.counts import BRIDGER
from featherseg.reporting import overlays, pictures, style
from featherseg.reporting.study import Study
from featherseg.reporting.style import DOT, legend, panel_title
from featherseg.reporting.tables import FROM

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = {"trainable_parameters": "trainable parameters", "trainable": "trainable parameters",
         "memory": "peak memory in training (GiB)"}


def accuracy_and_cost(study: Study) -> "Figure | Markdown":
    """Accuracy in % of ETRIS's tuning methods against trainable parameters and against peak memory: one row per
    dataset."""
    frame = methods(accuracy(study.every_result))
    if frame.empty:
        return style.note("No tuning method of ETRIS has been run in this study.")
    frame["memory"] /= 1024
    datasets = sorted(frame.dataset.unique())
    figure, axes = style.panels(2 * len(datasets), width=4.9, height=3.4, columns=2)
    panels = list(itertools.product(datasets, ("trainable_parameters", "memory")))
    names = style.short_names(frame.title)
    for axis, (dataset, cost) in zip(axes, panels, strict=True):
        rows = frame[frame.dataset == dataset]
        for recipe, runs in rows.groupby("recipe", sort=False):
            look = study.looks[str(recipe)]
            axis.scatter(runs[cost].mean(), runs.accuracy.mean(), label=runs.title.iloc[0], marker=look.marker,
                         color=look.colour, **DOT | {"s": 90})
        wide = rows[cost].max() > 10 * rows[cost].min()
        axis.set(title=f"{panel_title(rows)}, {rows.split.iloc[0]}", xscale="log" if wide else "linear")
        _label(axis, rows, cost)
        axis.margins(x=0.15, y=0.18)
    legend(figure, axes, order=study.results.title)
    for axis, (dataset, cost) in zip(axes, panels, strict=True):
        points = frame[(frame.dataset == dataset) & frame[cost].notna()].groupby("title", sort=False)
        means = points[[cost, "accuracy"]].mean().itertuples()
        style.label_points(axis, [(place, accuracy, names[title]) for title, place, accuracy in means])
    return figure


def ablations_and_cost(study: Study) -> "Figure | Markdown":
    """Accuracy in % of ETRIS's ablations against trainable parameters and against peak memory: one row for each
    model on each dataset, one line for each knob; the point that all knobs share is the recipe itself."""
    frame = ablations(study)
    frame = frame[frame.accuracy.notna()]
    if frame.empty or frame.groupby(["dataset", "model", "knob"]).size().max() < 2:
        return style.note("No ablation of ETRIS has been run in this study: every knob has one value.")
    frame["memory"] = frame["memory (MiB)"] / 1024
    groups = list(frame.groupby(["dataset", "model"], sort=False))
    figure, axes = style.panels(2 * len(groups), width=4.9, height=3.6, columns=2)
    panels = itertools.product(groups, ("trainable", "memory"))
    for axis, (((dataset, model), rows), cost) in zip(axes, panels, strict=True):
        _draw_knobs(axis, rows, cost)
        axis.set(title=f"{model}, {dataset} ({rows[FROM].iloc[0]})")
        _label(axis, rows, cost)
        axis.margins(x=0.2, y=0.18)
    legend(figure, axes)
    return figure


def two_sentences(study: Study) -> list:
    """For every dataset with several targets in an image, the best, the median and the worst pair of predictions that
    two prompts give on one image, by the lower DSC of the two; of the Bridger where one was scored, else of the most
    accurate run. Each below a heading with dataset and method."""
    shown = []
    for dataset, runs in accuracy(study.every_result).groupby("dataset"):
        bridgers = runs[(runs.adapter == BRIDGER) & ~runs.released]
        best = runs.loc[(runs if bridgers.empty else bridgers).accuracy.idxmax()]
        shown.append(style.heading(f"{dataset} ({best.data}), split {best.split}: {best.title}"))
        data = PreparedDataset.read(processed(str(dataset)))
        predictions = overlays.predictions(study, best.run)
        samples = {sample.sample_id: sample for sample in data.samples}
        pairs = _pairs(predictions, samples)
        if pairs.empty:
            shown.append(style.note("No image of this split has two targets with different prompts."))
            continue
        chosen = overlays.extremes(pairs)
        figure, axes = style.panels(2 * len(chosen), width=2.05, height=3.0, columns=6)
        ranked = [(rank, sample_id) for rank, pair in chosen.items() for sample_id in pair]
        for axis, (rank, sample_id) in zip(axes, ranked, strict=True):
            overlays.draw_prediction(axis, data, samples[sample_id], predictions.loc[sample_id], f"{rank} pair, ", 30)
        shown += pictures.shown(figure, study, str(dataset), "two_sentences")
    return shown or [style.note("No run of this study has been scored, so there is nothing to show.")]


def _draw_knobs(axis: "Axes", rows: "pd.DataFrame", cost: str) -> None:
    """One line for each knob of one model on one dataset, each point with its value.

    Args:
        axis: where they are drawn.
        rows: of `ablations`.
        cost: the column against which accuracy is drawn.
    """
    knobs_at = rows.groupby(["trainable", "memory", "accuracy"], dropna=False).knob.transform("nunique")
    knobs = rows.knob.nunique()
    itself = rows[(knobs_at == knobs) & (knobs > 1)]
    for (knob, line), (colour, mark) in zip(rows.groupby("knob", sort=False), style.SERIES, strict=False):
        known = line[line[cost].notna()].astype({cost: float}).sort_values(cost)
        axis.plot(known[cost], known.accuracy, color=colour, marker=mark, label=knob, linewidth=1, alpha=0.9,
                  linestyle="-" if knob in ("dim", "stages") else "")
        for point in known[~known.index.isin(itself.index)].to_dict("records"):
            axis.annotate(str(point["value"]), (point[cost], point["accuracy"]), xytext=(4, 4),
                          textcoords="offset points", fontsize=7.5, color=colour)
    for point in itself[itself[cost].notna()].drop_duplicates([cost, "accuracy"]).to_dict("records"):
        axis.annotate("the recipe itself", (point[cost], point["accuracy"]), xytext=(4, -9),
                      textcoords="offset points", fontsize=7.5)


def _label(axis: "Axes", rows: "pd.DataFrame", cost: str) -> None:
    """Labels and ticks of a panel, and a note where its costs were not recorded."""
    axis.set(xlabel=COSTS[cost], ylabel=f"{rows.measure.iloc[0]} (%)")
    style.few_ticks(axis)
    if rows[cost].isna().all():
        axis.text(0.5, 0.5, "not recorded here", transform=axis.transAxes, ha="center", color="#666666")


def _pairs(predictions: "pd.DataFrame", samples: Mapping[str, Sample]) -> "pd.Series":
    """The lower DSC of each pair of samples on one image whose prompts differ, by the pair of sample ids."""
    import pandas as pd

    lower = {}
    for _, group in predictions.groupby([samples[sample_id].image for sample_id in predictions.index]):
        for first, second in itertools.combinations(sorted(group.index), 2):
            if group.prompt[first] != group.prompt[second]:
                lower[first, second] = group.dsc[[first, second]].min()
    return pd.Series(lower.values(), index=pd.Index(lower, tupleize_cols=False), dtype=float)
