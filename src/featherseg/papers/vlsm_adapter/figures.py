"""VLSM-Adapter's charts: accuracy against trainable parameters, by position and by width of the adapters."""

from typing import TYPE_CHECKING, Any

from featherseg.papers.vlsm_adapter import published
from featherseg.papers.vlsm_adapter.published import TABLE_1
from featherseg.papers.vlsm_adapter.table import SMALL_ADAPTERS
from featherseg.reporting import style
from featherseg.reporting.experiments import with_experiments
from featherseg.reporting.frames import first_split
from featherseg.reporting.study import Study
from featherseg.reporting.style import DOT, legend, panel_title
from featherseg.reporting.tables import own_dsc

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# by recipe: adapter and positions, which decide colour and marker
LOOKS = {"clipseg-decoder": ("decoder", ""), "clipseg-vlsm_shallow-vlc": ("vlsm_shallow", "VLC"),
         "clipseg-vlsm_dense-vl": ("vlsm_dense", "VL")}


def parameters_and_dsc(study: Study) -> "Figure":
    """Trainable parameters (log scale) against DSC in %: one panel for the paper, one for each dataset here."""
    frame = own_dsc(study.results)
    datasets = sorted(frame.dataset.unique())
    figure, axes = style.panels(1 + len(datasets), width=3.7, height=3.5)
    _published_panel(axes[0])
    for axis, dataset in zip(axes[1:], datasets, strict=True):
        _panel_here(axis, frame[frame.dataset == dataset])
    legend(figure, axes[1:])
    return figure


def position_bars(study: Study) -> "Figure | Markdown":
    """DSC in % of the dense and shallow adapters by position V, VL, VLC, one panel per dataset."""
    frame = own_dsc(study.results)
    frame = frame[frame.adapter.isin(SMALL_ADAPTERS) & ~frame.released]
    if frame.empty:
        return style.note("No dense or shallow adapter has been run in this study.")
    datasets = sorted(frame.dataset.unique())
    figure, axes = style.panels(len(datasets), width=4.6, height=3.2, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        rows = frame[frame.dataset == dataset].sort_values(["adapter", "positions"])
        names = [f"{row.title}\n(dim {row.dim:.0f})" for row in rows.itertuples()]
        bars = axis.bar(names, rows.dsc, width=0.65,
                        color=[style.colour(row.adapter, row.positions) for row in rows.itertuples()])
        axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
        axis.set(title=panel_title(rows), ylim=(0, 105))
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("DSC (%)")
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
        for _, line in rows.groupby("recipe"):
            line, first = line.sort_values("dim"), next(line.itertuples())
            axis.plot(line.dim, line.dsc, marker=style.marker(first.adapter), label=first.title,
                      color=style.colour(first.adapter, first.positions))
        axis.set(xscale="log", title=panel_title(rows), xlabel="adapter width (dim)")
        axis.set_xticks(dims, [str(dim) for dim in dims])
        axis.minorticks_off()
    axes[0].set_ylabel("DSC (%)")
    legend(figure, axes)
    return figure


def _panel_here(axis: "Axes", rows: "pd.DataFrame") -> None:
    """The methods of one dataset; what trains nothing is a line.

    Args:
        axis: where it is drawn.
        rows: of `tables.own_dsc`.
    """
    for row in rows.itertuples():
        look: dict[str, Any] = {"color": style.colour(row.adapter, row.positions), "label": row.title}
        if row.trainable_parameters:
            look["marker"] = style.marker(row.adapter)
            axis.scatter(row.trainable_parameters, row.dsc, **look, **DOT)
        else:
            axis.axhline(row.dsc, linestyle="--", linewidth=1.4, **look)
    axis.set(xscale="log", title=panel_title(rows), xlabel="trainable parameters")
    style.few_ticks(axis)
    axis.margins(x=0.12, y=0.15)


def _published_panel(axis: "Axes") -> None:
    """Table 1's means over eight sets, with the parameters that Table 1 prints."""
    means, millions = published.table_1("DSC").mean(), published.millions()
    for method in TABLE_1:
        adapter, positions = LOOKS.get(method.recipes[0], ("", ""))
        place = (1e6 * millions[method.title], means[method.title])
        axis.scatter(*place, marker=style.marker(adapter), color=style.colour(adapter, positions), **DOT)
        name, large = method.title.partition(" (")[0], millions[method.title] > 50
        axis.annotate(name, place, xytext=(-8 if large else 8, 0), textcoords="offset points", va="center",
                      ha="right" if large else "left", fontsize=8.5)
    axis.set(xscale="log", title="published: mean of eight sets", xlabel="trainable parameters",
             ylabel="DSC (%)")
    style.few_ticks(axis)
    axis.margins(x=0.18, y=0.15)
