"""A run's stored predictions, drawn over their images."""

import textwrap
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

from featherseg.core.glyphs import drawable
from featherseg.data.prepared import PreparedDataset, Sample
from featherseg.reporting.study import Study

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

TRUTH, PREDICTION = "#FFD23F", "#00C2FF"
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


def draw_outlines(axis: "Axes", image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
    """An image with both outlines, reduced to `SIDE` pixels."""
    step = max(1, -(-max(image.shape[:2]) // SIDE))
    image = image[::step, ::step]
    height, width = image.shape[:2]
    axis.imshow(image, interpolation="antialiased")
    for mask, colour, line in ((truth, TRUTH, "solid"), (prediction, PREDICTION, "dashed")):
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
