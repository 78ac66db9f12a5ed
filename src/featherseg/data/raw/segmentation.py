"""COCO's ways to write a mask down: polygons and run lengths.

pycocotools fills them in. It trusts what it is given (run lengths that end early leave memory as it was, a point far
outside stops the process), so everything is checked before.
"""

from typing import Any

import numpy as np

from featherseg.core.errors import UserError

LONGEST = 60  # bits of a run length


def mask_of(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A mask, bool (height, width), of polygons (their union) or of run lengths, compressed or not.

    A polygon of fewer than three points encloses nothing and is ignored.

    Args:
        segmentation: list of polygons [x0, y0, x1, y1, ...], or {"size": [height, width], "counts": list or text}.

    Raises:
        UserError: what is wrong with it, as a clause about "its segmentation".
    """
    from pycocotools import mask

    if isinstance(segmentation, dict):
        runs = {"size": [height, width], "counts": _counts(segmentation, height, width)}
        return mask.decode(mask.frPyObjects(runs, height, width)).astype(bool)
    polygons = _polygons(segmentation, 2 * max(height, width))
    return mask.decode(mask.merge(mask.frPyObjects(polygons, height, width))).astype(bool)


def _polygons(segmentation: Any, reach: int) -> list[list[float]]:
    """The polygons of three points or more, none of them farther than `reach` from the image's corner."""
    if not isinstance(segmentation, list):
        raise UserError("its segmentation is neither polygons nor run lengths")
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) % 2 or not all(
                isinstance(value, int | float) and abs(value) <= reach for value in polygon):
            raise UserError("its segmentation has a polygon that is no list of x and y within the image")
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    if not polygons:
        raise UserError("its segmentation has no polygon")
    return polygons


def _counts(segmentation: dict[str, Any], height: int, width: int) -> list[int]:
    """The lengths of the runs of 0 and 1 in turn, down the columns."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise UserError(f"its segmentation is of size {size} but the image has {height} rows and {width} columns")
    counts = _uncompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise UserError("its segmentation has no run lengths")
    if sum(counts) != height * width:
        raise UserError(f"its segmentation has run lengths of {sum(counts)} pixels but the image has {height * width}")
    return counts


def _uncompressed(text: str) -> list[int]:
    """Run lengths of COCO's compressed text: signed numbers, five bits a letter (48 added), the lowest first, the
    sixth bit where more follow; from the fourth on the difference to the one two places before.

    Raises:
        UserError: a number is longer than any image's.
    """
    counts: list[int] = []
    number = shift = 0
    for letter in text:
        digit = ord(letter) - 48
        number |= (digit & 31) << shift
        shift += 5
        if shift > LONGEST:
            raise UserError("its segmentation has run lengths that no image has")
        if not digit & 32:
            number -= (1 << shift) if digit & 16 else 0
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = shift = 0
    return counts
