"""Scenes: several coloured shapes, of which the prompt picks one."""

import itertools
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from featherseg.data.synthetic.drawing import (
    ANGLES,
    Outline,
    blend,
    coverage,
    grid,
    noise,
    polygon_radius,
    steps,
    to_uint8,
)
from featherseg.data.synthetic.targets import (
    Scene,
    Target,
    clear_coordinate,
    cumulative_prompts,
    location_word,
)

DESCRIPTION = (
    "Two to five plain shapes in eight colours and three sizes on a textured surface. It stands for "
    "referring segmentation: every object is a target, and only the prompt says which one is meant. "
    "Shapes and colours repeat within an image, so that one word is often too few; level `unique` holds "
    "the shortest prompt that no other object fits."
)
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart")
COLOURS = {
    "red": (0.84, 0.12, 0.12), "orange": (0.98, 0.55, 0.08), "yellow": (0.96, 0.88, 0.15),
    "green": (0.15, 0.62, 0.2), "blue": (0.12, 0.3, 0.85), "purple": (0.55, 0.18, 0.68),
    "white": (0.97, 0.97, 0.97), "black": (0.05, 0.05, 0.06),
}
SIZE_LIMITS = (0.034, 0.068)  # area fractions between small, medium and large
_RADII = {"small": (0.086, 0.098), "medium": (0.118, 0.138), "large": (0.163, 0.188)}  # of equal discs
_GENERAL = ("a flat coloured shape", "a plain figure on a rough background", "a shape of a single colour")


@dataclass(frozen=True)
class _Item:
    """One object of a scene: what it is and where."""

    outline: Outline
    attributes: dict[str, str]

    def phrases(self) -> list[str]:
        """Descriptions from the shortest to the one with every attribute."""
        colour, size, shape = (self.attributes[key] for key in ("colour", "size", "shape"))
        place = f"at the {self.attributes['location']}"
        return [shape, f"{colour} {shape}", f"{size} {shape}", f"{size} {colour} {shape}", f"{shape} {place}",
                f"{colour} {shape} {place}", f"{size} {shape} {place}", f"{size} {colour} {shape} {place}"]


def scene_prompts(scene: Scene, target_index: int) -> list[str]:
    """Every prompt that singles out exactly one object of a scene, in many wordings; never empty.

    Each subset of the object's shape, colour, size and location that no other object of the scene shares is
    worded in several ways. The order is fixed, the first is the unique prompt.
    """
    target = scene.targets[target_index]
    mine = target.attributes
    others = [other.attributes for index, other in enumerate(scene.targets) if index != target_index]
    keys = ("shape", "colour", "size", "location")
    subsets = [subset for count in range(1, 5) for subset in itertools.combinations(keys, count)]
    telling = [s for s in subsets if not any(all(other[key] == mine[key] for key in s) for other in others)]
    wordings = [wording for subset in telling for wording in _wordings(**{key: mine[key] for key in subset})]
    return list(dict.fromkeys([target.unique_prompt, *wordings]))


@cache
def _wordings(shape: str = "", colour: str = "", size: str = "", location: str = "") -> list[str]:
    """Ways to say one description of a scene object; an empty word is left out."""
    nouns = [shape, f"{shape}-shaped object"] if shape else ["object", "shape"]
    wordings = []
    for phrase in (" ".join(filter(None, (size, colour, noun))) for noun in nouns):
        if location:
            wordings += [f"{phrase} at the {location}", f"the {phrase} in the {location}",
                         f"the {location} {phrase}", f"a {phrase} at the {location} of the image",
                         f"one {phrase}, located in {location} of the image"]
        else:
            wordings += [phrase, f"the {phrase}", f"a photo of a {phrase}", f"one {phrase}"]
    return wordings


@lru_cache(maxsize=1)
def _shape_outlines() -> dict[str, Outline]:
    """Outline of each shape around its centre of gravity, upright, with the area of a unit circle."""

    def regular(corners: int, inner: float = 1.0) -> np.ndarray:
        turn = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
        length = np.where(np.arange(corners) % 2, inner, 1.0)
        return np.stack([length * np.cos(turn), length * np.sin(turn)], axis=1)

    t = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    heart_y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    arm = np.array([(1, -0.36), (1, 0.36), (0.36, 0.36)])
    turns = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    vertices = {
        "square": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
        "triangle": regular(3),
        "star": regular(10, 0.45),
        "cross": np.concatenate([arm @ turn for turn in turns]),
        "heart": np.stack([16 * np.sin(t) ** 3, -heart_y], axis=1),
    }
    disc = np.ones_like(ANGLES)
    outlines = {"circle": Outline((0, 0), disc), "ring": Outline((0, 0), disc, hole=0.55)}
    for shape, points in vertices.items():
        centroid = Outline((0, 0), polygon_radius(points)).centroid
        outlines[shape] = Outline((0, 0), polygon_radius(points - centroid))
    return {shape: Outline((0, 0), outline.radius * np.sqrt(np.pi / outline.area), outline.hole)
            for shape, outline in outlines.items()}


def paint(rng: np.random.Generator, size: int) -> Scene:
    """Two to five coloured shapes on a textured surface; the prompt picks one of them."""
    items = _place_items(rng, int(rng.integers(2, 6)))
    image = _background(rng, size)
    owner = np.full((size, size), -1)
    for number, item in enumerate(items):
        window = item.outline.window(size)
        distance = item.outline.distance(size, window)
        light = 1.0 + 0.08 * rng.standard_normal() + 0.06 * noise(rng, 5, size)[window]
        colour = np.array(COLOURS[item.attributes["colour"]]) + 0.03 * rng.standard_normal(3)
        blend(image[window], colour * light[..., None], coverage(distance, size))
        owner[window][distance < 0] = number
    image += 0.03 * noise(rng, 96, size)[..., None]
    targets = []
    for number, item in enumerate(items):
        others = {phrase for other in items if other is not item for phrase in other.phrases()}
        unique = next(phrase for phrase in item.phrases() if phrase not in others)
        shape = f"{item.attributes['shape']}-shaped"
        prompts = cumulative_prompts("object", shape, item.attributes, _GENERAL)
        targets.append(Target(f"object_{number + 1}", owner == number, item.attributes,
                              prompts | {"unique": [unique]}))
    return Scene(to_uint8(image), targets)


def _place_items(rng: np.random.Generator, wanted: int) -> list[_Item]:
    """Up to `wanted` objects, at least two, that hardly overlap and differ in at least one attribute."""
    items: list[_Item] = []
    for attempt in itertools.count(1):
        item = _propose_item(rng, items)
        apart = all(np.hypot(item.outline.centre[0] - other.outline.centre[0],
                             item.outline.centre[1] - other.outline.centre[1])
                    > 0.92 * (item.outline.reach + other.outline.reach) for other in items)
        if apart and all(item.attributes != other.attributes for other in items):
            items.append(item)
        if len(items) == wanted or (attempt >= 60 and len(items) >= 2):
            return items
        if attempt % 60 == 0:
            items.clear()


def _propose_item(rng: np.random.Generator, placed: list[_Item]) -> _Item:
    """A random object at a place that one location word fits; it often resembles one already placed."""
    shape, colour = SHAPES[rng.integers(len(SHAPES))], list(COLOURS)[rng.integers(len(COLOURS))]
    if placed and rng.random() < 0.4:
        other = placed[rng.integers(len(placed))].attributes
        shape, colour = (other["shape"], colour) if rng.random() < 0.5 else (shape, other["colour"])
    size = tuple(_RADII)[rng.integers(len(_RADII))]
    form = _shape_outlines()[shape]
    radius = np.roll(form.radius, steps(rng.uniform(-0.25, 0.25))) * rng.uniform(*_RADII[size])
    x, y = clear_coordinate(rng, 0.95 * radius.max()), clear_coordinate(rng, 0.95 * radius.max())
    attributes = {"number": "one", "size": size, "location": location_word(x, y), "shape": shape,
                  "colour": colour}
    return _Item(Outline((x, y), radius, form.hole), attributes)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A dull surface, float (size, size, 3): patches and grain, on every other one stripes."""
    tone = rng.uniform(0.36, 0.64) + 0.05 * rng.standard_normal(3)
    texture = 0.06 * noise(rng, int(rng.integers(2, 7)), size)
    texture += 0.04 * noise(rng, int(rng.integers(12, 40)), size)
    if rng.random() < 0.5:
        direction, period = rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.2)
        x, y = grid(size)
        phase = 2 * np.pi * (np.cos(direction) * x + np.sin(direction) * y) / period
        texture += 0.05 * np.sin(phase + 0.6 * noise(rng, 4, size))
    tint = 0.03 * np.stack([noise(rng, 3, size) for _ in range(3)], axis=-1)
    return tone + texture[..., None] + tint
