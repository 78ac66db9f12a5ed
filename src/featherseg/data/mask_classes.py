"""What kinds of pixels a mask file holds: background and one target, or several classes in one file.

A lossless file with a few colours is counted exactly. In any other file only plateaus count: colours of even patches
that stand out from the colours near them, so that neither the noise of JPEG nor soft edges nor probabilities are
taken for classes.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

_FEW = 8  # distinct colours up to which a lossless file is counted exactly
_FEWEST_PIXELS = 16
_LEAST_SHARE = 0.001
_GREY = 24  # difference between the channels of a colour without hue, after JPEG
_STANDS_OUT = 2  # the crest of a smooth ridge has at most 1.7 times as many pixels as the slopes beside it
_LOOKED_AT = 1 << 22  # pixels; of a larger mask every second row and column, or every third
_FULL_SCALES = (1, 100, 255, 65535)
_MOST_RATERS = 10
_RIM = 0.1
# in JPEG at quality 30 to 95 at most 1 file in 250 of lines of one colour has more than _THIN of its vivid pixels
# in another hue, and at least 98 in 100 of thin lines of two colours have
_VIVID, _THIN = 45, 0.05
_ONE_HUE = 40  # degrees
_AROUND = np.ones((3, 3), bool)
_STRONG = 0.4  # of the strongest channel; hues are often mixed of a third, a half and whole channels, which JPEG varies
_HUES = {(True, False, False): "red", (False, True, False): "green", (False, False, True): "blue",
         (True, True, False): "yellow", (True, False, True): "magenta", (False, True, True): "cyan",
         (True, True, True): "pale"}


@dataclass(frozen=True)
class Kind:
    """One kind of pixel in a mask file.

    Attributes:
        colour: red, green and blue, 0 to 255 each.
        level: the grey level as it is stored, or the strongest channel.
        share: of the file's pixels.
    """

    colour: tuple[int, int, int]
    level: float
    share: float

    @property
    def is_grey(self) -> bool:
        """Whether the colour has no hue, as far as JPEG keeps it."""
        return max(self.colour) - min(self.colour) <= _GREY

    @property
    def hue(self) -> str:
        """A word for the colour that the noise of JPEG does not change."""
        if self.is_grey:
            return "grey"
        red, green, blue = (channel > _STRONG * max(self.colour) for channel in self.colour)
        return _HUES[red, green, blue]

    @property
    def code(self) -> str:
        """The colour as #rrggbb."""
        return f"#{bytes(self.colour).hex()}"

    @property
    def label(self) -> str:
        """The grey level, or the colour where it has a hue."""
        return f"{self.level:g}" if self.is_grey else self.code


@dataclass(frozen=True)
class _Tolerance:
    """Differences of 8-bit channels.

    Attributes:
        even: within a patch of 3x3 pixels that counts as even.
        near, around: up to which a colour is the same, and up to which it is near it.
    """

    even: int
    near: int
    around: int


# tried on 400 JPEG files of real masks at quality 30 and 75, and on two classes in JPEG at quality 50 to 95
_OF_NOISE, _OF_SOFT_LEVELS = _Tolerance(36, 32, 48), _Tolerance(20, 24, 48)


def kinds_of(image: Image.Image, levels: np.ndarray, lossy: bool, may_be_soft: bool) -> list[Kind]:
    """The kinds of pixels of a mask, the darkest first.

    Args:
        levels: its grey levels as stored, or its strongest channel: (H, W).
        lossy: whether the file's format changes pixels.
        may_be_soft: whether grey levels may be probabilities.
    """
    step = max(1, math.ceil(math.sqrt(levels.size / _LOOKED_AT)))
    levels, colours = levels[::step, ::step], _colours(image, levels)[::step, ::step]
    codes = np.ascontiguousarray(colours).view("<u4")[..., 0]
    if not lossy:
        exact = _exact(codes, levels)
        if exact is not None:
            return exact
    grey = np.ptp(colours[..., :3], axis=2).max() <= _GREY
    plateaus = _plateaus(colours, codes, levels, may_be_soft and grey)
    return _sorted([*plateaus, *_thin(colours, levels, plateaus)]) if lossy and not grey else plateaus


def are_raters(levels: np.ndarray, kinds: list[Kind]) -> bool:
    """Whether grey levels can be the shares of several raters who marked a pixel, and so no classes.

    Such levels are even steps of full scale, and each occurs as a rim between a lower and a higher level: raters differ
    at the edges of what some of them agree on. Apart from such rims one of them may have marked what the others have
    not. Classes that lie inside or beside each other in even steps cannot be told from raters.
    """
    if not all(kind.is_grey for kind in kinds) or kinds[0].level != 0:
        return False
    steps = np.array([kind.level for kind in kinds])
    triples = zip(steps, steps[1:], steps[2:], strict=False)
    return _are_even(steps) and all(_is_rim(levels, *triple) for triple in triples)


def _are_even(levels: np.ndarray) -> bool:
    """Whether sorted levels are multiples of one step, two to ten of which make full scale."""
    full_scales = _FULL_SCALES if levels[-1] >= 1 else _FULL_SCALES[:1]  # fractions where no pixel has all raters
    for full, raters in itertools.product(full_scales, range(2, _MOST_RATERS + 1)):
        votes = levels / full * raters
        rounding = 1.01 / 255 if full > 100 else 0.0051
        whole = np.rint(votes)
        if votes[-1] <= raters * (1 + rounding) and whole[1] >= 1 and np.abs(votes - whole).max() <= raters * rounding:
            return True
    return False


def _is_rim(levels: np.ndarray, lower: float, level: float, higher: float) -> bool:
    """Whether at least a tenth of a level's pixels are in regions that border on lower and on higher levels, a tenth
    of the border each."""
    from scipy import ndimage  # slow to import

    regions, count = ndimage.label(np.isclose(levels, level, atol=higher / 100), _AROUND)
    beside = [ndimage.binary_dilation(part, _AROUND) for part in (
        levels < level - (level - lower) / 4, levels > level + (higher - level) / 4)]
    pixels, below, above, border = (np.bincount(regions[part], minlength=count + 1)[1:] for part in (
        np.ones_like(beside[0]), *beside, beside[0] | beside[1]))
    rims = np.minimum(below, above) >= _RIM * border
    return pixels[rims].sum() >= _RIM * pixels.sum()


def _colours(image: Image.Image, levels: np.ndarray) -> np.ndarray:
    """Red, green, blue and 255 of each pixel, uint8 (H, W, 4); of wide numbers the range becomes 0 to 255."""
    if image.mode == "F" or image.mode.startswith("I"):
        low, high = float(levels.min()), float(levels.max())
        image = Image.fromarray(np.rint((levels - low) * (255 / max(high - low, 1e-12))).astype(np.uint8))
    return np.asarray(image.convert("RGB").convert("RGBA"))


def _exact(codes: np.ndarray, levels: np.ndarray) -> list[Kind] | None:
    """Every colour of a file that has a few, None where it has more."""
    found, first, counts = np.unique(codes, return_index=True, return_counts=True)
    if len(found) > _FEW:
        return None
    return _sorted([Kind(_colour(code), float(levels.flat[place]), count / codes.size)
                    for code, place, count in zip(found, first, counts, strict=True) if count >= _FEWEST_PIXELS])


def _plateaus(colours: np.ndarray, codes: np.ndarray, levels: np.ndarray, soft: bool) -> list[Kind]:
    """The colours of even patches that stand out from the colours near them.

    Args:
        colours, codes: (H, W, 4) of 8 bits each, and the same as (H, W) of 32 bits.
        soft: whether slopes are parts of the mask, so that a plateau must stand out from them too.
    """
    tolerance = _OF_SOFT_LEVELS if soft else _OF_NOISE
    planes = [np.ascontiguousarray(colours[..., channel]) for channel in range(3)]
    if all(np.array_equal(planes[0], plane) for plane in planes[1:]):
        planes = planes[:1]  # grey: filtering takes most of the time
    even = np.logical_and.reduce([_spread(plane) <= tolerance.even for plane in planes])
    different, first, place, counts = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
    channels = different.view(np.uint8).reshape(-1, 4).astype(int)
    in_patches = np.bincount(place.reshape(-1), even.reshape(-1), len(different))
    rivals = counts if soft else in_patches
    kinds, left = [], in_patches.copy()
    while left.max() > 0:
        commonest = int(left.argmax())
        distance = np.abs(channels - channels[commonest]).max(axis=1)
        near = distance <= tolerance.near
        if left[near].sum() < _LEAST_SHARE * codes.size:
            break
        around = rivals[~near & (distance <= tolerance.around)].sum()
        if in_patches[near].sum() >= _STANDS_OUT * around:
            kinds.append(Kind(_colour(different[commonest]), float(levels.flat[first[commonest]]),
                              counts[near].sum() / codes.size))
        left[near] = 0
    return _sorted(kinds)


def _thin(colours: np.ndarray, levels: np.ndarray, plateaus: list[Kind]) -> list[Kind]:
    """The hues of structures too thin for a plateau, on a ground without hue, where there are more than two kinds.

    JPEG blurs thin colours, but what it mixes of one colour and grey keeps the direction of its chroma.

    Args:
        colours: (H, W, 4) of 8 bits each, plateaus: what they have.
    """
    if not plateaus or not max(plateaus, key=lambda kind: kind.share).is_grey:
        return []
    vivid, direction = _chroma(colours)
    known = _chroma(np.array([[kind.colour for kind in plateaus if not kind.is_grey]], np.uint8).reshape(1, -1, 3))[1]
    if known.size > 1:  # edges between two colours have the hues between them
        return []
    coloured = vivid >= _VIVID
    least = max(_FEWEST_PIXELS, _LEAST_SHARE * levels.size, _THIN * coloured.sum())
    for other in known.flat:
        coloured &= _apart(direction, other) > _ONE_HUE
    kinds = []
    while coloured.sum() >= least:
        tens = np.bincount((direction[coloured] // 10).astype(int), minlength=36)
        commonest = 10 * int((tens + np.roll(tens, 1) + np.roll(tens, -1)).argmax()) + 5
        near = coloured & (_apart(direction, commonest) <= _ONE_HUE)
        if near.sum() >= least:
            place = int(np.where(near, vivid, 0).argmax())
            red, green, blue = map(int, colours.reshape(-1, colours.shape[2])[place, :3])
            kinds.append(Kind((red, green, blue), float(levels.flat[place]), near.sum() / levels.size))
        coloured &= ~near
    return kinds if len(plateaus) + len(kinds) > 2 else []


def _chroma(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How vivid colours are, 0 to 180, and the direction of their chroma, 0 to 360 degrees: each (H, W)."""
    if colours.size == 0:
        return np.empty(0), np.empty(0)
    blue, red = np.moveaxis(np.asarray(Image.fromarray(np.ascontiguousarray(colours[..., :3])).convert("YCbCr")), 2,
                            0)[1:].astype(np.float32) - 128
    return np.hypot(blue, red), np.rad2deg(np.arctan2(red, blue)) % 360


def _apart(direction: np.ndarray, other: float) -> np.ndarray:
    """The angle between directions and another one, 0 to 180 degrees."""
    return np.abs((direction - other + 180) % 360 - 180)


def _spread(plane: np.ndarray) -> np.ndarray:
    """The range of a channel within 3x3 pixels: uint8 (H, W) -> uint8 (H, W)."""
    from scipy import ndimage  # slow to import

    return ndimage.maximum_filter(plane, 3) - ndimage.minimum_filter(plane, 3)


def _sorted(kinds: list[Kind]) -> list[Kind]:
    return sorted(kinds, key=lambda kind: (kind.level, kind.colour))


def _colour(code: np.uint32) -> tuple[int, int, int]:
    red, green, blue = (int(code) >> shift & 255 for shift in (0, 8, 16))
    return red, green, blue
