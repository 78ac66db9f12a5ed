"""Scenes: several coloured shapes; the prompt picks one."""

import itertools
from functools import cache

import numpy as np

from featherseg.data.prompts.wording import location_word
from featherseg.data.synthetic.drawing import Outline, steps
from featherseg.data.synthetic.shapes import COLOURS, SHAPES, Item, paint_items, shape_outlines
from featherseg.data.synthetic.targets import (
    Scene,
    Target,
    clear_coordinate,
    cumulative_prompts,
)

DESCRIPTION = (
    "Two to five plain shapes in eight colours and three sizes on a textured surface. It stands for "
    "referring segmentation: every object is a target, and only the prompt says which one is meant. "
    "Shapes and colours repeat within an image, so that one word is often too few; level unique holds "
    "the shortest prompt that no other object fits."
)
SIZE_LIMITS = (0.034, 0.068)  # area fractions between small, medium and large
_RADII = {"small": (0.086, 0.098), "medium": (0.118, 0.138), "large": (0.163, 0.188)}  # of equal discs
_GENERAL = ("a flat coloured shape", "a plain figure on a rough background", "a shape of a single colour")


class _Item(Item):
    """One object of a scene, and how it may be described."""

    def phrases(self) -> list[str]:
        """Descriptions from the shortest to the one with every attribute."""
        colour, size, shape = (self.attributes[key] for key in ("colour", "size", "shape"))
        place = f"at the {self.attributes['location']}"
        return [shape, f"{colour} {shape}", f"{size} {shape}", f"{size} {colour} {shape}", f"{shape} {place}",
                f"{colour} {shape} {place}", f"{size} {shape} {place}", f"{size} {colour} {shape} {place}"]


def scene_prompts(scene: Scene, target_index: int) -> list[str]:
    """Every prompt that singles out exactly one object of a picture of `scenes` or `scenes_ref`; never empty.

    In `scenes` each subset of the object's shape, colour, size and location that no other object of the scene
    shares is worded in several ways; in `scenes_ref` it is the target's expressions, with and without article.
    The order is fixed, the first is the unique prompt.
    """
    target = scene.targets[target_index]
    if target.expressions:
        return list(target.expressions)
    mine = target.attributes
    others = [other.attributes for index, other in enumerate(scene.targets) if index != target_index]
    keys = ("shape", "colour", "size", "location")
    wordings = [target.unique_prompt]
    for count in range(1, 5):
        for subset in itertools.combinations(keys, count):
            words = {key: mine[key] for key in subset}
            if not any(words.items() <= other.items() for other in others):
                wordings += _wordings(**words)
    return list(dict.fromkeys(wordings))


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


def paint(rng: np.random.Generator, size: int) -> Scene:
    """Two to five coloured shapes on a textured surface; the prompt picks one of them."""
    items = _place_items(rng, int(rng.integers(2, 6)))
    image, owner = paint_items(rng, items, size)
    targets = []
    for number, item in enumerate(items):
        others = {phrase for other in items if other is not item for phrase in other.phrases()}
        unique = next(phrase for phrase in item.phrases() if phrase not in others)
        shape = f"{item.attributes['shape']}-shaped"
        prompts = cumulative_prompts("object", shape, item.attributes, _GENERAL)
        targets.append(Target(f"object_{number + 1}", owner == number, item.attributes,
                              prompts | {"unique": [unique]}))
    return Scene(image, targets)


def _place_items(rng: np.random.Generator, wanted: int) -> list[_Item]:
    """Up to `wanted` objects, at least two, that hardly overlap and differ in at least one attribute."""
    items: list[_Item] = []
    attempt = 0
    while True:
        attempt += 1
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
    form = shape_outlines()[shape]
    radius = np.roll(form.radius, steps(rng.uniform(-0.25, 0.25))) * rng.uniform(*_RADII[size])
    x, y = clear_coordinate(rng, 0.95 * radius.max()), clear_coordinate(rng, 0.95 * radius.max())
    attributes = {"number": "one", "size": size, "location": location_word(x, y), "shape": shape,
                  "colour": colour}
    return _Item(Outline((x, y), radius, form.hole), attributes)
