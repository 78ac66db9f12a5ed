"""The charts that papers share. Each draws what a table holds, and says when there is nothing to draw."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from featherseg.reporting import style
from featherseg.reporting.study import Study
from featherseg.reporting.tables import own_dsc

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOT = {"s": 60, "zorder": 3, "edgecolor": "white", "linewidth": 0.7}


def dsc_by_parameters(axis: "Axes", rows: "pd.DataFrame") -> None:
    """DSC in % of one dataset's methods against their trainable parameters (log scale); what trains nothing is a line.

    Args:
        axis: where it is drawn.
        rows: of `tables.own_dsc`.
    """
    for row in rows.itertuples():
        look = {"color": style.colour(row.adapter, row.positions), "label": row.title}
        if row.trainable_parameters:
            look["marker"] = style.marker(row.adapter)
            axis.scatter(row.trainable_parameters, row.dsc, **look, **DOT)
        else:
            axis.axhline(row.dsc, linestyle="--", linewidth=1.4, **look)
    axis.set(xscale="log", title=panel_title(rows), xlabel="trainable parameters")
    style.few_ticks(axis)
    axis.margins(x=0.12, y=0.15)


def panel_title(rows: "pd.DataFrame") -> str:
    """The dataset of some rows of one dataset, with its origin."""
    first = rows.iloc[0]
    return f"{first.dataset} ({first.data})"


def language_check(study: Study) -> "Figure | Markdown":
    """DSC in % with the own prompt, an empty one and another sample's: one line per method, one panel per
    dataset.

    Markers far apart: the model reads its prompt. Markers on top of each other: it looks only at the image.
    """
    looks = {"other": ("another's prompt", style.OTHER, "X"), "empty": ("empty prompt", style.EMPTY, "s"),
             "own": ("own prompt", style.OWN, "o")}
    frames = {condition: own_dsc(study.results, condition) for condition in looks}
    own = frames["own"]
    if own.empty:
        return style.note("No run of this study has been scored.")
    datasets, methods = sorted(own.dataset.unique()), list(dict.fromkeys(own.title))[::-1]
    figure, axes = style.panels(len(datasets), width=4.9, height=0.9 + 0.34 * len(methods), sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        rows = own[own.dataset == dataset]
        spread = {condition: frame[frame.dataset == dataset].set_index("title").dsc
                  for condition, frame in frames.items()}
        for title in rows.title:
            ends = [values[title] for values in spread.values()]
            axis.plot([min(ends), max(ends)], [methods.index(title)] * 2, color="#cccccc", linewidth=3)
        for condition, (label, colour, mark) in looks.items():
            axis.scatter([spread[condition][title] for title in rows.title],
                         [methods.index(title) for title in rows.title],
                         color=colour, marker=mark, label=label, **DOT)
        axis.set(title=panel_title(rows), xlabel="DSC (%)", xlim=(-3, 103),
                 ylim=(-0.6, len(methods) - 0.4))
    axes[0].set_yticks(range(len(methods)), methods)
    legend(figure, axes)
    return figure


def training_curves(study: Study) -> "Figure | Markdown":
    """Validation DSC in % by epoch, one panel per dataset, one line per run."""
    curves = study.curves.dropna(subset="val_dsc")
    if curves.empty:
        return style.note("No run of this study has been trained.")
    known = study.results.drop_duplicates("run").set_index("run")
    datasets = sorted(curves.dataset.unique())
    figure, axes = style.panels(len(datasets), width=4.6, height=3.3, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        for run, line in curves[curves.dataset == dataset].groupby("run", sort=False):
            record = known.loc[run]
            axis.plot(line.epoch, 100 * line.val_dsc, linewidth=1.6, markersize=4, label=record.title,
                      color=style.colour(record.adapter, record.positions), marker=style.marker(record.adapter))
        axis.set(title=panel_title(known[known.dataset == dataset]), xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("validation DSC (%)")
    legend(figure, axes)
    return figure


def legend(figure: "Figure", axes: "Sequence[Axes]", columns: int = 6) -> None:
    """One legend below the panels, each label once."""
    entries = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries[label] = handle
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(len(entries), columns))
