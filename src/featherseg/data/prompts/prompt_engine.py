"""The prompt engine: from an image and a mask to words, and from words to the prompts P0 to P9.

What is measured, all of it deterministic and by geometry or pixels:

- number: connected parts (pixels that touch, diagonally too); a part of less than a hundredth of the largest one is a
  speck and does not count;
- size: area of the largest part as a share of the image, in MedVLSM's classes;
- location: where the middle of each part's bounding box lies on a 3x3 grid, each place once, in reading order; parts
  in more than three places have none;
- shape: of the largest part, from its convex hull and the smallest rectangle around that;
- colour: the median of the mask's pixels, named by the palette of the class; a grey picture has none.

An attribute that cannot be measured is None: all of an empty mask and of an image of less than 3 pixels a side, the
shape of a part of less than 32 pixels.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featherseg.core.errors import UserError
from featherseg.core.registry import unknown
from featherseg.data.prompts.fields import FIELDS, Field
from featherseg.data.prompts.street import Template
from featherseg.data.prompts.wording import ATTRIBUTES, LOCATIONS, SIZES, Prompts, location_word, number_word

SPECK = 0.01  # share of the largest part; between 0.0003 and 0.01 no part lies in the training splits
SIZE_LIMITS = (0.001, 0.08, 0.30)  # MedVLSM's; the fit to the training splits finds the last two again
MOST_PLACES = 3
FEWEST_PIXELS = 32
SOLID = 0.85  # a smaller share of its convex hull is irregular: 1 in 20 of those that the lists call round or oval
FILLS = (0.64, 0.89)  # hull / rectangle: midway of triangle (1/2), ellipse (pi/4) and rectangle (1)
OVAL = 1.5  # length / width from which oval: the best fit to round and oval in Kvasir-SEG's training split
SQUARE = 1.25
GREY = 8  # channels of a grey picture differ by no more
_SAMPLED = 20_000  # pixels, at most, that a colour is measured on
_SMALLEST = 3
_LOCATION_ORDER = [word for row in LOCATIONS for word in row]
_LINEAR_TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                           [0.0193339, 0.1191920, 0.9503041]])
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65


class PromptEngine:
    """Makes the prompts of a dataset's samples, and counts what could not be measured.

    Args:
        field: one of `FIELDS`.
        descriptions: by class, what it is, to follow "which is"; a class without any has its field's.

    Raises:
        UserError: an unknown field, or descriptions for one whose prompts have no place for them.
    """

    def __init__(self, field: str = "general", descriptions: Mapping[str, Sequence[str]] | None = None) -> None:
        if field not in FIELDS:
            raise unknown("field of prompts", field, list(FIELDS))
        self.name = field
        self.field = FIELDS[field]
        if descriptions and not self.field.described:
            raise UserError(f"prompts of the field {field!r} have no level for descriptions; remove `descriptions`.")
        self.descriptions = descriptions or {}
        self.samples = 0
        self.unmeasured: Counter[str] = Counter()

    def describe(self, image: np.ndarray, mask: np.ndarray, class_name: str,
                 given: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], Prompts]:
        """Attributes and prompts of one sample.

        Args:
            image: uint8 (H, W, 3).
            mask: bool (H, W).
            given: attributes that are known otherwise; they stand in the place of the measured ones.

        Raises:
            UserError: the field has no template for the class.
        """
        template = self.template(class_name)
        attributes = measure(image, mask, self.field, class_name)
        self.samples += 1
        self.unmeasured.update(name for name, word in attributes.items() if word is None)
        if not template.countable:
            attributes |= {"number": None, "shape": None}
        attributes |= {name: value for name, value in (given or {}).items() if value not in (None, "")}
        words = {name: None if value is None else str(value) for name, value in attributes.items()}
        return attributes, self.field.prompts(words, class_name, template.descriptions)

    def template(self, class_name: str) -> Template:
        """What the prompts of a class say beside what is measured.

        Raises:
            UserError: the field has no template for the class.
        """
        if self.field.closed and class_name not in self.field.templates:
            raise UserError(f"the field {self.name!r} has no prompt template for the class {class_name!r}; add it to "
                            f"featherseg/data/prompts/street.py, or use one of {', '.join(self.field.templates)}.")
        template = self.field.templates.get(class_name, Template())
        own = tuple(self.descriptions.get(class_name, ()))
        return Template(own or template.descriptions, template.countable)

    def notes(self) -> tuple[str, ...]:
        """For a dataset's card: that its prompts are made here, and what could not be measured how often."""
        if not self.samples:
            return ()
        lacking = ", ".join(f"{name} of {self.unmeasured[name]}" for name in ATTRIBUTES if self.unmeasured[name])
        return (f"Prompts of {self.samples} samples were made from masks and pixels, in the words of the field "
                f"{self.name}; " + (f"not measurable: {lacking}." if lacking else "every attribute was measurable."),)


def measure(image: np.ndarray, mask: np.ndarray, field: Field = FIELDS["general"],
            class_name: str | None = None) -> dict[str, str | None]:
    """Number, size, location, shape and colour of a target as words; None for what cannot be measured.

    Args:
        image: uint8 (H, W, 3); only its colours are read.
        mask: bool (H, W).
        class_name: what the mask shows, where the field has colour words of its own for some classes.
    """
    attributes: dict[str, str | None] = dict.fromkeys(ATTRIBUTES)
    if min(mask.shape) < _SMALLEST or not mask.any():
        return attributes
    parts = parts_of(mask)
    largest = max(parts, key=lambda part: part.pixels)
    height, width = mask.shape
    places = {location_word((part.left + part.right) / 2 / width, (part.top + part.bottom) / 2 / height)
              for part in parts}
    form, palette = form_of(largest), field.palette_of(class_name)
    colour = colour_of(image, mask) if palette else None
    return attributes | {
        "number": number_word(len(parts)),
        "size": SIZES[sum(largest.pixels / mask.size >= limit for limit in SIZE_LIMITS)],
        "location": ", ".join(sorted(places, key=_LOCATION_ORDER.index)) if len(places) <= MOST_PLACES else None,
        "shape": field.shapes[form] if form else None,
        "colour": palette.word(colour) if palette and colour is not None else None,
    }


@dataclass(frozen=True)
class Part:
    """One connected part of a mask.

    Attributes:
        inside: bool, cut to its bounding box.
        pixels: how many it has.
        top, left, bottom, right: of the bounding box, pixels of the whole mask; the last two exclusive.
    """

    inside: np.ndarray
    pixels: int
    top: int
    left: int
    bottom: int
    right: int


def parts_of(mask: np.ndarray) -> list[Part]:
    """The connected parts of a mask, specks left out."""
    from scipy import ndimage

    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    labels, _ = ndimage.label(mask[top:rows[-1] + 1, left:columns[-1] + 1], np.ones((3, 3)))
    pixels = np.bincount(labels.ravel())[1:].tolist()
    least = SPECK * max(pixels)
    parts = []
    for number, (down, across) in enumerate(ndimage.find_objects(labels), start=1):
        count = pixels[number - 1]
        if count >= least:
            inside = labels[down, across] == number
            parts.append(Part(inside, count, top + down.start, left + across.start, top + down.stop,
                              left + across.stop))
    return parts


def form_of(part: Part) -> str | None:
    """Which of `wording.SHAPES` a part has; None where it is too small to tell."""
    if part.pixels < FEWEST_PIXELS:
        return None
    solidity, fill, elongation = outline_of(part)
    if solidity < SOLID:
        return "irregular"
    if fill < FILLS[0]:
        return "triangular"
    if fill > FILLS[1]:
        return "rectangular" if elongation >= SQUARE else "square"
    return "oval" if elongation >= OVAL else "round"


def outline_of(part: Part) -> tuple[float, float, float]:
    """Three figures of a part's outline that do not change as it is moved, turned or scaled.

    Returns:
        Solidity (area / area of the convex hull), fill (area of the hull / that of the smallest rectangle around it)
        and elongation (length / width of that rectangle).
    """
    from scipy.spatial import ConvexHull

    rows = np.arange(len(part.inside), dtype=float)
    left = part.inside.argmax(axis=1)
    right = part.inside.shape[1] - 1.0 - part.inside[:, ::-1].argmax(axis=1)
    reach = [(left - 0.5, rows), (right + 0.5, rows),  # middles of the pixels' sides, not corners: these would
             *((x, y) for x in (left, right) for y in (rows - 0.5, rows + 0.5))]  # make small parts seem jagged
    candidates = np.concatenate([np.stack([x, y], axis=1) for x, y in reach])
    hull = ConvexHull(candidates)
    points = candidates[hull.vertices]
    edges = np.roll(points, -1, axis=0) - points
    along = (edges / np.linalg.norm(edges, axis=1, keepdims=True)).T
    lengths = np.ptp(points @ along, axis=0)
    widths = np.ptp(points @ np.stack([-along[1], along[0]]), axis=0)
    smallest = np.argmin(lengths * widths)  # a side of the smallest rectangle lies on a side of the hull
    sides = float(lengths[smallest]), float(widths[smallest])
    return part.pixels / hull.volume, float(hull.volume) / (sides[0] * sides[1]), max(sides) / min(sides)


def colour_of(image: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Median colour of a mask's pixels in CIE Lab, (3,); None in a grey picture.

    A picture of more than 20,000 pixels is sampled on a regular grid, unless too little of a small mask is left.
    """
    step = max(1, int(np.sqrt(mask.size / _SAMPLED)))
    sampled = image[::step, ::step]
    red, green, blue = np.moveaxis(sampled, 2, 0)
    strongest, weakest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    if (strongest - weakest).max() <= GREY:
        return None
    seen = mask[::step, ::step]
    pixels = sampled[seen] if seen.sum() >= FEWEST_PIXELS else image[mask]
    return to_lab(np.median(pixels, axis=0))


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB of 0 to 255, (..., 3), in CIE Lab under D65."""
    scaled = np.asarray(rgb, dtype=float) / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _LINEAR_TO_XYZ.T / _WHITE
    x, y, z = np.moveaxis(np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
