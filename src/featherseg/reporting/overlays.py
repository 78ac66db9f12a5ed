"""A run's stored predictions, drawn over their images."""

import textwrap
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from featherseg.core.glyphs import drawable
from featherseg.core.markup import elided
from featherseg.data.prepared import PreparedDataset, Sample
from featherseg.reporting import style
from featherseg.reporting.study import Study

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUTH, PREDICTION = "#FFD23F", "#00C2FF"
COLUMN, ROW = 1.85, 2.15  # inches of a picture in a grid
MOST_COLUMNS = 8  # methods side by side
SIDE = 360  # pixels to which the longer side of a picture is reduced


def extremes(scores: "pd.Series") -> dict[str, str]:
    """The samples with the best, the median (the lower one of two) and the worst score, by rank. Two
    samples have no median, and a single one is the `only sample`.

    Args:
        scores: DSC by sample id; equal scores are ordered by id.
    """
    ordered = scores.sort_index().sort_values(kind="stable").index
    if len(ordered) == 1:
        return {"only sample": ordered[0]}
    chosen = {"best": ordered[-1], "median": ordered[(len(ordered) - 1) // 2], "worst": ordered[0]}
    return chosen if len(ordered) > 2 else {"best": ordered[-1], "worst": ordered[0]}


def predictions(study: Study, run: str) -> "pd.DataFrame":
    """Stored predictions of a run's first split with the own prompt (the first sentence), and their DSC, by sample."""
    import pandas as pd

    split = study.results[study.results.run == run].split.iloc[0]
    folder, own = study.evaluate(run), [("text_condition", "=", "own"), ("split", "=", split), ("sentence", "=", 0)]
    return pd.read_parquet(folder / "predictions.parquet", filters=own).set_index("sample_id")


def grid(data: PreparedDataset, by_method: "Mapping[str, pd.DataFrame]", names: Mapping[str, str]) -> "list[Figure]":
    """The same images for all methods: one column per method, one row each for the best, the median and the worst image
    by the mean of the methods' DSC. First comes the image with its truth and its prompt.

    An empty mask where there is nothing is neither best nor worst, unless there is nothing else.

    Args:
        data: the dataset.
        by_method: `predictions` of a run of each method.
        names: how each method is called.

    Returns:
        A figure for at most `MOST_COLUMNS` methods each.
    """
    chosen, means = _chosen(by_method)
    samples = {sample.sample_id: sample for sample in data.samples}
    figures = []
    for start in range(0, len(by_method), MOST_COLUMNS):
        methods = list(by_method)[start:start + MOST_COLUMNS]
        columns = 1 + len(methods)
        figure, axes = style.panels(columns * len(chosen), width=COLUMN, height=ROW, columns=columns)
        figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.04)
        for place, (rank, sample_id) in enumerate(chosen.items()):
            row, sample = axes[place * columns:(place + 1) * columns], samples[sample_id]
            shown = [by_method[method].loc[sample_id] for method in methods]
            draw_outlines(row[0], data.image(sample), data.mask(sample))
            row[0].set_title(f"{rank}: {100 * means[sample_id]:.0f} %", fontsize=8.5, loc="left", fontweight="bold")
            row[0].set_xlabel(caption(shown[0].prompt, 26), fontsize=7, loc="left")
            for axis, prediction in zip(row[1:], shown, strict=True):
                draw_outlines(axis, data.image(sample), data.mask(sample), _decode(prediction))
                axis.set_title(_scored(prediction), fontsize=8.5, loc="left")
                if prediction.prompt != shown[0].prompt:
                    axis.set_xlabel(caption(prediction.prompt, 26), fontsize=7, loc="left")
        for axis, method in zip(axes[1:columns], methods, strict=True):
            axis.set_title(f"{_heading(names[method])}\n{axis.get_title(loc='left')}", fontsize=8.5, loc="left")
        figures.append(figure)
    return figures


def _chosen(by_method: "Mapping[str, pd.DataFrame]") -> "tuple[dict[str, str], pd.Series]":
    """The samples of `extremes` by the mean of the methods' DSC, and these means by sample."""
    import pandas as pd

    dsc = pd.DataFrame({method: stored.dsc for method, stored in by_method.items()}).dropna()
    of_something = pd.Series(False, dsc.index)
    for stored in by_method.values():
        of_something |= ~(stored.empty_truth & stored.empty_prediction).reindex(dsc.index).astype(bool)
    means = dsc.mean(axis=1)
    return extremes(means[of_something] if of_something.any() else means), means


def _heading(method: str) -> str:
    """A method's name on at most two lines above a column."""
    return "\n".join(textwrap.wrap(elided(method), 20))


def draw_prediction(axis: "Axes", data: PreparedDataset, sample: Sample, prediction: "pd.Series", heading: str,
                    width: int = 42) -> None:
    """An image with the outlines of its truth and of a prediction, its DSC above and its prompt below.

    Args:
        axis: where it is drawn.
        data: the dataset of the sample.
        sample: what was segmented.
        prediction: a row of `predictions`.
        heading: text before the DSC.
        width: letters in a line of the prompt.
    """
    draw_outlines(axis, data.image(sample), data.mask(sample), _decode(prediction))
    axis.set_title(f"{heading}{_scored(prediction)}", fontsize=8.5, loc="left")
    axis.set_xlabel(caption(prediction.prompt, width), fontsize=8, loc="left")


def _scored(prediction: "pd.Series") -> str:
    """The DSC of a prediction, or why it has no outline."""
    if prediction.empty_prediction:
        return "both masks empty" if prediction.empty_truth else "empty mask, DSC 0 %"
    return f"DSC {100 * prediction.dsc:.1f} %"


def _decode(prediction: "pd.Series") -> np.ndarray:
    """The mask, bool (height, width), of a row of predictions: COCO's compressed run lengths."""
    from pycocotools import mask

    size = [int(prediction.height), int(prediction.width)]
    return mask.decode({"size": size, "counts": prediction.rle}).astype(bool)


def draw_outlines(axis: "Axes", image: np.ndarray, truth: np.ndarray, prediction: np.ndarray | None = None) -> None:
    """An image with the outlines of its truth and of a prediction, where there is one, reduced to `SIDE` pixels."""
    step = max(1, -(-max(image.shape[:2]) // SIDE))
    image = image[::step, ::step]
    height, width = image.shape[:2]
    axis.imshow(image, interpolation="antialiased")
    outlines = [(truth, TRUTH, "solid")]
    if prediction is not None:
        outlines.append((prediction, PREDICTION, "dashed"))
    for mask, colour, line in outlines:
        # a rim of background, so that a mask cut by the border is outlined along it
        padded = np.pad(mask[::step, ::step], 1)
        place: dict[str, Any] = {"levels": [0.5], "extent": (-1, width, -1, height)}
        if padded.any():
            axis.contour(padded, colors="black", linewidths=2.6, **place)
            axis.contour(padded, colors=colour, linewidths=1.5, linestyles=line, **place)
    axis.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axis.grid(False)
    axis.spines[:].set_visible(False)


def caption(prompt: str, width: int = 42) -> str:
    """A prompt in quotes on at most four lines; a longer one is cut in its middle, since prompts that begin alike
    differ at their ends.

    Args:
        prompt: the prompt.
        width: of a line, in letters of usual width.
    """
    text = drawable(f"“{prompt}”")
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    lines = textwrap.wrap(text, width if 2 * wide < len(text) else width // 2)
    return "\n".join(lines if len(lines) <= 4 else [*lines[:2], f"… {lines[-2]}", lines[-1]])
