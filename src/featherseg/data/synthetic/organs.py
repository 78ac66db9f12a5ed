"""Organs: structures of much the same grey at their places in an abdomen; the prompt picks one."""

from dataclasses import dataclass

import numpy as np

from featherseg.data.prompts.wording import location_word
from featherseg.data.synthetic.drawing import (
    ANGLES,
    Outline,
    blend,
    coverage,
    ellipse,
    noise,
    smooth_radius,
    steps,
    to_uint8,
)
from featherseg.data.synthetic.targets import Scene, Target, cumulative_prompts, size_word

DESCRIPTION = (
    "An axial slice through an abdomen as in computed tomography, with three of liver, stomach, spleen, "
    "left and right kidney as targets, all of much the same grey, and bowel, muscle and bone beside them. "
    "It stands for multi-organ segmentation: the prompt decides. Slices are seen from the feet, as "
    "radiologists do: the patient's left is on the right of the image, so the left kidney is located in "
    "right of the image."
)
SIZE_LIMITS = (0.028, 0.06)  # area fractions between small, medium and large
_REFERENCE = 128  # side at which organs, which may cover each other, are measured


@dataclass(frozen=True)
class _Organ:
    """An organ before variation: centre, radii at 8 angles clockwise from the image's right, and words."""

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


def paint(rng: np.random.Generator, size: int) -> Scene:
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
        attributes = {"number": "one", "size": size_word(area, SIZE_LIMITS),
                      "location": location_word(*place), "shape": organ.shape,
                      "colour": "light grey" if tones[name] > 0.56 else "grey"}
        prompts = cumulative_prompts(name, organ.shape, attributes, organ.general)
        targets.append(Target(name, owner == number, attributes, prompts | {"unique": [name]}))
    return Scene(to_uint8(np.repeat(image[..., None], 3, axis=2)), targets)


class _Pose:
    """How one patient lies and is built: moves and scales every structure together.

    Points (x, y) and lengths are those of a standard slice, with the body's centre at (0.5, 0.5).
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.shift = rng.uniform(-0.02, 0.02, size=2)
        self.scale = rng.uniform((0.94, 1.0), (1.02, 1.15))
        self.turn = rng.uniform(-0.08, 0.08)

    def place(self, centre: tuple[float, float]) -> tuple[float, float]:
        """Where a point of the standard slice lies."""
        x, y = (np.array(centre) - 0.5) * self.scale
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return 0.5 + self.shift[0] + float(cos * x - sin * y), 0.5 + self.shift[1] + float(sin * x + cos * y)

    def outline(self, centre: tuple[float, float], radii: tuple[float, ...],
                rng: np.random.Generator | None = None) -> Outline:
        """Smooth outline through `radii` at equal steps of angle; `rng` varies its place, size and form."""
        place, radius = np.array(self.place(centre)), smooth_radius(radii) * self.scale.mean()
        turn = self.turn
        if rng is not None:
            place += rng.uniform(-0.012, 0.012, size=2)
            turn += rng.uniform(-0.15, 0.15)
            radius *= rng.uniform(0.92, 1.1) * smooth_radius(1.0 + 0.04 * rng.standard_normal(8))
        return Outline((float(place[0]), float(place[1])), np.roll(radius, steps(turn)))


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
    """Grey image (size, size) of the slice: wall, bowel, vessels, organs, bones, noise of the scanner."""
    image = np.full((size, size), 0.02)
    tissue = 0.7 * noise(rng, 24, size) + 0.7 * noise(rng, 9, size)

    def fill(outline: Outline, *layers: tuple[float, float, float]) -> None:
        """Paint layers (inset, grey, texture) one over the other, each `inset` inside the outline."""
        window = outline.window(size, margin=0.01)
        distance = outline.distance(size, window)
        for inset, grey, texture in layers:
            alpha = coverage(distance + inset, size, softness=0.009)
            blend(image[window], grey + texture * tissue[window], alpha)

    def disc(x: float, y: float, radius: float, *layers: tuple[float, float, float]) -> None:
        fill(Outline(pose.place((x, y)), np.full_like(ANGLES, radius * pose.scale.mean())), *layers)

    wall = rng.uniform(0.022, 0.045)
    squared = ellipse(0.465, 0.39) * (1.0 - 0.02 * np.cos(4 * ANGLES))
    body = Outline(pose.place((0.5, 0.5)), np.roll(squared, steps(pose.turn)) * pose.scale.mean())
    fill(body, (0, 0.36, 0), (0.008, 0.21, 0.012), (wall, 0.47, 0.02), (wall + 0.028, 0.24, 0.02))

    for step in range(0, len(ANGLES), len(ANGLES) // 12) + rng.integers(12, 45, size=12):
        across, down = np.cos(ANGLES[step]), np.sin(ANGLES[step])
        if down > -0.8 and abs(across) > 0.3:
            inside = body.radius[step] - wall - 0.016
            place = body.centre[0] + inside * across, body.centre[1] + inside * down
            fill(Outline(place, np.roll(ellipse(0.011, 0.028), step)), (0, 0.86, 0))
    for _ in range(6):
        place, radius = (rng.uniform(0.38, 0.72), rng.uniform(0.3, 0.56)), rng.uniform(0.025, 0.045)
        fill(pose.outline(place, (radius,) * 8, rng), (0, rng.uniform(0.40, 0.55), 0.03))
    for side in (-1, 1):
        disc(0.5 + 0.085 * side, 0.675, 0.042, (0, 0.47, 0.02))
        disc(0.5 + 0.10 * side, 0.79, 0.062, (0, 0.47, 0.03))
    disc(0.535, 0.565, 0.027, (0, 0.60, 0))
    disc(0.455, 0.57, 0.03, (0, 0.57, 0))

    for name, outline in organs.items():
        fill(outline, (-0.008, 0.28, 0), (0, tones[name], 0.018))
        x, y = outline.centre
        if name.endswith("kidney"):
            inward = 0.022 if name == "right kidney" else -0.022
            fill(Outline((x + inward, y), 0.3 * outline.radius), (0, tones[name] - 0.14, 0))
        if name == "stomach" and rng.random() < 0.5:
            fill(Outline((x, y - 0.03), 0.45 * outline.radius), (0, 0.06, 0))

    disc(0.5, 0.655, 0.062, (0, 0.80, 0.04), (0.014, 0.66, 0.05))
    disc(0.5, 0.745, 0.034, (0, 0.85, 0), (0.013, 0.42, 0))
    fill(Outline(pose.place((0.5, 0.805)), np.roll(ellipse(0.013, 0.04), steps(pose.turn))), (0, 0.85, 0))
    return image + 0.03 * noise(rng, 110, size) + 0.015 * noise(rng, 40, size)
