"""Pictures that the project draws itself, with masks, attributes and prompts: the stand-ins for real data.

One (name, index, seed) is the same picture, with the same attributes and prompts, at any size.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from featherseg.data.drawing import ANGLES, Outline, coverage, noise, polygon_radius, smooth_radius, to_uint8
from featherseg.errors import UserError

NAMES = ("scenes", "lesions", "organs")
DESCRIPTIONS = {
    "scenes": "Two to five plain shapes in eight colours and three sizes on a textured surface. It stands for "
              "referring segmentation: every object is a target, and only the prompt says which one is meant. "
              "Shapes and colours repeat within an image, so that one word is often too few; level `unique` holds "
              "the shortest prompt that no other object fits.",
    "lesions": "A view into a tube of pink mucosa with folds, vessels, wet highlights and the dark border of an "
               "endoscope, and in it one raised lesion. It stands for polyp segmentation in colonoscopy: the image "
               "alone says what to segment, the prompt adds nothing that is needed.",
    "organs": "An axial slice through an abdomen as in computed tomography, with three of liver, stomach, spleen, "
              "left and right kidney as targets, all of much the same grey, and bowel, muscle and bone beside them. "
              "It stands for multi-organ segmentation: the prompt decides. Slices are seen from the feet, as "
              "radiologists do: the patient's left is on the right of the image, so the left kidney is located in "
              "right of the image.",
}
LOCATIONS = (("top left", "top", "top right"), ("left", "center", "right"),
             ("bottom left", "bottom", "bottom right"))


@dataclass(frozen=True)
class Target:
    """One structure that a prompt can ask for.

    Attributes:
        name: unique in its image.
        mask: bool (size, size), the visible part.
        attributes: number, size, location, shape and colour.
        prompts: the cumulative levels "p0".."p9", and "unique": the shortest prompt that singles it out.
    """

    name: str
    mask: np.ndarray
    attributes: dict[str, str]
    prompts: dict[str, list[str]]

    @property
    def unique_prompt(self) -> str:
        """The shortest prompt that no other target of the image fits."""
        return self.prompts["unique"][0]


@dataclass(frozen=True)
class Scene:
    """A drawn image, uint8 (size, size, 3), and its targets."""

    image: np.ndarray
    targets: list[Target]


def draw(name: str, index: int, seed: int, size: int) -> Scene:
    """Draw image `index` of a synthetic set.

    Args:
        name: one of NAMES.
        index: number of the image, from 0; images of different numbers are independent.
        seed: seed of the whole set.
        size: side of the square image in pixels, at least 16.

    Raises:
        UserError: the name is unknown, or a number is out of range.
    """
    if name not in NAMES:
        raise UserError(f"There is no synthetic set {name!r}; choose one of {', '.join(NAMES)}.")
    if index < 0 or seed < 0 or size < 16:
        raise UserError(f"Synthetic set {name!r}: index {index} and seed {seed} must be at least 0, and size {size} "
                        "at least 16 pixels.")
    return _PAINTERS[name](np.random.default_rng([NAMES.index(name), seed, index]), size)


def prepare_synthetic(name: str, images: int, size: int, seed: int, out_dir: Path | str) -> None:
    """Draw `images` images of a set and write them as a prepared dataset, split 60/20/20 by hash of the image.

    Raises:
        UserError: unknown name, a number out of range, or the folder cannot be written.
    """
    from featherseg.data.prepared import PreparedWriter

    if images < 1:
        raise UserError(f"Synthetic set {name!r}: images is {images}, but a dataset needs at least 1.")
    with PreparedWriter(out_dir, dataset=name) as writer:
        for index in range(images):
            scene, image_id = draw(name, index, seed, size), f"{name}_{index:05d}"
            writer.add_image(image_id, scene.image)
            for target in scene.targets:
                writer.add_sample(image_id=image_id, target=target.name, mask=target.mask,
                                  prompts=target.prompts, attributes=target.attributes)


# --- words


def location_word(x: float, y: float) -> str:
    """Word of the 3 x 3 grid for a point in unit coordinates, as the viewer sees the image."""
    return LOCATIONS[min(2, int(y * 3))][min(2, int(x * 3))]


def size_word(area_fraction: float, limits: tuple[float, float]) -> str:
    """Small, medium or large for an area as a fraction of the image; `limits` part the three."""
    return ("small", "medium", "large")[int(area_fraction >= limits[0]) + int(area_fraction >= limits[1])]


def cumulative_prompts(noun: str, shape: str, attributes: dict[str, str],
                       general: tuple[str, ...]) -> dict[str, list[str]]:
    """Prompts "p0".."p9" of one target in the cumulative order of MedVLSM (arXiv 2308.07706).

    Args:
        noun: the class, such as "lesion".
        shape: the shape as an adjective.
        attributes: number, size, location and colour.
        general: descriptions of the class that follow "which is"; one prompt each at P7 to P9.
    """
    phrases = [noun]
    for word in (shape, attributes["colour"], attributes["size"], attributes["number"]):
        phrases.append(f"{word} {phrases[-1]}")
    place = f"located in {attributes['location']} of the image"
    prompts = {"p0": [""]} | {f"p{level}": [phrase] for level, phrase in enumerate(phrases, start=1)}
    prompts["p6"] = [f"{phrases[-1]}, {place}"]
    prompts["p7"] = [f"{noun} which is {text}" for text in general]
    prompts["p8"] = [f"{phrases[-1]} which is {text}" for text in general]
    prompts["p9"] = [f"{prompt}, {place}" for prompt in prompts["p8"]]
    return prompts


# --- scenes

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart")
COLOURS = {
    "red": (0.84, 0.12, 0.12), "orange": (0.98, 0.55, 0.08), "yellow": (0.96, 0.88, 0.15),
    "green": (0.15, 0.62, 0.2), "blue": (0.12, 0.3, 0.85), "purple": (0.55, 0.18, 0.68),
    "white": (0.97, 0.97, 0.97), "black": (0.05, 0.05, 0.06),
}
SCENE_SIZES = (0.034, 0.068)
_RADII = {"small": (0.086, 0.098), "medium": (0.118, 0.138), "large": (0.163, 0.188)}  # of a circle of equal area
_SCENE_GENERAL = ("a flat coloured shape", "a plain figure on a rough background", "a shape of a single colour")


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
    wordings = [wording for subset in telling for wording in _wordings({key: mine[key] for key in subset})]
    return list(dict.fromkeys([target.unique_prompt, *wordings]))


def _wordings(words: dict[str, str]) -> list[str]:
    """Ways to say one description of a scene object; `words` holds any of shape, colour, size, location."""
    before = [words[key] for key in ("size", "colour") if key in words]
    nouns = [words["shape"], f"{words['shape']}-shaped object"] if "shape" in words else ["object", "shape"]
    phrases = []
    for phrase in (" ".join([*before, noun]) for noun in nouns):
        if "location" in words:
            place = words["location"]
            phrases += [f"{phrase} at the {place}", f"the {phrase} in the {place}", f"the {place} {phrase}",
                        f"a {phrase} at the {place} of the image", f"one {phrase}, located in {place} of the image"]
        else:
            phrases += [phrase, f"the {phrase}", f"a photo of a {phrase}", f"one {phrase}"]
    return phrases


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
    outlines = {"circle": Outline((0, 0), np.ones_like(ANGLES)), "ring": Outline((0, 0), np.ones_like(ANGLES), 0.55)}
    for shape, points in vertices.items():
        centroid = Outline((0, 0), polygon_radius(points)).centroid
        outlines[shape] = Outline((0, 0), polygon_radius(points - centroid))
    return {shape: Outline((0, 0), o.radius * np.sqrt(np.pi / o.area), o.hole) for shape, o in outlines.items()}


def _paint_scene(rng: np.random.Generator, size: int) -> Scene:
    """Two to five coloured shapes on a textured surface; the prompt picks one of them."""
    items = _place_items(rng, int(rng.integers(2, 6)))
    image = _scene_background(rng, size)
    owner = np.full((size, size), -1)
    for number, item in enumerate(items):
        window = item.outline.window(size)
        distance = item.outline.distance(size, window)
        light = 1.0 + 0.08 * rng.standard_normal() + 0.06 * noise(rng, 5, size)[window]
        paint = (np.array(COLOURS[item.attributes["colour"]]) + 0.03 * rng.standard_normal(3)) * light[..., None]
        _blend(image[window], paint, coverage(distance, size))
        owner[window][distance < 0] = number
    image += 0.03 * noise(rng, 96, size)[..., None]
    targets = []
    for number, item in enumerate(items):
        others = {phrase for other in items if other is not item for phrase in other.phrases()}
        unique = next(phrase for phrase in item.phrases() if phrase not in others)
        prompts = cumulative_prompts("object", f"{item.attributes['shape']}-shaped", item.attributes, _SCENE_GENERAL)
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
    """A random object at a place whose location word leaves no doubt; it often resembles one already placed."""
    shape, colour = SHAPES[rng.integers(len(SHAPES))], list(COLOURS)[rng.integers(len(COLOURS))]
    if placed and rng.random() < 0.4:
        other = placed[rng.integers(len(placed))].attributes
        shape, colour = (other["shape"], colour) if rng.random() < 0.5 else (shape, other["colour"])
    size = tuple(_RADII)[rng.integers(3)]
    form = _shape_outlines()[shape]
    turn = round(rng.uniform(-0.25, 0.25) * len(ANGLES) / (2 * np.pi))
    radius = np.roll(form.radius, turn) * rng.uniform(*_RADII[size])
    x, y = _off_grid_lines(rng, 0.95 * radius.max()), _off_grid_lines(rng, 0.95 * radius.max())
    attributes = {"number": "one", "size": size, "location": location_word(x, y), "shape": shape, "colour": colour}
    return _Item(Outline((x, y), radius, form.hole), attributes)


def _off_grid_lines(rng: np.random.Generator, border: float, margin: float = 0.025) -> float:
    """A coordinate at least `border` inside the image and `margin` away from the lines that part locations."""
    while True:
        value = rng.uniform(border, 1.0 - border)
        if abs(value - 1 / 3) > margin and abs(value - 2 / 3) > margin:
            return value


def _scene_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A dull surface, float (size, size, 3): patches and grain, on every other one stripes."""
    tone = rng.uniform(0.36, 0.64) + 0.05 * rng.standard_normal(3)
    texture = 0.06 * noise(rng, int(rng.integers(2, 7)), size) + 0.04 * noise(rng, int(rng.integers(12, 40)), size)
    if rng.random() < 0.5:
        direction, period = rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.2)
        x, y = _grid(size)
        phase = 2 * np.pi * (np.cos(direction) * x + np.sin(direction) * y) / period
        texture += 0.05 * np.sin(phase + 0.6 * noise(rng, 4, size))
    tint = 0.03 * np.stack([noise(rng, 3, size) for _ in range(3)], axis=-1)
    return tone + texture[..., None] + tint


# --- lesions

LESION_SIZES = (0.0525, 0.11)
_LESION_AREAS = {"small": (0.028, 0.045), "medium": (0.06, 0.095), "large": (0.125, 0.185)}
_LESION_COLOURS = {
    "pink": (0.93, 0.56, 0.53), "red": (0.72, 0.17, 0.16), "brown": (0.55, 0.30, 0.20),
    "white": (0.95, 0.86, 0.80), "yellow": (0.90, 0.73, 0.42),
}
_LESION_GENERAL = (
    "a raised growth on the lining of the bowel", "a bump that stands out from the smooth wall around it",
    "a swelling with a surface unlike the mucosa near it", "a patch of abnormal tissue in the colon",
)


def _paint_lesion(rng: np.random.Generator, size: int) -> Scene:
    """One lesion on the wall of a bowel, seen through an endoscope."""
    outline, attributes = _place_lesion(rng)
    x, y = _grid(size)
    light, image = _mucosa(rng, size, outline)
    window = outline.window(size, margin=0.05)
    distance = outline.distance(size, window)
    reach = np.sqrt(outline.area / np.pi)

    toward = np.arctan2(0.5 - outline.centre[1], 0.5 - outline.centre[0]) + rng.uniform(-0.8, 0.8)
    side = ((x - outline.centre[0]) * np.cos(toward) + (y - outline.centre[1]) * np.sin(toward))[window] / reach
    shadow = np.exp(-np.maximum(distance, 0.0) / 0.025) * np.clip(0.25 - 0.5 * side, 0.0, 0.5)
    image[window] *= 1.0 - shadow[..., None]

    height = np.clip(-distance / reach, 0.0, 1.0)
    dome = 0.80 + 0.30 * np.sqrt(height) + 0.16 * side * (1.0 - height)
    bumps = 0.05 * noise(rng, 26, size) + 0.05 * noise(rng, 11, size)
    colour = np.array(_LESION_COLOURS[attributes["colour"]]) + 0.02 * rng.standard_normal(3)
    surface = colour * (light[window] * (dome + bumps[window]))[..., None]
    _blend(image[window], surface, coverage(distance, size, softness=0.012))

    wet = 3.0 * (noise(rng, 36, size) + 0.7 * noise(rng, 9, size) - 2.6)
    glint = outline.centre[0] + 0.35 * reach * np.cos(toward), outline.centre[1] + 0.35 * reach * np.sin(toward)
    spot = np.exp(-((x - glint[0]) ** 2 + (y - glint[1]) ** 2) / (0.16 * reach) ** 2)
    wet += 2.2 * spot * (1.0 + 0.6 * noise(rng, 30, size)) - 0.6 * (spot > 0.01)
    _blend(image, np.array((1.0, 0.98, 0.95)), 0.85 * np.clip(wet, 0.0, 1.0) * np.clip(light, 0.0, 1.0))

    image *= _endoscope_border(rng, size)[..., None]
    image += 0.012 * noise(rng, 120, size)[..., None]
    mask = np.zeros((size, size), dtype=bool)
    mask[window] = distance < 0
    prompts = cumulative_prompts("lesion", attributes["shape"], attributes, _LESION_GENERAL)
    return Scene(to_uint8(image), [Target("lesion", mask, attributes, prompts | {"unique": ["lesion"]})])


def _place_lesion(rng: np.random.Generator) -> tuple[Outline, dict[str, str]]:
    """Outline of a lesion inside the round view, and its attributes, measured from the outline."""
    shape = ("round", "oval", "irregular")[rng.integers(3)]
    size = tuple(_LESION_AREAS)[rng.integers(3)]
    colour = tuple(_LESION_COLOURS)[rng.integers(len(_LESION_COLOURS))]
    stretch = {"round": rng.uniform(1.0, 1.1), "oval": rng.uniform(1.45, 1.8), "irregular": rng.uniform(1.0, 1.25)}[shape]
    wobble = 0.14 if shape == "irregular" else 0.02
    turned = ANGLES - rng.uniform(0, 2 * np.pi)
    radius = 1.0 / np.hypot(np.cos(turned) / np.sqrt(stretch), np.sin(turned) * np.sqrt(stretch))
    for wave in (2, 3, 5) if shape == "irregular" else (3, 5, 7):
        radius += wobble * rng.uniform(0.5, 1.0) * np.cos(wave * ANGLES + rng.uniform(0, 2 * np.pi))
    radius *= np.sqrt(rng.uniform(*_LESION_AREAS[size]) / Outline((0, 0), radius).area)
    while True:
        outline = Outline((_off_grid_lines(rng, 0.1), _off_grid_lines(rng, 0.1)), radius)
        if np.hypot(outline.centre[0] - 0.5, outline.centre[1] - 0.5) + outline.reach < 0.5:
            break
    attributes = {"number": "one", "size": size_word(outline.area, LESION_SIZES),
                  "location": location_word(*outline.centroid), "shape": shape, "colour": colour}
    return outline, attributes


def _mucosa(rng: np.random.Generator, size: int, lesion: Outline) -> tuple[np.ndarray, np.ndarray]:
    """Light (size, size) and colours (size, size, 3) of a bowel's wall; the dark lumen keeps clear of the lesion."""
    x, y = _grid(size)
    away = np.arctan2(0.5 - lesion.centre[1], 0.5 - lesion.centre[0]) + rng.uniform(-1.0, 1.0)
    far = lesion.reach + rng.uniform(0.12, 0.25)
    lumen = lesion.centre[0] + far * np.cos(away), lesion.centre[1] + far * np.sin(away)
    depth = np.hypot(x - lumen[0], (y - lumen[1]) * rng.uniform(0.8, 1.2)) * np.exp(0.16 * noise(rng, 3, size))

    # Towards the lumen each fold brightens up to its crest, behind which the next one begins in its shadow.
    turns = -rng.uniform(1.3, 2.0) * np.log(depth + 0.07) + 0.25 * noise(rng, 3, size) + rng.uniform(0, 1)
    fold = turns % 1.0
    crest = fold**1.5 - 1.8 * np.clip((fold - 0.88) / 0.12, 0.0, 1.0) * fold**1.5
    strength = np.clip(0.55 + 0.4 * noise(rng, 2, size), 0.1, 1.0)
    light = 0.92 + 0.28 * strength * crest + 0.05 * noise(rng, 5, size)
    light *= 1.0 - 0.85 * np.exp(-((depth / rng.uniform(0.1, 0.16)) ** 2))
    light *= 1.0 - 0.9 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)

    tone = np.array((0.86, 0.46, 0.39)) + rng.uniform(-0.06, 0.06) * np.array((0.4, 1.0, 1.0))
    patches = 0.05 * noise(rng, 4, size) + 0.025 * noise(rng, 16, size)
    vessels = np.clip(1.0 - np.abs(noise(rng, 8, size)) / 0.13, 0.0, 1.0) * np.clip(noise(rng, 3, size), 0.0, 1.0)
    shift = (patches - 0.12 * vessels)[..., None] * np.array((0.5, 1.0, 0.9))
    return light, (tone + shift) * light[..., None] * np.array((1.0, 0.97, 0.95))


def _endoscope_border(rng: np.random.Generator, size: int) -> np.ndarray:
    """What the instrument lets through, (size, size) in [0, 1]: a disc, or a square with cut corners."""
    x, y = np.abs(_grid(size) - 0.5)
    if rng.random() < 0.5:
        distance = np.hypot(x, y) - rng.uniform(0.51, 0.56)
    else:
        distance = np.maximum(np.maximum(x, y) - 0.49, (x + y - rng.uniform(0.78, 0.86)) / np.sqrt(2))
    return coverage(distance, size, softness=0.008)


# --- organs

ORGAN_SIZES = (0.028, 0.06)
_REFERENCE = 128  # side at which organs, which may cover each other, are measured


@dataclass(frozen=True)
class _Organ:
    """How an organ is drawn before variation: centre, radii at 8 angles from the image's right clockwise, words."""

    centre: tuple[float, float]
    radii: tuple[float, ...]
    shape: str
    general: tuple[str, ...]


ORGANS = {
    "liver": _Organ((0.29, 0.43), (0.27, 0.15, 0.17, 0.18, 0.18, 0.18, 0.17, 0.19), "wedge-shaped",
                    ("the largest organ of the abdomen", "a large gland under the right ribs")),
    "stomach": _Organ((0.63, 0.36), (0.13, 0.12, 0.09, 0.10, 0.12, 0.09, 0.085, 0.10), "oval",
                      ("a hollow organ in front of the spleen", "a pouch that holds food and gas")),
    "spleen": _Organ((0.815, 0.53), (0.075, 0.11, 0.14, 0.09, 0.055, 0.085, 0.14, 0.10), "crescent-shaped",
                     ("a soft organ beside the left ribs", "an organ at the outer left of the abdomen")),
    "left kidney": _Organ((0.665, 0.645), (0.085, 0.085, 0.095, 0.08, 0.06, 0.08, 0.09, 0.085), "bean-shaped",
                          ("an organ beside the spine that makes urine", "the kidney of the left side")),
    "right kidney": _Organ((0.335, 0.66), (0.06, 0.08, 0.095, 0.085, 0.085, 0.085, 0.09, 0.08), "bean-shaped",
                           ("an organ beside the spine that makes urine", "the kidney of the right side")),
}


def _paint_organs(rng: np.random.Generator, size: int) -> Scene:
    """An axial slice of an abdomen, seen from the feet; three of its organs are the targets."""
    pose = _Pose(rng)
    outlines = {name: pose.outline(organ.centre, organ.radii, rng) for name, organ in ORGANS.items()}
    tones = {name: float(rng.uniform(0.50, 0.62)) for name in ORGANS}
    chosen = [list(ORGANS)[number] for number in sorted(rng.choice(len(ORGANS), size=3, replace=False))]
    owner, reference = (_owner(list(outlines.values()), side) for side in (size, _REFERENCE))
    image = _paint_slice(rng, size, pose, outlines, tones)
    targets = []
    for name in chosen:
        number, organ = list(ORGANS).index(name), ORGANS[name]
        area, place = _measure(reference == number)
        attributes = {"number": "one", "size": size_word(area, ORGAN_SIZES), "location": location_word(*place),
                      "shape": organ.shape, "colour": "light grey" if tones[name] > 0.56 else "grey"}
        prompts = cumulative_prompts(name, organ.shape, attributes, organ.general)
        targets.append(Target(name, owner == number, attributes, prompts | {"unique": [name]}))
    return Scene(to_uint8(np.repeat(image[..., None], 3, axis=2)), targets)


class _Pose:
    """How one patient lies and is built: moves and scales every structure together.

    Points (x, y) and lengths are those of a standard slice, with the body's centre at (0.5, 0.5).
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.shift = rng.uniform(-0.02, 0.02, size=2)
        self.scale = rng.uniform(0.93, 1.04, size=2)
        self.turn = rng.uniform(-0.08, 0.08)

    def place(self, centre: tuple[float, float]) -> tuple[float, float]:
        """Where a point of the standard slice lies."""
        x, y = (np.array(centre) - 0.5) * self.scale
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return 0.5 + self.shift[0] + float(cos * x - sin * y), 0.5 + self.shift[1] + float(sin * x + cos * y)

    def outline(self, centre: tuple[float, float], radii: tuple[float, ...],
                rng: np.random.Generator | None = None) -> Outline:
        """Smooth outline through `radii` at equal steps of angle; with `rng` varied in place, size and form."""
        place, radius = np.array(self.place(centre)), smooth_radius(radii) * self.scale.mean()
        turn = self.turn
        if rng:
            place += rng.uniform(-0.012, 0.012, size=2)
            turn += rng.uniform(-0.15, 0.15)
            radius *= rng.uniform(0.92, 1.1) * smooth_radius(1.0 + 0.05 * rng.standard_normal(8))
        return Outline((float(place[0]), float(place[1])), np.roll(radius, round(turn * len(ANGLES) / (2 * np.pi))))


def _owner(outlines: list[Outline], size: int) -> np.ndarray:
    """Number of the structure seen at each pixel (size, size), -1 where none; later ones lie in front."""
    owner = np.full((size, size), -1)
    for number, outline in enumerate(outlines):
        window = outline.window(size)
        owner[window][outline.distance(size, window) < 0] = number
    return owner


def _measure(mask: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Area fraction and centre of gravity (x, y) of a mask, in unit coordinates."""
    rows, columns = np.nonzero(mask)
    return float(mask.mean()), (float(columns.mean() + 0.5) / len(mask), float(rows.mean() + 0.5) / len(mask))


def _paint_slice(rng: np.random.Generator, size: int, pose: _Pose, organs: dict[str, Outline],
                 tones: dict[str, float]) -> np.ndarray:
    """Grey image (size, size) of the slice: body wall, bowel, vessels, organs, bones, noise of the scanner."""
    image = np.full((size, size), 0.02)

    def fill(outline: Outline, tone: float, texture: float = 0.0, cells: int = 20) -> None:
        window = outline.window(size)
        grey = tone + (texture * noise(rng, cells, size)[window] if texture else 0.0)
        _blend(image[window], grey, coverage(outline.distance(size, window), size, softness=0.009))

    def disc(x: float, y: float, radius: float, tone: float, texture: float = 0.0) -> None:
        fill(pose.outline((x, y), (radius,) * 8), tone, texture)

    ellipse = 1.0 / np.hypot(np.cos(ANGLES) / 0.47, np.sin(ANGLES) / 0.385)
    body = pose.outline((0.5, 0.5), ellipse * (1.0 + 0.03 * np.cos(4 * ANGLES)))
    fat = rng.uniform(0.022, 0.045)
    fill(body, 0.36)
    fill(Outline(body.centre, body.radius - 0.008), 0.21, texture=0.012)
    fill(Outline(body.centre, body.radius - fat), 0.47, texture=0.02)
    fill(Outline(body.centre, body.radius - fat - 0.028), 0.24, texture=0.02)

    for _ in range(9):
        loop = pose.outline((rng.uniform(0.38, 0.72), rng.uniform(0.3, 0.56)), (rng.uniform(0.025, 0.045),) * 8, rng)
        fill(loop, rng.uniform(0.40, 0.55), texture=0.03)
    for side in (-1, 1):
        disc(0.5 + 0.085 * side, 0.675, 0.042, 0.47, 0.02)
        disc(0.5 + 0.10 * side, 0.79, 0.062, 0.47, 0.03)
    disc(0.535, 0.565, 0.027, 0.60)
    disc(0.455, 0.57, 0.03, 0.57)

    for name, outline in organs.items():
        fill(outline, tones[name], texture=0.016, cells=14)
        if name.endswith("kidney"):
            inward = 0.022 if name == "right kidney" else -0.022
            sinus = Outline((outline.centre[0] + inward, outline.centre[1]), 0.3 * outline.radius)
            fill(sinus, tones[name] - 0.14)
        if name == "stomach" and rng.random() < 0.5:
            x, y = outline.centre
            fill(Outline((x, y - 0.03), 0.45 * outline.radius), 0.06)

    disc(0.5, 0.655, 0.062, 0.80, 0.04)
    disc(0.5, 0.655, 0.048, 0.66, 0.05)
    disc(0.5, 0.745, 0.034, 0.85)
    disc(0.5, 0.738, 0.021, 0.42)
    fill(pose.outline((0.5, 0.80), (0.014, 0.017, 0.045, 0.017, 0.014, 0.017, 0.03, 0.017)), 0.85)
    for angle in np.linspace(0.15, 2 * np.pi + 0.15, 13, endpoint=False) + rng.uniform(-0.08, 0.08, size=13):
        if np.sin(angle) > -0.8 and abs(np.cos(angle)) > 0.3:
            inside = body.radius[int(angle * len(ANGLES) / (2 * np.pi)) % len(ANGLES)] - fat - 0.02
            rib = np.roll(smooth_radius((0.012, 0.014, 0.03, 0.014, 0.012, 0.014, 0.03, 0.014)), int(angle * 114.6))
            fill(Outline((body.centre[0] + inside * np.cos(angle), body.centre[1] + inside * np.sin(angle)), rib), 0.88)
    return image + 0.03 * noise(rng, 110, size) + 0.015 * noise(rng, 40, size)


# --- shared


def _grid(size: int) -> np.ndarray:
    """Unit coordinates x and y of the pixel centres, (2, size, size)."""
    step = (np.arange(size) + 0.5) / size
    return np.stack(np.meshgrid(step, step))


def _blend(image: np.ndarray, paint: np.ndarray | float, alpha: np.ndarray) -> None:
    """Cover `image` (h, w) or (h, w, 3), in place, with `paint` where alpha (h, w) is 1."""
    alpha = alpha.reshape(alpha.shape + (1,) * (image.ndim - 2))
    image += alpha * (paint - image)


_PAINTERS: dict[str, Callable[[np.random.Generator, int], Scene]] = {
    "scenes": _paint_scene, "lesions": _paint_lesion, "organs": _paint_organs,
}
