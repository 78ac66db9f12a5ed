"""Scenes to refer to: several shapes of one kind, told apart by colour, size, place and what stands beside them."""

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from featherseg.data.prompts.wording import location_word
from featherseg.data.synthetic.drawing import Outline, steps
from featherseg.data.synthetic.expressions import SIZES, expressions
from featherseg.data.synthetic.shapes import COLOURS, SHAPES, Item, paint_items, shape_outlines
from featherseg.data.synthetic.targets import (
    Scene,
    Target,
    clear_coordinate,
    cumulative_prompts,
)

DESCRIPTION = (
    "Two to four shapes of one kind beside one or two of other kinds, on a textured surface. It stands for referring "
    "segmentation as in RefCOCO: each shape of the repeated kind is a target, and level sentences holds two to "
    "four expressions that fit it and no other object, by colour, size, place and relation. Splits train, val and "
    "testA show the same pairs of shape and colour; the targets of testB have pairs that the three never show, not "
    "even beside a target."
)
Option = TypeVar("Option")
SPLITS = {"train": 0.6, "val": 0.14, "testA": 0.13, "testB": 0.13}
HELD_OUT = frozenset((shape, colour) for (row, shape), (column, colour)
                     in itertools.product(enumerate(SHAPES), enumerate(COLOURS)) if (row + column) % 4 == 2)
SIZE_LIMITS = (0.0255, 0.0515)  # area fractions between small, medium and large
_RADII = dict(zip(SIZES, ((0.07, 0.08), (0.1, 0.115), (0.14, 0.16)), strict=True))  # of equal discs
_LIKE_THE_LAST = 0.4  # how often an object takes its colour, and how often its size, from the one before


def paint(rng: np.random.Generator, size: int) -> Scene:
    """Shapes of one kind, each a target, and one or two landmarks."""
    split = str(rng.choice(list(SPLITS), p=list(SPLITS.values())))
    items, texts = _place(rng, split)
    prompts = [_prompts(rng, item, by_kind) for item, by_kind in zip(items, texts, strict=False)]
    image, owner = paint_items(rng, items, size)
    targets, others = [], []
    for number, item in enumerate(items):
        name, mask = f"object_{number + 1}", owner == number
        kind = item.attributes["shape"], item.attributes["colour"]
        if number < len(texts) and (split != "testB" or kind in HELD_OUT):
            every = tuple(wording for text in _shortest_first(texts[number]) for wording in (text, f"the {text}"))
            targets.append(Target(name, mask, item.attributes, prompts[number], every))
        else:
            others.append(Target(name, mask, item.attributes, {}))
    return Scene(image, targets, others, split)


def _prompts(rng: np.random.Generator, item: Item, by_kind: dict[str, list[str]]) -> dict[str, list[str]]:
    """P0 to P6, which may fit several objects, the sentences, and the shortest expression."""
    levels = cumulative_prompts("object", f"{item.attributes['shape']}-shaped", item.attributes, ())
    return {f"p{level}": levels[f"p{level}"] for level in range(7)} | {
        "sentences": _sentences(rng, by_kind), "unique": _shortest_first(by_kind)[:1]}


def _shortest_first(by_kind: dict[str, list[str]]) -> list[str]:
    """All expressions; of equally long ones those of attributes first, and those that name the shape."""
    return sorted(itertools.chain(*by_kind.values()), key=lambda text: (len(text.split()), "object" in text))


def _shuffled(rng: np.random.Generator, texts: list[str]) -> list[str]:
    return [texts[number] for number in rng.permutation(len(texts))]


def _sentences(rng: np.random.Generator, by_kind: dict[str, list[str]]) -> list[str]:
    """Two to four different expressions, or all where there are fewer: first a kind is drawn, then one of it."""
    pools = [_shuffled(rng, texts) for texts in by_kind.values()]
    count = min(int(rng.integers(2, 5)), sum(map(len, pools)))
    sentences: list[str] = []
    for _ in range(count):
        text = _pick(rng, [pool for pool in pools if pool]).pop()
        sentences.append(f"the {text}" if rng.random() < 0.5 else text)
    return sentences


def _place(rng: np.random.Generator, split: str) -> tuple[list[Item], list[dict[str, list[str]]]]:
    """Objects that do not touch, those of the repeated kind first, and the expressions of each of these.

    Each has at least two.
    """
    while True:
        looks, repeated = _looks(rng, split)
        items: list[Item] = []
        for look in looks:
            items += _free_place(rng, look, items)
        if len(items) == len(looks):
            texts = [expressions(items, number) for number in range(repeated)]
            if all(sum(map(len, by_kind.values())) >= 2 for by_kind in texts):
                return items, texts


def _looks(rng: np.random.Generator, split: str) -> tuple[list[dict[str, str]], int]:
    """Shape, colour and size of every object, the repeated kind first, and how many these are."""
    kinds = [SHAPES[number] for number in rng.permutation(len(SHAPES))[:int(rng.integers(2, 4))]]
    repeated = int(rng.integers(2, 5))
    looks: list[dict[str, str]] = []
    for shape in [kinds[0]] * repeated + kinds[1:]:
        colours = [colour for colour in COLOURS if (shape, colour) not in HELD_OUT]
        if split == "testB" and shape == kinds[0]:
            colours = list(COLOURS) if looks else [colour for colour in COLOURS if (shape, colour) in HELD_OUT]
        look = {"shape": shape, "colour": _pick(rng, colours), "size": _pick(rng, SIZES)}
        for key in ("colour", "size"):
            if looks and rng.random() < _LIKE_THE_LAST and (key == "size" or looks[-1]["colour"] in colours):
                look[key] = looks[-1][key]
        looks.append(look)
    return looks, repeated


def _free_place(rng: np.random.Generator, look: dict[str, str], placed: list[Item]) -> list[Item]:
    """An object that touches no other, where one location word fits it; none where there is hardly any room."""
    form = shape_outlines()[look["shape"]]
    radius = np.roll(form.radius, steps(rng.uniform(-0.25, 0.25))) * rng.uniform(*_RADII[look["size"]])
    reach = radius.max()
    for _ in range(40):
        centre = clear_coordinate(rng, reach), clear_coordinate(rng, reach)
        if all(math.dist(centre, other.outline.centre) > 1.02 * (reach + other.outline.reach) for other in placed):
            attributes = {"number": "one", "size": look["size"], "location": location_word(*centre),
                          "shape": look["shape"], "colour": look["colour"]}
            return [Item(Outline(centre, radius, form.hole), attributes)]
    return []


def _pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    return options[int(rng.integers(len(options)))]
