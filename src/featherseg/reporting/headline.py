"""The chart that a study is summed up by: accuracy against what is trained for it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featherseg.reporting import style
from featherseg.reporting.looks import Look
from featherseg.reporting.study import Study
from featherseg.reporting.style import DOT, legend, panel_title
from featherseg.reporting.tables import own_dsc

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.9, 3.9  # inches of a panel


def figure(study: Study) -> "Figure | None":
    """Trainable parameters against DSC in %, one panel per dataset; None where nothing was scored."""
    scored = own_dsc(study.results)
    datasets = sorted(scored.dataset.unique())
    if not datasets:
        return None
    drawn, axes = style.panels(len(datasets), width=WIDTH, height=HEIGHT)
    for axis, dataset in zip(axes, datasets, strict=True):
        draw(axis, scored[scored.dataset == dataset], study.looks)
    axes[0].set_ylabel("DSC (%)")
    legend(drawn, axes, order=study.results.title)
    for axis, dataset in zip(axes, datasets, strict=True):
        name_points(axis, scored[scored.dataset == dataset])
    return drawn


def draw(axis: "Axes", rows: "pd.DataFrame", looks: Mapping[str, Look]) -> None:
    """The methods of one dataset; what trains nothing is a line.

    Args:
        axis: where they are drawn.
        rows: of `tables.own_dsc`.
        looks: of the study's recipes.
    """
    for row in rows.itertuples():
        look = looks[row.recipe]
        drawn: dict[str, Any] = {"color": look.colour, "label": row.title}
        if row.trainable_parameters:
            axis.scatter(row.trainable_parameters, row.dsc, marker=look.marker, **drawn, **DOT)
        else:
            axis.axhline(row.dsc, linestyle="--", linewidth=1.4, **drawn)
    axis.set(xscale="log", title=panel_title(rows), xlabel="trainable parameters")
    style.few_ticks(axis)
    axis.margins(x=0.18, y=0.15)


def name_points(axis: "Axes", rows: "pd.DataFrame") -> None:
    """The methods' names beside their points, once the figure has its legend."""
    names = style.short_names(rows.title)
    trained = rows[rows.trainable_parameters > 0]
    style.label_points(axis, [(row.trainable_parameters, row.dsc, names[row.title]) for row in trained.itertuples()])
