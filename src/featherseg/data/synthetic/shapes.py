"""Plain coloured shapes on a textured surface: what scenes and scenes_ref are painted of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from featherseg.data.synthetic.drawing import ANGLES, Outline, blend, coverage, grid, noise, polygon_radius, to_uint8

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart")
COLOURS = {
    "red": (0.84, 0.12, 0.12), "orange": (0.98, 0.55, 0.08), "yellow": (0.96, 0.88, 0.15),
    "green": (0.15, 0.62, 0.2), "blue": (0.12, 0.3, 0.85), "purple": (0.55, 0.18, 0.68),
    "white": (0.97, 0.97, 0.97), "black": (0.05, 0.05, 0.06),
}


@dataclass(frozen=True)
class Item:
    """One object of a picture: where it is, and its number, size, location, shape and colour."""

    outline: Outline
    attributes: dict[str, str]


def paint_items(rng: np.random.Generator, items: Sequence[Item], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Paint items on a surface, later ones over earlier ones.

    Returns:
        The image, uint8 (size, size, 3), and for each pixel the number of the item that it shows, -1 for none.
    """
    image = background(rng, size)
    owner = np.full((size, size), -1)
    for number, item in enumerate(items):
        window = item.outline.window(size)
        distance = item.outline.distance(size, window)
        light = 1.0 + 0.08 * rng.standard_normal() + 0.06 * noise(rng, 5, size)[window]
        colour = np.array(COLOURS[item.attributes["colour"]]) + 0.03 * rng.standard_normal(3)
        blend(image[window], colour * light[..., None], coverage(distance, size))
        owner[window][distance < 0] = number
    image += 0.03 * noise(rng, 96, size)[..., None]
    return to_uint8(image), owner


@lru_cache(maxsize=1)
def shape_outlines() -> dict[str, Outline]:
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


def background(rng: np.random.Generator, size: int) -> np.ndarray:
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
