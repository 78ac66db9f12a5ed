"""How figures look: one typography, a colour-blind-safe palette, and what charts share."""

import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from featherseg.core.glyphs import NOTE, drawable, families, is_drawable
from featherseg.core.markup import elided, markdown_text

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Image, Markdown
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure

# Okabe and Ito's palette
SERIES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))  # of lines that are not methods
DOT: dict[str, Any] = {"s": 60, "zorder": 3, "edgecolor": "white", "linewidth": 0.7}  # of a scatter plot
RC = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 96,
    "savefig.dpi": 96,
    "text.parse_math": False,  # a prompt or a title may hold dollars
}


def colour(adapter: str, variant: str = "") -> str:
    """The colour of a method, which its own file declares.

    Args:
        adapter: the method's name.
        variant: its positions or its direction, where it has such.
    """
    from featherseg.adapters import METHODS

    return METHODS[adapter].colours.get(variant, "#000000") if adapter in METHODS else "#000000"


def marker(adapter: str) -> str:
    """The marker of a method, which its own file declares."""
    from featherseg.adapters import METHODS

    return METHODS[adapter].marker if adapter in METHODS else "."


def panels(
    count: int, width: float = 4.2, height: float = 3.4, columns: int = 3, **shared: Any
) -> tuple["Figure", list["Axes"]]:
    """A figure of `count` panels in rows of at most `columns`, each of the given size in inches."""
    import matplotlib

    # titles and legends read the settings when they are drawn, so a context around this would not reach them
    settings: Any = RC | {"font.family": families()}
    matplotlib.rcParams.update(settings)
    columns = min(columns, max(count, 1))
    rows = -(-max(count, 1) // columns)
    figure = _figure_class()(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


@cache
def _figure_class() -> "type[Figure]":
    """A figure that writes letters without a font as code points, with a note below, in every text and tick label, and
    cuts labels that would leave no room for what is drawn."""
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import Formatter, FuncFormatter

    class DrawableLabels(Formatter):
        def __init__(self, labels: Formatter) -> None:
            self._labels = labels

        def set_locs(self, locs: list[float]) -> None:
            self._labels.set_locs(locs)

        def __call__(self, value: float, pos: int | None = None) -> str:
            return elided(drawable(self._labels(value, pos)))

    class LetteredFigure(Figure):
        def draw(self, renderer: "RendererBase") -> None:
            texts = self.findobj(Text)
            if not all(is_drawable(line) for text in texts for line in text.get_text().split("\n")):
                self.supxlabel(NOTE, fontsize=8, color="#666666")
            for text in texts:
                text.set_text("\n".join(map(drawable, text.get_text().split("\n"))))
            for text in (text for legend in self.legends for text in legend.get_texts()):
                text.set_text(elided(text.get_text()))
            for axis in (axis for axes in self.axes for axis in (axes.xaxis, axes.yaxis)):
                if isinstance(axis.get_major_formatter(), (FuncFormatter, StrCategoryFormatter)):
                    axis.set_major_formatter(DrawableLabels(axis.get_major_formatter()))
            super().draw(renderer)

    return LetteredFigure


def panel_title(rows: "pd.DataFrame") -> str:
    """The dataset of some rows of one dataset, with its origin."""
    first = rows.iloc[0]
    return f"{first.dataset} ({first.data})"


def legend(figure: "Figure", axes: "Sequence[Axes]", columns: int = 6) -> None:
    """One legend below the panels, each label once."""
    entries = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries[label] = handle
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(len(entries), columns))


def few_ticks(axis: "Axes") -> None:
    """Few ticks, with prefixes (100 k, 2 M), on a linear or logarithmic horizontal axis."""
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    log = axis.get_xscale() == "log"
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12) if log else MaxNLocator(4))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())


def heat(axis: "Axes", grid: "pd.DataFrame", low: float | None = None, high: float | None = None,
         framed: Sequence[tuple[int, int]] = ()) -> None:
    """A grid of numbers as colours from `low` to `high` (its smallest and largest number where None), each number in
    its cell; empty cells stay white, and those in `framed` (row, column) get a frame."""
    from matplotlib.patches import Rectangle

    values = grid.to_numpy(float)
    picture = axis.imshow(values, cmap="viridis", vmin=low, vmax=high, aspect="auto")
    for row, column in np.argwhere(np.isfinite(values)):
        shade: Any = picture.norm(values[row, column])
        axis.text(column, row, f"{values[row, column]:.1f}", ha="center", va="center", fontsize=8.5,
                  color="white" if shade < 0.6 else "black")
    for row, column in framed:
        axis.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor="#D55E00", linewidth=2))
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right"} if any(len(name) > 3 for name in grid.columns) else {}
    axis.set_xticks(range(grid.shape[1]), grid.columns, **slanted)
    axis.set_yticks(range(grid.shape[0]), grid.index)
    axis.grid(visible=False)


def note(text: str) -> "Markdown":
    """A sentence in place of a figure, which says why there is nothing to draw."""
    from IPython.display import Markdown

    return Markdown(text)


def heading(text: str) -> "Markdown":
    """A heading above the tables and figures of one dataset or method."""
    from IPython.display import Markdown

    return Markdown(f"### {markdown_text(text)}")


def for_notebooks() -> None:
    """Make a notebook draw figures at twice the resolution, so that they are sharp on any screen."""
    from IPython import get_ipython

    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


def picture(figure: "Figure", dpi: int = 120) -> "Image":
    """A figure of photographs as a JPEG, so that a report with many of them stays small."""
    from IPython.display import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=dpi, pil_kwargs={"quality": 82})
    return Image(buffer.getvalue(), format="jpeg", width=int(figure.get_figwidth() * 96))
