"""DSC, IoU and HD95 of one binary mask against another, with the rules for empty masks.

Beside them stand the pixels of intersection and union, which overall measures are made of (`referring.py`).

The rules are this project's own, since the papers state none and libraries differ: two empty masks agree
(DSC = IoU = 1, HD95 = 0); where only one of them is empty DSC = IoU = 0 and HD95 is the image's diagonal.
Whoever averages these values counts the empty masks beside the mean.
"""

import numpy as np

from featherseg.tasks.base import SHARE
from featherseg.tasks.segmentation.task import DSC, HD95, IOU, MILLIMETRE, PIXEL

__all__ = ["AVERAGED", "EMPTY_RULE", "MILLIMETRE", "PIXEL", "PIXELS", "SHARE", "dice", "hd95", "iou", "overlap",
           "score", "surface"]

AVERAGED = (DSC, IOU, HD95)
Spacing = tuple[float, float]
PIXELS: Spacing = (1.0, 1.0)
EMPTY_RULE = "both masks empty: DSC = IoU = 1, HD95 = 0; one empty: DSC = IoU = 0, HD95 = image diagonal"


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice similarity coefficient 2 |P and T| / (|P| + |T|) of two bool masks (H, W), in [0, 1]."""
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(prediction & truth) / total if total else 1.0


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union |P and T| / |P or T| of two bool masks (H, W), in [0, 1]."""
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing = PIXELS) -> float:
    """95th-percentile Hausdorff distance of two bool masks (H, W), in the unit of `spacing`, pixels by default.

    For each surface pixel of one mask the Euclidean distance to the nearest surface pixel of the other; the
    95th percentile of these distances, in both directions; the larger of the two. This is MONAI's
    `HausdorffDistanceMetric(percentile=95)` for masks that are not empty.

    Args:
        spacing: height and width of a pixel.
    """
    predicted, true = surface(prediction) * spacing, surface(truth) * spacing
    if not len(predicted) and not len(true):
        return 0.0
    if not len(predicted) or not len(true):
        return float(np.hypot(*np.multiply(truth.shape, spacing)))
    return max(_directed_hd95(predicted, true), _directed_hd95(true, predicted))


def surface(mask: np.ndarray) -> np.ndarray:
    """Surface pixels of a bool mask (H, W) as (row, column) floats (N, 2).

    A pixel lies on the surface if one of its four neighbours is background. Outside of the image is
    background, so a mask cut by the border has a surface along it, as in MONAI.
    """
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inside).astype(np.float64)


def _directed_hd95(points: np.ndarray, reference: np.ndarray) -> float:
    """95th percentile of the distances of `points` (N, 2) to the nearest of `reference` (M, 2)."""
    from scipy.spatial import KDTree  # slow to import

    distances, _ = KDTree(reference, leafsize=32).query(points)
    return float(np.percentile(distances, 95))


def score(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing = PIXELS) -> dict[str, float]:
    """DSC, HD95 in the unit of `spacing`, and `overlap` of one predicted mask against the true one, both bool (H, W).

    Raises:
        ValueError: the two masks differ in size.
    """
    overlaps = overlap(prediction, truth)
    return {"dsc": dice(prediction, truth), "hd95": hd95(prediction, truth, spacing)} | overlaps


def overlap(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """`iou`, and the pixels of `intersection` and `union`, of two bool masks (H, W).

    Raises:
        ValueError: the two masks differ in size.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the truth {truth.shape}")
    return {"iou": iou(prediction, truth), "intersection": float(np.count_nonzero(prediction & truth)),
            "union": float(np.count_nonzero(prediction | truth))}
