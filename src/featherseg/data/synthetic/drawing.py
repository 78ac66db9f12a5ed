"""Drawing in unit coordinates: outlines, soft edges and smooth noise that look the same at any size.

The image is the square from (0, 0) at its top left corner to (1, 1); y points down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

ANGLES = np.linspace(0.0, 2.0 * np.pi, 720, endpoint=False)


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

    @property
    def reach(self) -> float:
        """Distance from the centre to the farthest point."""
        return float(self.radius.max())

    def window(self, size: int, margin: float = 0.0) -> tuple[slice, slice]:
        """Rows and columns of a (size, size) image that hold the outline and `margin` around it."""
        reach = self.reach + margin + 1.5 / size
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
        rho, position = np.hypot(x, y), np.arctan2(y, x) / ANGLES[1] % len(ANGLES)
        lower = position.astype(np.intp)
        table = np.concatenate([self.radius[-1:], self.radius, self.radius[:2]])
        radius = table[lower + 1] + (position - lower) * (table[lower + 2] - table[lower + 1])
        slope = (table[2:] - table[:-2]) / (2.0 * ANGLES[1] * table[1:-1])
        outer = (rho - radius) / np.sqrt(1.0 + slope**2)[lower]
        return np.maximum(outer, self.hole * radius - rho) if self.hole else outer


def coverage(distance: np.ndarray, size: int, softness: float = 0.0) -> np.ndarray:
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


def noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Smooth random field (size, size) of about unit deviation with `cells` bumps along a side.

    Bumps smaller than a pixel are averaged, as a camera would.
    """
    lattice = rng.standard_normal((cells + 3, cells + 3))
    weights = _spline(cells, size)
    return 2.0 * weights @ lattice @ weights.T


def polygon_radius(vertices: np.ndarray) -> np.ndarray:
    """Distance from the origin to a polygon (n, 2) around it at each of ANGLES; rays may cross it once."""
    start, end = vertices, np.roll(vertices, -1, axis=0)
    rays = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    edge = end - start
    across = rays[:, :1] * edge[None, :, 1] - rays[:, 1:] * edge[None, :, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        along_ray = (start[:, 0] * edge[:, 1] - start[:, 1] * edge[:, 0]) / across
        along_edge = (start[None, :, 0] * rays[:, 1:] - start[None, :, 1] * rays[:, :1]) / across
    hit = (along_ray > 0) & (along_edge >= -1e-9) & (along_edge <= 1 + 1e-9)
    return np.where(hit, along_ray, np.inf).min(axis=1)


def smooth_radius(radii: Sequence[float] | np.ndarray) -> np.ndarray:
    """Distances at a few equal steps of angle made a smooth curve: their Fourier series at each of ANGLES."""
    return np.fft.irfft(np.fft.rfft(radii), len(ANGLES)) * (len(ANGLES) / len(radii))


def grid(size: int) -> np.ndarray:
    """Unit coordinates x and y of the pixel centres, (2, size, size)."""
    step = (np.arange(size) + 0.5) / size
    return np.stack(np.meshgrid(step, step))


def ellipse(across: float, down: float) -> np.ndarray:
    """Distance from an ellipse's centre to its edge at each of ANGLES, from its half axes."""
    return 1.0 / np.hypot(np.cos(ANGLES) / across, np.sin(ANGLES) / down)


def steps(turn: float) -> int:
    """An angle in radians as a number of steps of ANGLES."""
    return round(turn / ANGLES[1])


def blend(image: np.ndarray, paint: np.ndarray | float, alpha: np.ndarray) -> None:
    """Cover `image` (h, w) or (h, w, 3), in place, with `paint` where alpha (h, w) is 1."""
    alpha = alpha.reshape(alpha.shape + (1,) * (image.ndim - 2))
    image += alpha * (paint - image)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Colours in [0, 1], clipped where beyond, as uint8."""
    return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
