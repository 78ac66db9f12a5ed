"""The charts that a study is summed up by: accuracy against what a training costs, with the Pareto front."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from featherseg.reporting import style
from featherseg.reporting.looks import Look
from featherseg.reporting.study import Study
from featherseg.reporting.style import DOT, legend, panel_title
from featherseg.reporting.tables import own_dsc

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.9, 3.9  # inches of a panel
Point = tuple[float, float]  # cost and DSC


class Cost(NamedTuple):
    """What a training costs.

    Attributes:
        column: of `tables.own_dsc`.
        label: of an axis.
        scale: of an axis, `log` or `linear`.
    """

    column: str
    label: str
    scale: str


PARAMETERS = Cost("trainable_parameters", "trainable parameters", "log")
PROCESS = Cost("memory_process", "peak memory of the process in training (MiB)", "linear")
ACCELERATOR = Cost("memory_accelerator", "peak memory of the accelerator in training (MiB)", "linear")


def figure(study: Study) -> "Figure | None":
    """Trainable parameters against DSC in %, one panel per dataset; None where nothing was scored."""
    scored = own_dsc(study.results)
    return None if scored.empty else _panels(study, scored, PARAMETERS)


def memory_figure(study: Study) -> "Figure | Markdown":
    """Peak memory in training against DSC in %, one panel per dataset: the accelerator's where every training used one,
    else that of the process, which all have."""
    scored = own_dsc(study.results)
    trained = scored[scored.trainable_parameters > 0]
    cost = ACCELERATOR if trained.memory_accelerator.notna().all() else PROCESS
    if trained[cost.column].isna().all():
        return style.note("No training of this study recorded its memory.")
    return _panels(study, scored, cost)


def _panels(study: Study, scored: "pd.DataFrame", cost: Cost) -> "Figure":
    """One panel per dataset of the rows of `tables.own_dsc`."""
    datasets = sorted(scored.dataset.unique())
    drawn, axes = style.panels(len(datasets), width=WIDTH, height=HEIGHT)
    for axis, dataset in zip(axes, datasets, strict=True):
        draw(axis, scored[scored.dataset == dataset], study.looks, cost)
    axes[0].set_ylabel("DSC (%)")
    legend(drawn, axes, order=study.results.title)
    for axis, dataset in zip(axes, datasets, strict=True):
        name_points(axis, scored[scored.dataset == dataset], cost)
    return drawn


def draw(axis: "Axes", rows: "pd.DataFrame", looks: Mapping[str, Look], cost: Cost = PARAMETERS) -> None:
    """The methods of one dataset and their Pareto front; what trains nothing is a line.

    Args:
        axis: where they are drawn.
        rows: of `tables.own_dsc`.
        looks: of the study's recipes.
        cost: along the horizontal axis.
    """
    rows = _priced(rows, cost)
    for row in rows.itertuples():
        look = looks[row.recipe]
        drawn: dict[str, Any] = {"color": look.colour, "label": row.title}
        if row.cost:
            axis.scatter(row.cost, row.dsc, marker=look.marker, **drawn, **DOT)
        else:
            axis.axhline(row.dsc, linestyle="--", linewidth=1.4, **drawn)
    draw_front(axis, zip(rows.cost, rows.dsc, strict=True))
    axis.set(xscale=cost.scale, title=panel_title(rows), xlabel=cost.label)
    if cost.scale == "log":
        style.few_ticks(axis)
    else:
        axis.locator_params(axis="x", nbins=5)
    axis.margins(x=0.18, y=0.15)


def name_points(axis: "Axes", rows: "pd.DataFrame", cost: Cost = PARAMETERS) -> None:
    """The methods' names beside their points, once the figure has its legend; the arguments are those of `draw`."""
    names = style.short_names(rows.title)
    rows = _priced(rows, cost)
    trained = rows[rows.cost > 0]
    style.label_points(axis, [(row.cost, row.dsc, names[row.title]) for row in trained.itertuples()])


def draw_front(axis: "Axes", points: Iterable[Point]) -> None:
    """The Pareto front as a thin step line, up to the highest cost; nothing where fewer than two points cost anything.

    Args:
        axis: where the points are drawn.
        points: those of all methods, a cost of 0 for what trains nothing.
    """
    points = list(points)
    costs = [cost for cost, _ in points if cost]
    steps = [(cost, dsc) for cost, dsc in front(points) if cost]
    if len(costs) > 1 and steps:
        steps.append((max(costs), steps[-1][1]))
        axis.step(*zip(*steps, strict=True), where="post", color="#888888", linewidth=1, zorder=1, label="Pareto front")


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other one dominates, from the cheapest on: none of the others is at least as accurate at no
    more cost, and better in one of both. Of equal points one stays."""
    best, undominated = -math.inf, []
    for cost, dsc in sorted(points, key=lambda point: (point[0], -point[1])):
        if dsc > best:
            best = dsc
            undominated.append((cost, dsc))
    return undominated


def _priced(rows: "pd.DataFrame", cost: Cost) -> "pd.DataFrame":
    """The rows whose cost is known, in the column `cost`: 0 for what trains nothing."""
    costs = rows[cost.column].where(rows.trainable_parameters > 0, 0.0)
    return rows.assign(cost=costs).dropna(subset="cost")
