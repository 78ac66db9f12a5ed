"""The measures of referring image segmentation, all of them, each under its own name.

One number called "IoU" is mean or overall, at threshold 0.35 or 0.5, over the first sentence of each target or
over all of them, and the papers of the field differ in each. So nothing is chosen here: for every split the mean
IoU, the overall IoU and the precisions are computed at both thresholds and over both sets of sentences.

Empty masks follow `metrics.EMPTY_RULE`: an expression whose mask and prediction are both empty has IoU 1 and
counts as found; it adds nothing to the overall IoU's sums, which is 1 where all of them are empty. Whoever reads
a mean finds the numbers of empty masks beside it. (The released code of ETRIS and CRIS counts such an expression
as IoU 0; the referring sets hold none.)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from featherseg.tasks.base import Score
from featherseg.tasks.segmentation.task import MIOU, OIOU, PRECISIONS

THRESHOLDS = (0.35, 0.5)
MEASURES = (MIOU, OIOU, *(f"P@{least}" for least in PRECISIONS))
FIRST, ALL = "first", "all"
RULE = ("mIoU: mean of the expressions' IoU; oIoU: sum of intersections / sum of unions; P@x: share of "
        "expressions with IoU above x; mask and prediction both empty: IoU 1")


def measures(iou: Iterable[float], intersection: Iterable[float], union: Iterable[float]) -> dict[str, float]:
    """All of `MEASURES` of some expressions.

    Args:
        iou: of each expression, in [0, 1].
        intersection, union: of each expression, in pixels.

    Returns:
        mIoU; oIoU, the overall IoU of Hu et al. (2016); P@0.5 to P@0.9: the share of
        expressions whose IoU is above that, strictly, as in the released code of CRIS and ETRIS.

    Raises:
        ValueError: there is no expression.
    """
    iou = list(iou)
    if not iou:
        raise ValueError("there is no expression to measure")
    covered, joined = sum(intersection), sum(union)
    measured = {MIOU: sum(iou) / len(iou), OIOU: covered / joined if joined else 1.0}
    for least in PRECISIONS:
        measured[f"P@{least}"] = sum(value > least for value in iou) / len(iou)
    return measured


def scores(score: Callable[..., Score], row: Mapping[str, Any]) -> Iterator[Score]:
    """What one expression adds to `MEASURES`, and to the empty masks beside them.

    Args:
        score: makes a `Score` of a metric, a value and a weight.
        row: `iou`, `intersection`, `union`, `empty_truth` and `empty_prediction` of the expression.
    """
    yield score(MIOU, row["iou"])
    yield score(OIOU, row["intersection"], weight=row["union"])
    for least in PRECISIONS:
        yield score(f"P@{least}", float(row["iou"] > least))
    for name in ("empty_truth", "empty_prediction"):
        yield score(f"n_{name}", float(row[name]))
