"""Referring expressions: what to say about one object so that no other object of the picture fits.

Whatever is near a border line between fitting and not fitting is not said: a place word needs a gap, and "left of"
holds only where the object is clearly and mostly to the left, and of no other candidate at all.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featherseg.data.synthetic.shapes import Item

SIZES = ("small", "medium", "large")
GAP = 0.06  # least distance, as a fraction of the image, between the outermost object and the next one
CLEAR = 0.1  # least distance at which one object is said to be left of another
SIDES = {  # word for the outermost object, for the side it is counted from, and for being beyond another object
    "leftmost": ("left", "left of", 0, -1), "rightmost": ("right", "right of", 0, 1),
    "topmost": ("top", "above", 1, -1), "bottommost": ("bottom", "below", 1, 1),
}
_ORDINALS = {1: "second", 2: "third"}
_SUBSETS = [keys for count in range(4) for keys in itertools.combinations(("shape", "colour", "size"), count)]


@dataclass(frozen=True)
class _Relation:
    """What an item is, clearly, to a landmark: `word` is that its centre lies on the side `sign` along `axis`."""

    landmark: int
    word: str
    axis: int
    sign: int
    landmark_phrases: list[str]


def expressions(items: Sequence[Item], number: int) -> dict[str, list[str]]:
    """Every expression, without an article, that fits `items[number]` and no other item, by what it uses.

    Returns:
        `attributes` (colour, size, shape), `location` (a word of the 3 x 3 grid), `comparison` (the outermost,
        the largest, the second from a side) and `relation` (to an object that shape, colour and size single out).
        Those that have none are left out; expressions that need more than attributes are given only where
        attributes are too few.
    """
    own, relations = items[number].attributes, _relations(items, number)
    by_kind: dict[str, list[str]] = {"attributes": [], "location": [], "comparison": [], "relation": []}
    for keys in _SUBSETS:
        head, rivals = _head(own, keys), _rivals(items, number, keys)
        if not rivals:
            by_kind["attributes"].append(head)
            continue
        if all(items[rival].attributes["location"] != own["location"] for rival in rivals):
            by_kind["location"].append(f"{head} at the {own['location']}")
        by_kind["comparison"] += _comparisons(items, number, rivals, head, by_size="size" not in keys)
        for relation in relations:
            if not any(_may_hold(relation, items, rival) for rival in rivals):
                by_kind["relation"] += [f"{head} {relation.word} the {phrase}" for phrase in relation.landmark_phrases]
    return {kind: texts for kind, texts in by_kind.items() if texts}


def _head(attributes: dict[str, str], keys: tuple[str, ...]) -> str:
    noun = attributes["shape"] if "shape" in keys else "object"
    return " ".join([*(attributes[key] for key in ("size", "colour") if key in keys), noun])


def _rivals(items: Sequence[Item], number: int, keys: tuple[str, ...]) -> list[int]:
    """The other items that share some attributes."""
    shared = {key: items[number].attributes[key] for key in keys}
    return [other for other, item in enumerate(items) if other != number and shared.items() <= item.attributes.items()]


def _comparisons(items: Sequence[Item], number: int, rivals: list[int], head: str, by_size: bool) -> list[str]:
    texts = []
    for outermost, (side, _, axis, sign) in SIDES.items():
        own = sign * items[number].outline.centre[axis]
        others = [sign * items[rival].outline.centre[axis] for rival in rivals]
        before = sum(other > own for other in others)
        if before == 0 and own - max(others) > GAP:
            texts.append(f"{outermost} {head}")
        elif before in _ORDINALS and before < len(others) and np.diff(sorted([own, *others])).min() > GAP:
            texts.append(f"{_ORDINALS[before]} {head} from the {side}")
    if by_size:
        own = SIZES.index(items[number].attributes["size"])
        others = [SIZES.index(items[rival].attributes["size"]) for rival in rivals]
        texts += [f"largest {head}"] if own > max(others) else []
        texts += [f"smallest {head}"] if own < min(others) else []
    return texts


def _relations(items: Sequence[Item], number: int) -> list[_Relation]:
    """Where an item lies from each other item that shape, colour and size single out."""
    relations = []
    for landmark, item in enumerate(items):
        away = [own - other for own, other in zip(items[number].outline.centre, item.outline.centre, strict=True)]
        sides = [(word, axis, sign) for _, word, axis, sign in SIDES.values()
                 if sign * away[axis] >= max(CLEAR, abs(away[1 - axis]))]
        if sides:
            phrases = [_head(item.attributes, keys) for keys in _SUBSETS
                       if "shape" in keys and not _rivals(items, landmark, keys)][:2]
            relations += [_Relation(landmark, *side, phrases) for side in sides]
    return relations


def _may_hold(relation: _Relation, items: Sequence[Item], number: int) -> bool:
    """Whether someone could say that another item is in this relation too."""
    own, other = (items[which].outline.centre[relation.axis] for which in (number, relation.landmark))
    return number != relation.landmark and relation.sign * (own - other) > 0
