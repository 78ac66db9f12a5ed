"""VLSM-Adapter's charts: accuracy against trainable parameters, by position and by width of the adapters."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from featherseg.papers.vlsm_adapter import published
from featherseg.papers.vlsm_adapter.published import TABLE_1
from featherseg.papers.vlsm_adapter.table import SMALL_ADAPTERS
from featherseg.recipes import declared
from featherseg.reporting import headline, style
from featherseg.reporting.experiments import with_experiments
from featherseg.reporting.frames import first_split
from featherseg.reporting.looks import Look, Row, looks, rows_of
from featherseg.reporting.study import Study
from featherseg.reporting.style import DOT, legend, panel_title
from featherseg.reporting.tables import own_dsc

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

def parameters_and_dsc(study: Study) -> "Figure":
    """Trainable parameters (log scale) against DSC in %, with the Pareto front: one panel for the paper, one for each
    dataset here."""
    frame = own_dsc(study.results)
    datasets = sorted(frame.dataset.unique())
    drawn = looks([*rows_of(study.every_task), *_published_rows(study)])
    figure, axes = style.panels(1 + len(datasets), width=headline.WIDTH, height=headline.HEIGHT)
    names = _published_panel(axes[0], drawn)
    for axis, dataset in zip(axes[1:], datasets, strict=True):
        headline.draw(axis, frame[frame.dataset == dataset], drawn)
    legend(figure, axes[1:], order=study.results.title)
    style.label_points(axes[0], names)
    for axis, dataset in zip(axes[1:], datasets, strict=True):
        headline.name_points(axis, frame[frame.dataset == dataset])
    return figure


def position_bars(study: Study) -> "Figure | Markdown":
    """DSC in % of the dense and shallow adapters by position V, VL, VLC, one panel per dataset."""
    frame = own_dsc(study.results)
    frame = frame[frame.adapter.isin(SMALL_ADAPTERS) & ~frame.released]
    if frame.empty:
        return style.note("No dense or shallow adapter has been run in this study.")
    datasets = sorted(frame.dataset.unique())
    most = frame.groupby("dataset").size().max()
    figure, axes = style.panels(len(datasets), width=4.6, height=1 + 0.34 * most)
    for axis, dataset in zip(axes, datasets, strict=True):
        rows = frame[frame.dataset == dataset]
        names = [f"{row.title} (dim {row.dim:.0f})" for row in rows.itertuples()]
        bars = axis.barh(range(len(rows)), rows.dsc, height=0.65,
                         color=[study.looks[recipe].colour for recipe in rows.recipe])
        axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
        axis.set(title=panel_title(rows), xlim=(0, 105), xlabel="DSC (%)", ylim=(len(rows) - 0.5, -0.5))
        axis.set_yticks(range(len(rows)), names)
        axis.grid(axis="y", visible=False)
    return figure


def dim_lines(study: Study) -> "Figure | Markdown":
    """DSC in % by adapter width, one panel per dataset; a note where only one width has been run.

    Widths come from this study's runs, and from the current commit and its experiments that changed nothing else.
    """
    frame = own_dsc(first_split(with_experiments(study)))
    frame = frame[frame.adapter.isin(SMALL_ADAPTERS)]
    dims = sorted(int(dim) for dim in frame.dim.unique())
    if len(dims) < 2:
        ran = f"Only dim {dims[0]}" if dims else "No dense or shallow adapter"
        return style.note(f"{ran} has been run here; for more widths: `dvc exp run -S adapter.dim=64`, or a queue "
                          "of them and then `dvc repro -s -f notebook@10_vlsm_adapter`.")
    datasets = sorted(frame.dataset.unique())
    figure, axes = style.panels(len(datasets), width=4.6, height=3.3, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        rows = frame[frame.dataset == dataset]
        for recipe, line in rows.groupby("recipe", sort=False):
            line, look = line.sort_values("dim"), study.looks[str(recipe)]
            axis.plot(line.dim, line.dsc, marker=look.marker, label=line.title.iloc[0], color=look.colour)
        axis.set(xscale="log", title=panel_title(rows), xlabel="adapter width (dim)")
        axis.set_xticks(dims, [str(dim) for dim in dims])
        axis.minorticks_off()
    axes[0].set_ylabel("DSC (%)")
    legend(figure, axes, order=study.results.title)
    return figure


def _published_rows(study: Study) -> list[Row]:
    """The recipes of Table 1 that the study does not declare."""
    own = set(study.every_task.recipe)
    rows = []
    for recipe in (method.recipes[0] for method in TABLE_1):
        if recipe not in own:
            declared_recipe = declared(recipe)
            adapter = declared_recipe.adapter
            rows.append(Row(recipe, declared_recipe.model, adapter["name"], adapter.get("positions", "")))
    return rows


def _published_panel(axis: "Axes", drawn: Mapping[str, Look]) -> list[tuple[float, float, str]]:
    """Table 1's means over eight sets, with the parameters that Table 1 prints; place and name of each point.

    Args:
        axis: where they are drawn.
        drawn: the look of each recipe.
    """
    means, millions = published.table_1("DSC").mean(), published.millions()
    points = []
    for method in TABLE_1:
        look = drawn[method.recipes[0]]
        parameters, dsc = 1e6 * millions[method.title], means[method.title]
        axis.scatter(parameters, dsc, marker=look.marker, color=look.colour, **DOT)
        points.append((parameters, dsc, method.title.partition(" (")[0]))
    headline.draw_front(axis, [(parameters, dsc) for parameters, dsc, _ in points])
    axis.set(xscale="log", title="published: mean of eight sets", xlabel="trainable parameters",
             ylabel="DSC (%)")
    style.few_ticks(axis)
    axis.margins(x=0.18, y=0.15)
    return points
