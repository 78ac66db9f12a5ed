"""Words for what a mask shows, and the cumulative prompts P0 to P9 that they make, as MedVLSM publishes them.

The words and the forms of the sentences are those of its lists (arXiv 2308.07706). An attribute that could not be
measured is None: it stays out of the sentence, and its level reads as the one below. The class stands in every level
above P0.
"""

import re
from collections.abc import Mapping, Sequence

ATTRIBUTES = ("number", "size", "location", "shape", "colour")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
MANY = "many"
SIZES = ("tiny", "small", "medium", "large")
LOCATIONS = (("top left", "top", "top right"), ("left", "center", "right"),
             ("bottom left", "bottom", "bottom right"))
SHAPES = ("round", "oval", "triangular", "square", "rectangular", "irregular")
_SINGULAR = (None, "one", "1")
_PLURALS = ((r"(?<=nucle)us$", "i"), (r"is$", "es"), (r"(s|x|z|ch|sh)$", r"\1es"), (r"(?<=[^aeiou])y$", "ies"))
_OUTLINES = {"benign": "regular", "malignant": "irregular"}

Attributes = Mapping[str, str | None]
Prompts = dict[str, list[str]]


def number_word(count: int) -> str:
    """One to twelve as a word, `many` above.

    Raises:
        ValueError: nothing to count.
    """
    if count < 1:
        raise ValueError(f"there is no word for {count} things.")
    return NUMBERS[count - 1] if count <= len(NUMBERS) else MANY


def location_word(x: float, y: float) -> str:
    """Word of the 3 x 3 grid for a point in unit coordinates, as the viewer sees the image."""
    return LOCATIONS[min(2, int(y * 3))][min(2, int(x * 3))]


def plural(noun: str) -> str:
    """The plural of a class name by the rules of regular English nouns; one that is a plural already stays."""
    if re.search(r"(nuclei|[^aius]s)$", noun.lower()):
        return noun
    for ending, several in _PLURALS:
        if re.search(ending, noun):
            return re.sub(ending, several, noun)
    return f"{noun}s"


def cumulative(attributes: Attributes, class_name: str, descriptions: Sequence[str] = (),
               several: str | None = None) -> Prompts:
    """P0 to P9 of a polyp, a skin lesion, a foot ulcer, or anything else that has a name.

    P0 empty, P1 class, P2 + shape, P3 + colour, P4 + size, P5 + number, P6 + location, P7 class + description,
    P8 = P5 + description, P9 = P8 + location; the last three only where there is a description, one prompt each.

    Args:
        descriptions: what the class is, to follow "which is".
        several: the class in the plural, for the levels that name a number other than one; None to leave it in the
            singular, as the published lists do.
    """
    phrases = [class_name]
    for name in ("shape", "colour", "size"):
        phrases.append(_joined(attributes.get(name), phrases[-1]))
    number, noun, which = attributes.get("number"), class_name, " which is"
    if several is not None and number not in _SINGULAR:
        noun, which = several, ", each of which is"
    phrases.append(_joined(number, phrases[-1].removesuffix(class_name) + noun))
    where = f"located in {attributes['location']} of the image" if attributes.get("location") else None
    prompts = {"p0": [""]} | {f"p{level}": [phrase] for level, phrase in enumerate(phrases, start=1)}
    prompts["p6"] = [", ".join(filter(None, (phrases[-1], where)))]
    if descriptions:
        prompts["p7"] = [f"{class_name} which is {text}" for text in descriptions]
        prompts["p8"] = [f"{phrases[-1]}{which} {text}" for text in descriptions]
        prompts["p9"] = [_joined(text, where) for text in prompts["p8"]]
    return prompts


def counted(attributes: Attributes, class_name: str, descriptions: Sequence[str] = ()) -> Prompts:
    """As `cumulative`, with the class in the plural where there are several of it."""
    return cumulative(attributes, class_name, descriptions, plural(class_name))


def breast_ultrasound(attributes: Attributes, class_name: str, descriptions: Sequence[str] = ()) -> Prompts:
    """P0 to P6 in BUSI's form: P1 tumor, P2 + type, P3 + number, P4 + size, P5 + location, P6 + shape.

    The type (`benign` or `malignant`) is nothing that a mask shows. Where it is given, P2 to P6 have a second prompt,
    which says instead how the outline of such a tumor is. The class is in the plural from P3 on where there are
    several. The form has no place for descriptions.
    """
    kind, number, size = attributes.get("type"), attributes.get("number"), attributes.get("size")
    where = f"at the {attributes['location']}" if attributes.get("location") else None
    shape = f"{attributes['shape']}-shaped" if attributes.get("shape") else None
    outline = _OUTLINES.get(kind or "")
    ways = [kind, f"{outline}-shaped"] if outline else [kind]
    noun = class_name if number in _SINGULAR else plural(class_name)
    prompts: Prompts = {"p0": [""], "p1": [_in_ultrasound(class_name)]}
    prompts |= {level: [] for level in ("p2", "p3", "p4", "p5", "p6")}
    for way, beside_a_shape in zip(ways, (kind, outline), strict=False):
        prompts["p2"].append(_in_ultrasound(way, class_name))
        prompts["p3"].append(_in_ultrasound(number, way, noun))
        prompts["p4"].append(_in_ultrasound(number, size, way, noun))
        prompts["p5"].append(_in_ultrasound(number, size, way, noun, where))
        prompts["p6"].append(_in_ultrasound(number, size, shape, beside_a_shape, noun, where))
    return prompts


def _in_ultrasound(*words: str | None) -> str:
    text = _joined(*words, "in the breast ultrasound image.")
    return text[0].upper() + text[1:]


def _joined(*words: str | None) -> str:
    return " ".join(filter(None, words))
