"""Pictures that the project draws itself, with masks, attributes and prompts: the stand-ins for real data.

Everything is drawn in unit coordinates (the image is the square from (0, 0) at its top left corner to (1, 1)),
so that one (name, index, seed) is the same picture at any size, with the same attributes and prompts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from featherseg.errors import UserError

NAMES = ("scenes", "lesions", "organs")
LOCATIONS = (("top left", "top", "top right"), ("left", "center", "right"), ("bottom left", "bottom", "bottom right"))
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart")
COLOURS = {
    "red": (0.84, 0.12, 0.12), "orange": (0.98, 0.55, 0.08), "yellow": (0.96, 0.88, 0.15), "green": (0.15, 0.62, 0.2),
    "blue": (0.12, 0.3, 0.85), "purple": (0.55, 0.18, 0.68), "white": (0.97, 0.97, 0.97), "black": (0.05, 0.05, 0.06),
}  # fmt: skip
RADII = {"small": (0.086, 0.098), "medium": (0.118, 0.138), "large": (0.163, 0.188)}
SIZE_LIMITS = (0.034, 0.068)  # area fractions that part small, medium and large scene objects
ANGLES = np.linspace(0.0, 2.0 * np.pi, 720, endpoint=False)


@dataclass(frozen=True)
class Target:
    """One structure that a prompt can ask for.

    `mask` is bool (size, size), the visible part. `attributes` holds number, size, location, shape and colour.
    `prompts` holds the cumulative levels "p0".."p9" and "unique", the shortest prompt that singles this target
    out in its image.
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
    targets: list[Target] = field(default_factory=list)


@dataclass(frozen=True)
class Outline:
    """A closed outline in unit coordinates, given by its distance from `centre` (x, y) at each of ANGLES.

    `hole` is the part of that distance that is cut out around the centre (a ring has one).
    """

    centre: tuple[float, float]
    radius: np.ndarray
    hole: float = 0.0

    @property
    def area(self) -> float:
        """Area as a fraction of the image."""
        return float(np.pi * np.mean(self.radius**2) * (1.0 - self.hole**2))

    @property
    def centroid(self) -> tuple[float, float]:
        """Centre of gravity (x, y)."""
        moment = 2.0 / 3.0 * np.mean(self.radius**3 * np.stack([np.cos(ANGLES), np.sin(ANGLES)]), axis=1)
        shift = moment / np.mean(self.radius**2) * (1.0 - self.hole**3) / (1.0 - self.hole**2)
        return self.centre[0] + float(shift[0]), self.centre[1] + float(shift[1])

    def window(self, size: int, margin: float = 0.0) -> tuple[slice, slice]:
        """Rows and columns of a (size, size) image that hold the outline and `margin` around it."""
        reach = float(self.radius.max()) + margin + 1.5 / size
        rows, columns = (
            slice(max(0, int((at - reach) * size)), min(size, int((at + reach) * size) + 2))
            for at in (self.centre[1], self.centre[0])
        )
        return rows, columns

    def distance(self, size: int, window: tuple[slice, slice]) -> np.ndarray:
        """Distance to the outline at the pixel centres of `window`, negative inside, float (h, w).

        First order: the radial distance over the length of its gradient, exact on the outline itself.
        """
        y = (np.arange(size)[window[0], None] + 0.5) / size - self.centre[1]
        x = (np.arange(size)[None, window[1]] + 0.5) / size - self.centre[0]
        rho, theta = np.hypot(x, y), np.arctan2(y, x) % (2.0 * np.pi)
        slope = (np.roll(self.radius, -1) - np.roll(self.radius, 1)) / (2.0 * ANGLES[1] * self.radius)
        radius = _at(theta, self.radius)
        outer = (rho - radius) / _at(theta, np.hypot(1.0, slope))
        return np.maximum(outer, self.hole * radius - rho) if self.hole else outer


def draw(name: str, index: int, seed: int, size: int) -> Scene:
    """Draw image `index` of a synthetic set.

    Args:
        name: one of NAMES.
        index: number of the image, from 0; images of different numbers are independent.
        seed: seed of the whole set.
        size: side of the square image in pixels.

    Raises:
        UserError: the name is unknown, or a number is out of range.
    """
    if name not in PAINTERS:
        raise UserError(f"There is no synthetic set '{name}'; choose one of {', '.join(NAMES)}.")
    if index < 0 or seed < 0 or size < 16:
        raise UserError(
            f"Synthetic set '{name}': index {index} and seed {seed} must be at least 0, size {size} at least 16 pixels."
        )
    return PAINTERS[name](np.random.default_rng([NAMES.index(name), seed, index]), size)


def prepare_synthetic(name: str, images: int, size: int, seed: int, out_dir: Path | str) -> None:
    """Draw `images` images of a set and write them as a prepared dataset, split 60/20/20 by hash of the image.

    Raises:
        UserError: unknown name, a number out of range, or the folder cannot be written.
    """
    from featherseg.data.prepared import PreparedWriter, split_by_hash

    if images < 1:
        raise UserError(f"Synthetic set '{name}': images is {images}, but a dataset needs at least 1.")
    with PreparedWriter(out_dir, dataset=name) as writer:
        for index in range(images):
            image_id = f"{name}_{index:05d}"
            scene = draw(name, index, seed, size)
            writer.add_image(image_id, scene.image)
            for target in scene.targets:
                writer.add_sample(
                    image_id=image_id, target=target.name, mask=target.mask, split=split_by_hash(image_id),
                    group=image_id, prompts=target.prompts, attributes=target.attributes,
                )  # fmt: skip


# ---------------------------------------------------------------- words


def location_word(x: float, y: float) -> str:
    """Word of the 3 x 3 grid for a point in unit coordinates, as the viewer sees the image."""
    return LOCATIONS[min(2, int(y * 3))][min(2, int(x * 3))]


def size_word(area_fraction: float, limits: tuple[float, float]) -> str:
    """Word for an area as a fraction of the image, parted by two limits."""
    return ("small", "medium", "large")[int(area_fraction >= limits[0]) + int(area_fraction >= limits[1])]


def cumulative_prompts(noun: str, shape: str, attributes: dict[str, str], general: list[str]) -> dict[str, list[str]]:
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


# ---------------------------------------------------------------- drawing


def _at(theta: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A table over ANGLES read at the angles `theta` in [0, 2 pi], linear between entries."""
    position = theta * (len(table) / (2.0 * np.pi))
    lower = position.astype(np.intp)
    wrapped = np.append(table, table[:2])
    return wrapped[lower] + (position - lower) * (wrapped[lower + 1] - wrapped[lower])


def _coverage(distance: np.ndarray, size: int, softness: float = 0.0) -> np.ndarray:
    """Share of each pixel inside, from the distance; `softness` widens the edge beyond one pixel."""
    return np.clip(0.5 - distance / max(1.0 / size, softness), 0.0, 1.0)


@lru_cache(maxsize=64)
def _spline(cells: int, size: int) -> np.ndarray:
    """Cubic B-spline weights (size, cells + 3) of lattice points, averaged over each pixel's width."""
    samples = max(1, -(-4 * cells // size))
    position = (np.arange(size * samples) + 0.5) / (size * samples) * cells
    cell = np.minimum(position.astype(np.intp), cells - 1)
    t = position - cell
    weights = np.zeros((size * samples, cells + 3))
    pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for offset, piece in enumerate(pieces):
        weights[np.arange(size * samples), cell + offset] = piece / 6.0
    return weights.reshape(size, samples, -1).mean(axis=1)


def _noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Smooth random field (size, size) of about unit deviation with `cells` bumps along a side.

    Bumps smaller than a pixel are averaged, as a camera would.
    """
    lattice = rng.standard_normal((cells + 3, cells + 3))
    weights = _spline(cells, size)
    return 2.0 * weights @ lattice @ weights.T


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


# ---------------------------------------------------------------- scenes


def _polygon_radius(vertices: np.ndarray) -> np.ndarray:
    """Distance from the origin to a polygon (n, 2) around it, at each of ANGLES; it must be seen whole from there."""
    start, end = vertices, np.roll(vertices, -1, axis=0)
    rays = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    edge = end - start
    across = rays[:, :1] * edge[None, :, 1] - rays[:, 1:] * edge[None, :, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        along_ray = (start[:, 0] * edge[:, 1] - start[:, 1] * edge[:, 0]) / across
        along_edge = (start[None, :, 0] * rays[:, 1:] - start[None, :, 1] * rays[:, :1]) / across
    hit = (along_ray > 0) & (along_edge >= -1e-9) & (along_edge <= 1 + 1e-9)
    return np.where(hit, along_ray, np.inf).min(axis=1)


@lru_cache(maxsize=1)
def _shape_outlines() -> dict[str, Outline]:
    """Outline of each shape around the origin, scaled to the area of a unit circle, upright (y points down)."""

    def regular(corners: int, inner: float = 1.0) -> np.ndarray:
        turn = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
        length = np.where(np.arange(corners) % 2, inner, 1.0)
        return np.stack([length * np.cos(turn), length * np.sin(turn)], axis=1)

    t = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    heart = [16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))]
    arm = 0.36
    quarter = np.array([(1, -arm), (1, arm), (arm, arm)])
    turns = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    vertices = {
        "square": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]), "triangle": regular(3), "star": regular(10, 0.45),
        "cross": np.concatenate([quarter @ turn for turn in turns]), "heart": np.stack(heart, axis=1),
    }  # fmt: skip
    radii = {"circle": np.ones_like(ANGLES), "ring": np.ones_like(ANGLES)}
    radii |= {shape: _polygon_radius(points) for shape, points in vertices.items()}
    outlines = {shape: Outline((0.0, 0.0), radii[shape], 0.55 if shape == "ring" else 0.0) for shape in SHAPES}
    return {s: Outline((0.0, 0.0), o.radius * np.sqrt(np.pi / o.area), o.hole) for s, o in outlines.items()}


def _off_the_grid_lines(x: float, y: float, margin: float = 0.025) -> bool:
    """Whether a point's location word leaves no doubt."""
    return all(abs(value - line) > margin for value in (x, y) for line in (1 / 3, 2 / 3))


@dataclass(frozen=True)
class _Item:
    """One object of a scene: what it is and where."""

    outline: Outline
    attributes: dict[str, str]

    def phrases(self) -> list[str]:
        """Descriptions in order of length, most telling words first; the last has everything."""
        a = self.attributes
        noun, place = a["shape"], f"at the {a['location']}"
        red, small = f"{a['colour']} {noun}", f"{a['size']} {noun}"
        full = f"{a['size']} {a['colour']} {noun}"
        return [noun, red, small, f"{noun} {place}", full, f"{red} {place}", f"{small} {place}", f"{full} {place}"]


def _place_item(rng: np.random.Generator, placed: list[_Item]) -> _Item | None:
    """A further object beside those placed, None where this draw found no room or no description of its own."""
    shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
    if placed and rng.random() < 0.4:  # likeness to another object is what makes one word too few
        other = placed[rng.integers(len(placed))].attributes
        shape, colour = (other["shape"], colour) if rng.random() < 0.5 else (shape, other["colour"])
    size = ("small", "medium", "large")[rng.choice(3, p=(0.34, 0.36, 0.3))]
    form = _shape_outlines()[shape]
    turn = rng.uniform(-0.25, 0.25) * len(ANGLES) / (2 * np.pi)
    radius = np.roll(form.radius, round(turn)) * rng.uniform(*RADII[size])
    shift = np.array(Outline((0.0, 0.0), radius, form.hole).centroid)
    reach = float(radius.max())
    x, y = rng.uniform(0.9 * reach, 1 - 0.9 * reach, size=2) + shift
    attributes = {"number": "one", "size": size, "location": location_word(x, y), "shape": shape, "colour": colour}
    item = _Item(Outline((float(x - shift[0]), float(y - shift[1])), radius, form.hole), attributes)
    gaps = [
        np.hypot(x - shift[0] - p.outline.centre[0], y - shift[1] - p.outline.centre[1])
        - 0.92 * (reach + float(p.outline.radius.max()))
        for p in placed
    ]
    fits = _off_the_grid_lines(x, y) and all(gap > 0 for gap in gaps)
    return item if fits and all(p.attributes != attributes for p in placed) else None


def _paint_scene(rng: np.random.Generator, size: int) -> Scene:
    """Two to five coloured shapes on a textured background; the prompt picks one of them."""
    wanted, items = int(rng.integers(2, 6)), []
    for attempt in itertools.count():
        if len(items) == wanted or (attempt > 60 and len(items) >= 2):
            break
        if attempt and attempt % 200 == 0:
            items = []
        item = _place_item(rng, items)
        items += [item] if item else []

    image = _scene_background(rng, size)
    visible = np.full((size, size), -1, dtype=np.int8)
    for number, item in enumerate(items):
        window = item.outline.window(size)
        distance = item.outline.distance(size, window)
        light = 1.0 + 0.08 * rng.standard_normal() + 0.06 * _noise(rng, 5, size)[window]
        paint = (np.array(COLOURS[item.attributes["colour"]]) + 0.03 * rng.standard_normal(3)) * light[..., None]
        alpha = _coverage(distance, size)[..., None]
        image[window] = image[window] * (1.0 - alpha) + paint * alpha
        visible[window][distance < 0] = number
    image += 0.03 * _noise(rng, 96, size)[..., None]
    targets = [_scene_target(number, items, visible == number) for number in range(len(items))]
    return Scene(_to_uint8(image), targets)


def _scene_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A dull surface, float (size, size, 3): patches, grain, and on every other one stripes."""
    tone = rng.uniform(0.32, 0.62) + 0.05 * rng.standard_normal(3)
    field_ = 0.06 * _noise(rng, int(rng.integers(2, 7)), size) + 0.04 * _noise(rng, int(rng.integers(12, 40)), size)
    if rng.random() < 0.5:
        direction, period = rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.2)
        step = (np.arange(size) + 0.5) / size
        phase = np.cos(direction) * step[None, :] + np.sin(direction) * step[:, None]
        field_ += 0.05 * np.sin(2 * np.pi * phase / period + 0.6 * _noise(rng, 4, size))
    tint = 0.03 * np.stack([_noise(rng, 3, size) for _ in range(3)], axis=-1)
    return tone + field_[..., None] + tint


def _scene_target(number: int, items: list[_Item], mask: np.ndarray) -> Target:
    attributes = items[number].attributes
    others = [set(item.phrases()) for i, item in enumerate(items) if i != number]
    unique = next(phrase for phrase in items[number].phrases() if not any(phrase in other for other in others))
    prompts = cumulative_prompts("object", f"{attributes['shape']}-shaped", attributes, SCENE_DESCRIPTIONS)
    return Target(f"object_{number + 1}", mask, attributes, prompts | {"unique": [unique]})


SCENE_DESCRIPTIONS = ["a flat coloured shape", "a plain figure on a rough background", "a shape of a single colour"]


def scene_prompts(scene: Scene, target_index: int) -> list[str]:
    """Every prompt that singles out exactly one object of a scene, in many wordings; never empty.

    Each subset of the object's shape, colour, size and location that no other object of the scene shares is
    worded in several ways. The order is fixed, the first is the unique prompt.
    """
    target = scene.targets[target_index]
    mine, others = target.attributes, [t.attributes for i, t in enumerate(scene.targets) if i != target_index]
    keys = ("shape", "colour", "size", "location")
    subsets = [subset for n in range(1, 5) for subset in itertools.combinations(keys, n)]
    telling = [s for s in subsets if not any(all(other[key] == mine[key] for key in s) for other in others)]
    wordings = [wording for subset in telling for wording in _wordings({key: mine[key] for key in subset})]
    return list(dict.fromkeys([target.unique_prompt, *wordings]))


def _wordings(words: dict[str, str]) -> list[str]:
    """Ways to say one description of a scene object; `words` holds any of shape, colour, size, location."""
    before = [words[key] for key in ("size", "colour") if key in words]
    nouns = [words["shape"], f"{words['shape']}-shaped object"] if "shape" in words else ["object", "shape", "thing"]
    phrases = []
    for noun in nouns:
        phrase = " ".join([*before, noun])
        if "location" not in words:
            phrases += [phrase, f"the {phrase}", f"a photo of a {phrase}", f"one {phrase}"]
            continue
        place = words["location"]
        phrases += [f"{phrase} at the {place}", f"the {phrase} in the {place}", f"the {place} {phrase}"]
        phrases += [f"a {phrase} at the {place} of the image", f"one {phrase}, located in {place} of the image"]
    return phrases


PAINTERS: dict[str, Callable[[np.random.Generator, int], Scene]] = {"scenes": _paint_scene}
