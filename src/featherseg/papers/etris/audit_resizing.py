"""Evidence, computed on the spot, for how released code brings pictures to a model's input, masks to its head's grid,
and probabilities back: which pixel stands where, and what that changes.

As in `audit.py`, each verdict is read off its measurement.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from featherseg.data.transforms import Letterbox, Resize, Squash, Warp
from featherseg.models.base import SegmentationModel
from featherseg.models.knobs import WayBack
from featherseg.papers.etris.audit_training import tiny_resnet
from featherseg.reporting import tables
from featherseg.reporting.audit import shown
from featherseg.tasks.segmentation.config import LossConfig, Shrinking
from featherseg.tasks.segmentation.objective import shrunk

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

INPUT, GRID = 416, 104  # of ETRIS and CRIS, in pixels
PAIRS: dict[str, tuple[Shrinking, str]] = {
    "here": ("nearest_exact", "bilinear"), "released": ("published_nearest", "bicubic"),
    "half of it: the released way back only": ("nearest_exact", "bicubic"),
    "half of it: the released targets only": ("published_nearest", "bilinear")}
PICTURE = (427, 640)
BLACK = (0, 0, 0)


def there_and_back() -> list:
    """Targets, pictures, the way back and masks in JPEG, for a notebook, each with a heading, prose, a table and a
    verdict."""
    pairs, pictures, ways, levels = grid_pairs(), warps(), ways_back(), mask_levels()
    return [
        *shown("Targets and logits: one pixel of each cell, corner on corner",
               "ETRIS, CRIS and DETRIS learn pixel 4 i of the input's mask in cell i of their head's grid, and bring "
               "cells back with the corner pixels aligned; here a cell learns the pixel at its centre, and comes back "
               "there. What lies in each column of the input is sent to the grid and back, by the package's own "
               "functions at full size (416 pixels, 104 cells).", tables.show(pairs), pairs_verdict(pairs)),
        *shown("Pictures: fractions of a pixel, without antialiasing",
               "The released letterbox is an affine map of pixels' places by splines. A picture of 640 x 427 pixels "
               "by each way: how much of stripes one pixel wide is left (with antialiasing they turn grey), how far a "
               "disc lies off its place, and how much of its mask turns grey.",
               tables.show(pictures), warps_verdict(pictures)),
        *shown("The way back to the picture's size",
               "Released code of referring segmentation brings probabilities back by splines, that of the medical "
               "repositories cuts masks at the input's size and takes the nearest pixel; here logits come back. One "
               "disc on the head's grid of a small model by each way.", tables.show(ways), ways_verdict(ways)),
        *shown("Masks in JPEG files",
               "Kvasir-SEG's and BKAI's masks are JPEG files. The released metrics count every grey above 0 as "
               "target; here 128 and above is. Discs, saved as JPEG and read again.",
               tables.show(levels), levels_verdict(levels))]


def grid_pairs() -> "pd.DataFrame":
    """Where the released pair of shrinking and enlarging takes a column of the input, beside ours and the mixed pairs.

    Returns:
        pair, targets (the loss's `shrink`), way back, and by how many pixels content is moved to the right at the
        first column, in the middle and at the last column.
    """
    import numpy as np
    import pandas as pd

    model, lines = tiny_resnet(), []
    model.image_size = INPUT
    columns = torch.arange(INPUT, dtype=torch.float32).expand(1, 1, INPUT, INPUT)
    for pair, (shrink, mode) in PAIRS.items():
        cells = shrunk(columns, (GRID, GRID), LossConfig(grid="head", shrink=shrink))
        back = model.at_input(cells, mode)[0, 0, 0]
        # away from the border, where splines have all their neighbours, and without their ripple
        inner = np.arange(INPUT)[2 * INPUT // GRID : -2 * INPUT // GRID]
        slope, first = np.polyfit(inner, inner - back.numpy()[inner], 1)
        line = {"pair": pair, "targets": shrink, "way back": mode}
        lines.append(line | {where: first + slope * column for where, column in (
            ("first column", 0), ("middle", (INPUT - 1) / 2), ("last column", INPUT - 1))})
    return pd.DataFrame(lines)


def pairs_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per pair: how far content is moved at each end."""
    facts = [f"{row['pair']}: {row['first column']:+.1f} pixels in the first column and {row['last column']:+.1f} in "
             "the last" for row in frame.to_dict("records")]
    released = frame.set_index("pair").loc["released"]
    fits = "fit each other" if abs(released["first column"]) < 0.1 else "do NOT fit each other"
    return (f"{'; '.join(facts)}. The released two {fits} at the top left and are "
            f"{abs(released['last column']):.1f} pixels apart at the bottom right; the `-published` recipes set both.")


def warps() -> "pd.DataFrame":
    """What each way to the input does to fine stripes, to a disc's place and to its mask.

    Returns:
        resize, contrast left (of stripes one pixel wide, in %), moved right and moved down (a disc, in pixels of the
        input), grey (pixels of the mask that are neither 0 nor full, in % of those that are not 0).
    """
    import numpy as np
    import pandas as pd

    stripes = np.zeros((*PICTURE, 3), np.uint8)
    stripes[:, ::2] = 255
    disc = _disc(PICTURE, (0.45, 0.55), 0.25)
    picture = np.repeat(disc[..., None], 3, axis=2).astype(np.uint8) * 255
    lines = []
    for resize in (Letterbox(INPUT, BLACK), Warp(INPUT, BLACK)):
        inside = resize.image(stripes)[INPUT // 2, 8:-8, 0].astype(float)
        mask = resize.mask(disc) / resize.full
        place, exact = _centroid(resize.image(picture)[..., 0]), _exact_place(_centroid(disc))
        lines.append({"resize": resize.key[0], "contrast left": 100 * np.ptp(inside) / 255,
                      "moved right": place[1] - exact[1], "moved down": place[0] - exact[0],
                      "grey": 100 * ((mask > 0) & (mask < 1)).sum() / (mask > 0).sum()})
    return pd.DataFrame(lines)


def warps_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per way: what it leaves of the stripes, and how far the disc is moved."""
    facts = [f"`{row['resize']}` leaves {row['contrast left']:.0f} % of the stripes' contrast, moves a disc by "
             f"{row['moved right']:+.2f} pixels to the right and {row['moved down']:+.2f} down, and turns "
             f"{row['grey']:.1f} % of its mask grey" for row in frame.to_dict("records")]
    return f"{'; '.join(facts)}."


def ways_back(thresholds: tuple[float, ...] = (0.35, 0.5), size: tuple[int, int] = (200, 150)) -> "pd.DataFrame":
    """One disc's logits on the head's grid, brought to a picture's size by each way.

    Returns:
        way back, resize, threshold, and how many pixels of the mask are decided otherwise than by the default way (in
        % of its area).
    """
    import pandas as pd

    lines = []
    for resize, kinds in ((Squash(64), ("bilinear", "published_nearest")), (Letterbox(64, BLACK), get_args(WayBack)),
                          (Warp(64, BLACK), ("published_cubic",))):
        model = tiny_resnet()
        maps = {kind: next(_brought_back(model, resize, kind, size)) for kind in ("bilinear", *kinds)}
        for kind in kinds:
            for threshold in thresholds:
                usual, other = (maps[way] > threshold for way in ("bilinear", kind))
                lines.append({"way back": kind, "resize": resize.key[0], "threshold": threshold,
                              "decided otherwise": 100 * (usual != other).sum() / usual.sum()})
    return pd.DataFrame(lines)


def ways_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per way: how many of a mask's pixels it decides otherwise."""
    worst = frame.groupby("way back")["decided otherwise"].max()
    facts = [f"`{way}` decides up to {share:.1f} % of a mask's pixels otherwise" for way, share in worst.items()
             if way != "bilinear"]
    return f"{'; '.join(facts)}; the default is compared with itself ({worst['bilinear']:.1f} %)."


def mask_levels(qualities: tuple[int, ...] = (75, 95), radii: tuple[float, ...] = (0.05, 0.1, 0.25)) -> "pd.DataFrame":
    """Discs as JPEG masks, read by the released rule and by ours.

    Returns:
        radius (by the shorter side), quality of the JPEG file, levels in the file, and of the masks above 0 and from
        128 on: area and DSC with the disc, in %.
    """
    import io

    import numpy as np
    import pandas as pd
    from PIL import Image

    from featherseg.tasks.segmentation.metrics import dice

    lines = []
    for radius in radii:
        truth = _disc((288, 384), (0.5, 0.5), radius)
        for quality in qualities:
            file = io.BytesIO()
            Image.fromarray(truth.astype(np.uint8) * 255).save(file, "JPEG", quality=quality)
            levels = np.asarray(Image.open(file))
            line = {"radius": radius, "quality": quality, "levels": len(np.unique(levels))}
            for rule, mask in (("above 0", levels > 0), ("from 128 on", levels >= 128)):
                line |= {f"area, {rule}": 100 * mask.sum() / truth.sum(), f"DSC, {rule}": 100 * dice(mask, truth)}
            lines.append(line)
    return pd.DataFrame(lines)


def levels_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: what each rule makes of a mask's area, and what that costs a perfect prediction."""
    return (f"Counted above 0, a mask grows to up to {frame['area, above 0'].max():.0f} % of its area, and a perfect "
            f"prediction scores as little as {frame['DSC, above 0'].min():.1f} % DSC; from 128 on at least "
            f"{frame['DSC, from 128 on'].min():.1f} %. `data.as_published` prepares a set by the released rule.")


def _brought_back(model: SegmentationModel, resize: Resize, way: WayBack,
                  size: tuple[int, int]) -> Iterator["np.ndarray"]:
    """The probability map, at a picture's size, of a disc on the grid of a model."""
    side = model.image_size // 4
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    distance = ((rows - side * 0.45) ** 2 + (columns - side * 0.5) ** 2).float().sqrt()
    model.resize, model.way_back = resize, way
    logits: Tensor = (side * 0.25 - distance)[None]
    return model.original_resolution(logits, [size])


def _disc(size: tuple[int, int], middle: tuple[float, float], radius: float) -> "np.ndarray":
    """A bool mask (H, W); the middle by height and width, the radius by the shorter side."""
    import numpy as np

    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return np.hypot(rows - middle[0] * size[0], columns - middle[1] * size[1]) < radius * min(size)


def _centroid(weights: "np.ndarray") -> tuple[float, float]:
    import numpy as np

    values = weights.astype(float)
    row, column = (float(np.average(np.arange(n), weights=values.sum(1 - axis))) for axis, n in enumerate(values.shape))
    return row, column


def _exact_place(place: tuple[float, float]) -> tuple[float, float]:
    """Where a place of the picture lies in the input when its area, and not its pixels' places, is scaled."""
    scale = INPUT / max(PICTURE)
    row, column = ((value + 0.5) * scale + (INPUT - side * scale) / 2 - 0.5
                   for value, side in zip(place, PICTURE, strict=True))
    return row, column
