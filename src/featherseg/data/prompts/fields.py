"""The fields that prompts come from: their words for shapes and colours, and the form of their prompts.

Colours of polyps and of pigmented lesions are those that MedVLSM's lists name, and lie where they lie in the training
splits of Kvasir-SEG and ISIC 2016 (`scripts/fit_words.py`). Every other class has the basic colours of everyday
English: words that were fitted to one kind of target say little about another.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from featherseg.data.prompts.street import STREET, Template
from featherseg.data.prompts.wording import SHAPES, Attributes, Prompts, breast_ultrasound, counted

Lab = Sequence[float] | np.ndarray  # a colour in CIE Lab, (3,)


@dataclass(frozen=True)
class Palette:
    """Colour words around points of CIE Lab; the word of a colour is that of the point with the highest score.

    A score is the log density of a normal distribution of deviations `spread` around the point, plus the weight of
    its word: a linear discriminant.

    Attributes:
        points: words with (L, a, b); a word may have several.
        spread: deviations of L, a and b, the same for every word.
        weights: word -> log weight; 0 where none is given.
    """

    points: Sequence[tuple[str, tuple[float, float, float]]]
    spread: tuple[float, float, float] = (1.0, 1.0, 1.0)
    weights: Mapping[str, float] = field(default_factory=dict)

    def word(self, lab: Lab) -> str:
        """The word of a colour in CIE Lab."""
        def score(named: tuple[str, tuple[float, float, float]]) -> float:
            distances = ((value - centre) / deviation
                         for value, centre, deviation in zip(lab, named[1], self.spread, strict=True))
            return self.weights.get(named[0], 0.0) - sum(distance ** 2 for distance in distances) / 2

        return max(self.points, key=score)[0]


@dataclass(frozen=True)
class NearestColour:
    """Colour words around points of CIE Lab; the word of a colour is that of the nearest point by CIE94.

    CIE94 (CIE 116-1995) divides the differences of chroma and hue by factors that grow with the chroma of the point, so
    that lightness and hue decide and a dull purple is purple, not the grey or pink whose point is as dull.

    Attributes:
        points: words with (L, a, b); a word may have several.
    """

    points: Sequence[tuple[str, tuple[float, float, float]]]

    def word(self, lab: Lab) -> str:
        """The word of a colour in CIE Lab."""
        return min(self.points, key=lambda named: cie94(named[1], lab))[0]


def cie94(reference: Lab, colour: Lab) -> float:
    """The colour difference CIE94, with its weights for graphic arts, of a colour from a reference, both in CIE Lab."""
    reference_chroma, chroma = (math.hypot(*lab[1:]) for lab in (reference, colour))
    lightness, in_chroma = reference[0] - colour[0], reference_chroma - chroma
    in_hue = math.sqrt(max(0.0, math.dist(reference[1:], colour[1:]) ** 2 - in_chroma ** 2))
    return math.hypot(lightness, in_chroma / (1 + 0.045 * reference_chroma), in_hue / (1 + 0.015 * reference_chroma))


@dataclass(frozen=True)
class Field:
    """How one field words its prompts.

    Attributes:
        prompts: from attributes, class and descriptions to prompts by level.
        shapes: the field's word for each of `wording.SHAPES`.
        palette: colour words; None where pictures have no colour.
        palettes: colour words of the classes that have their own.
        templates: what prompts of a class say.
        closed: whether a class without a template is an error.
        described: whether its form has levels for descriptions.
    """

    prompts: Callable[[Attributes, str, Sequence[str]], Prompts] = counted
    shapes: Mapping[str, str] = field(default_factory=lambda: {shape: shape for shape in SHAPES})
    palette: NearestColour | None = None
    palettes: Mapping[str, Palette] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)
    closed: bool = False
    described: bool = True

    def palette_of(self, class_name: str | None) -> Palette | NearestColour | None:
        """The colour words of a class; None where the field's pictures have no colour."""
        return self.palettes.get(class_name or "", self.palette)


_AS_IN_LISTS = {"round": "circle", "oval": "oval", "triangular": "triangle", "square": "square",
                "rectangular": "rectangle", "irregular": "irregular"}
_BASIC = NearestColour((  # light and dark kinds of a word too
    ("red", (46, 66, 48)), ("red", (30, 48, 31)),
    ("orange", (68, 32, 65)),
    ("yellow", (86, -7, 75)), ("yellow", (92, -7, 38)),
    ("green", (52, -46, 37)), ("green", (74, -32, 32)), ("green", (28, -23, 17)),
    ("blue", (42, 26, -65)), ("blue", (72, -1, -35)), ("blue", (18, 24, -45)),
    ("purple", (41, 51, -47)), ("purple", (73, 33, -22)), ("purple", (20, 52, -53)), ("purple", (13, 16, -12)),
    ("pink", (74, 32, 2)), ("pink", (58, 60, -4)),
    ("brown", (36, 17, 27)), ("brown", (51, 16, 27)), ("brown", (19, 7, 12)),
    ("white", (97, 0, 0)),
    ("grey", (77, 0, 0)), ("grey", (54, 0, 0)), ("grey", (30, 0, 0)),
    ("black", (6, 0, 0)),
))
_ENDOSCOPY = Palette(
    (("white", (61.5, 31.7, 33.0)), ("yellow", (62.4, 31.6, 39.2)), ("brown", (53.6, 33.9, 33.6)),
     ("pink", (60.2, 34.2, 31.2)), ("orange", (59.6, 36.8, 39.8)), ("tan", (64.5, 28.9, 32.4)),
     ("red", (57.3, 42.8, 37.8))),
    (10.4, 8.2, 7.2),
    {"white": -0.31, "yellow": -0.98, "brown": -1.07, "pink": -1.31, "orange": -1.39, "tan": -1.46, "red": -2.22})
_SKIN = Palette(
    (("brown", (52.6, 17.8, 22.5)), ("red", (59.7, 18.4, 19.1)), ("white", (57.9, 16.1, 19.7)),
     ("orange", (54.7, 19.4, 27.2)), ("pink", (64.3, 13.0, 11.9)), ("blue", (56.6, 17.3, 15.2)),
     ("yellow", (61.5, 17.4, 20.8))),
    (12.8, 8.1, 9.2),
    {"brown": -0.13, "red": -1.11, "white": -1.46, "orange": -1.9, "pink": -1.97, "blue": -2.16, "yellow": -2.36})
_PIGMENTED = ("skin lesion", "skin melanoma", "lesion", "melanoma", "naevus", "nevus", "mole")
_POLYP = Template(("a raised growth on the lining of the bowel", "a bump that stands out from the smooth wall",
                   "a swelling with a surface unlike the mucosa near it"))
_LESION = Template(("a patch of skin unlike the skin around it", "a spot with more pigment than its surroundings",
                    "a mark on the skin with a border of its own"))
_ULCER = Template(("an open wound on a foot", "a sore that does not heal", "a patch of damaged skin on a foot or toe"))

FIELDS = {
    "general": Field(palette=_BASIC),
    "endoscopy": Field(palette=_BASIC, palettes={"polyp": _ENDOSCOPY}, templates={"polyp": _POLYP}),
    "skin": Field(palette=_BASIC, palettes=dict.fromkeys(_PIGMENTED, _SKIN), templates={
        "skin lesion": _LESION, "skin melanoma": _LESION, "foot ulcer": _ULCER}),
    "ultrasound": Field(breast_ultrasound, shapes=_AS_IN_LISTS, described=False),
    "street": Field(palette=_BASIC, templates=STREET, closed=True),
}
