"""How figures look: one typography, a colour-blind-safe palette, and what charts share."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from featherseg.core.glyphs import NOTE, drawable, families, is_drawable
from featherseg.core.markup import elided, html_text, markdown_text

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML, Image, Markdown
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator
    from matplotlib.transforms import Bbox

# Okabe and Ito's palette
SERIES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))  # of lines that are not methods
SHARP = 192  # dots per inch of a drawing on a screen with two dots per pixel
TICK_LABEL = 0.62  # inches that a label such as 500 k takes along an axis
# inches of a legend's entry: its mark with gaps, each of its letters, and its height
LEGEND_MARK, LEGEND_LETTER, LEGEND_ROW = 0.65, 0.078, 0.19
DOT_REACH = 5  # points from the middle of a dot to its rim
# where a label may stand, by its offset in points from its dot; the first that fits is taken
PLACES: dict[tuple[float, float], dict[str, Any]] = {
    (7, 0): {"ha": "left", "va": "center"},
    (-7, 0): {"ha": "right", "va": "center"},
    (0, 7): {"ha": "center", "va": "bottom"},
    (0, -7): {"ha": "center", "va": "top"},
    (5, 5): {"ha": "left", "va": "bottom"},
    (5, -5): {"ha": "left", "va": "top"},
    (-5, 5): {"ha": "right", "va": "bottom"},
    (-5, -5): {"ha": "right", "va": "top"},
}
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


def panels(
    count: int, width: float = 4.2, height: float = 3.4, columns: int = 4, **shared: Any
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


def legend(figure: "Figure", axes: "Sequence[Axes]", columns: int = 6, order: Iterable[str] = ()) -> None:
    """One legend below the panels, for which the figure grows; each label once, those of `order` first."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries[label] = handle
    if entries:
        first = [label for label in dict.fromkeys(order) if label in entries]
        labels = list(dict.fromkeys([*first, *entries]))
        handles = [entries[label] for label in labels]
        longest = max(len(elided(label)) for label in labels)
        room = int(figure.get_figwidth() / (LEGEND_MARK + LEGEND_LETTER * longest))
        columns = max(1, min(len(labels), columns, room))
        rows = -(-len(labels) // columns)
        figure.set_figheight(figure.get_figheight() + LEGEND_ROW * rows)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def few_ticks(axis: "Axes") -> None:
    """As many ticks as have room, with prefixes (100 k, 2 M), on a linear or logarithmic horizontal axis."""
    from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

    log = axis.get_xscale() == "log"
    axis.xaxis.set_major_locator(_log_locator()() if log else MaxNLocator(4))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())


@cache
def _log_locator() -> "type[LogLocator]":
    """Ticks of a logarithmic axis at 1, 2 and 5, at 1 and 3, or at powers of ten, as labels have room."""
    from matplotlib.ticker import LogLocator

    class RoomyLog(LogLocator):
        def tick_values(self, vmin: float, vmax: float) -> Any:
            axes: Any = cast("Axis", self.axis).axes
            room = max(2, int(axes.bbox.width / axes.figure.dpi / TICK_LABEL))
            decades = np.log10(vmax / vmin)
            chosen = next((subs for subs in ((1, 2, 5), (1, 3)) if len(subs) * decades <= room), (1,))
            self.set_params(subs=chosen, numticks=room)
            return super().tick_values(vmin, vmax)

    return RoomyLog


def label_points(axis: "Axes", points: Sequence[tuple[float, float, str]]) -> None:
    """Write names beside points where there is room: over no other name, no point, no line and not beyond the frame. A
    legend has the others.

    Args:
        axis: where points and lines are drawn; its limits and its figure's other texts are final.
        points: x, y and name of each.
    """
    from matplotlib.transforms import Bbox

    figure = cast("Figure", axis.figure)
    figure.draw_without_rendering()  # decides where the axis is
    reach = DOT_REACH * figure.dpi / 72
    taken = [box for line in axis.lines for box in _segments(line)]
    for x, y, _ in points:
        column, row = axis.transData.transform((x, y))
        taken.append(Bbox.from_extents(column - reach, row - reach, column + reach, row + reach))
    frame = axis.bbox.padded(-reach)
    for x, y, name in points:
        for offset, place in PLACES.items():
            label = axis.annotate(name, (x, y), xytext=offset, textcoords="offset points", fontsize=8, **place)
            label.set_in_layout(False)
            box = label.get_window_extent()
            inside = frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)
            if inside and not box.count_overlaps(taken):
                taken.append(box)
                break
            label.remove()


def _segments(line: "Line2D") -> "list[Bbox]":
    """The box around each segment of a line, in pixels."""
    from matplotlib.transforms import Bbox

    places = np.asarray(line.get_transform().transform_path(line.get_path()).vertices)
    return [Bbox(places[first : first + 2]) for first in range(len(places) - 1)]


def short_names(titles: Iterable[str]) -> dict[str, str]:
    """Titles of methods as labels: without a beginning, such as `DINO-CLIPSeg, `, that several have in common, where
    they still differ."""
    titles = list(dict.fromkeys(titles))
    beginnings = Counter(title.partition(", ")[0] for title in titles if ", " in title)
    short = {}
    for title in titles:
        beginning, _, rest = title.partition(", ")
        short[title] = rest if beginnings[beginning] > 1 and rest else title
    counts = Counter(short.values())
    return {title: name if counts[name] == 1 else title for title, name in short.items()}


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


def folded(summary: str, text: str) -> "HTML":
    """A text that a reader opens by its summary."""
    from IPython.display import HTML

    return HTML(f"<details><summary>{html_text(summary)}</summary>\n<p>{html_text(text)}</p></details>")


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


def embedded(figure: "Figure") -> str:
    """A drawing as the address of a picture that is inside its page, sharp on any screen."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=SHARP)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
