"""Lesions: one salient growth on the wall of a bowel, seen through an endoscope; the prompt adds nothing."""

import numpy as np

from featherseg.data.prompts.wording import location_word
from featherseg.data.synthetic.drawing import (
    ANGLES,
    Outline,
    blend,
    coverage,
    ellipse,
    grid,
    noise,
    to_uint8,
)
from featherseg.data.synthetic.targets import (
    Scene,
    Target,
    clear_coordinate,
    cumulative_prompts,
    size_word,
)

DESCRIPTION = (
    "A view into a tube of pink mucosa with folds, vessels, wet highlights and the dark border of an "
    "endoscope, and in it one raised lesion. It stands for polyp segmentation in colonoscopy: the image "
    "alone says what to segment, the prompt adds nothing that is needed."
)
SIZE_LIMITS = (0.0525, 0.11)  # area fractions between small, medium and large
_AREAS = {"small": (0.028, 0.045), "medium": (0.06, 0.095), "large": (0.125, 0.185)}
_COLOURS = {
    "pink": (0.93, 0.56, 0.53), "red": (0.72, 0.17, 0.16), "brown": (0.55, 0.30, 0.20),
    "white": (0.95, 0.86, 0.80), "yellow": (0.90, 0.73, 0.42),
}
_GENERAL = (
    "a raised growth on the lining of the bowel", "a bump that stands out from the smooth wall around it",
    "a swelling with a surface unlike the mucosa near it", "a patch of abnormal tissue in the colon",
)


def paint(rng: np.random.Generator, size: int) -> Scene:
    """One lesion on the wall of a bowel, seen through an endoscope."""
    outline, attributes = _place_lesion(rng)
    x, y = grid(size)
    light, tissue = _mucosa(rng, size, outline)
    image = tissue * light[..., None]
    window = outline.window(size, margin=0.05)
    distance = outline.distance(size, window)
    reach = np.sqrt(outline.area / np.pi)

    toward = np.arctan2(0.5 - outline.centre[1], 0.5 - outline.centre[0]) + rng.uniform(-0.8, 0.8)
    ahead = (x - outline.centre[0]) * np.cos(toward) + (y - outline.centre[1]) * np.sin(toward)
    side = ahead[window] / reach
    shadow = np.exp(-np.maximum(distance, 0.0) / 0.025) * np.clip(0.25 - 0.5 * side, 0.0, 0.5)
    image[window] *= 1.0 - shadow[..., None]

    height = np.clip(-distance / reach, 0.0, 1.0)
    dome = 0.80 + 0.30 * np.sqrt(height) + 0.16 * side * (1.0 - height)
    bumps = 0.06 * noise(rng, 26, size) + 0.06 * noise(rng, 11, size)
    colour = np.array(_COLOURS[attributes["colour"]]) + 0.02 * rng.standard_normal(3)
    inside = distance < 0
    lit = 0.65 * light[window][inside].mean() + 0.35 * light[window]
    shaded = (lit * (dome + bumps[window]))[..., None]
    surface = (rng.uniform(0.55, 0.85) * (colour - tissue[window]) + tissue[window]) * shaded
    blend(image[window], surface, coverage(distance, size, softness=0.016))

    wet = 2.2 * (noise(rng, 70, size) + 0.9 * noise(rng, 12, size) + 1.2 * light - 4.0)
    glint = np.array(outline.centre) + 0.35 * reach * np.array((np.cos(toward), np.sin(toward)))
    spot = np.exp(-((x - glint[0]) ** 2 + (y - glint[1]) ** 2) / (0.16 * reach) ** 2)
    wet += 2.2 * spot * (1.0 + 0.6 * noise(rng, 30, size)) - 0.6 * (spot > 0.01)
    blend(image, np.array((1.0, 0.98, 0.95)), 0.8 * np.clip(wet, 0.0, 1.0) * np.clip(light, 0.0, 1.0))

    image *= _endoscope_border(rng, size)[..., None]
    image += 0.012 * noise(rng, 120, size)[..., None]
    mask = np.zeros((size, size), dtype=bool)
    mask[window] = inside
    prompts = cumulative_prompts("lesion", attributes["shape"], attributes, _GENERAL)
    return Scene(to_uint8(image), [Target("lesion", mask, attributes, prompts | {"unique": ["lesion"]})])


def _place_lesion(rng: np.random.Generator) -> tuple[Outline, dict[str, str]]:
    """Outline of a lesion inside the round view, and its attributes, measured from the outline."""
    shape = ("round", "oval", "irregular")[rng.integers(3)]
    size = tuple(_AREAS)[rng.integers(len(_AREAS))]
    colour = tuple(_COLOURS)[rng.integers(len(_COLOURS))]
    stretch = rng.uniform(*{"round": (1.0, 1.1), "oval": (1.45, 1.8), "irregular": (1.0, 1.25)}[shape])
    wobble = 0.14 if shape == "irregular" else 0.02
    radius = np.roll(ellipse(stretch, 1.0), rng.integers(len(ANGLES)))
    for wave in (2, 3, 5) if shape == "irregular" else (3, 5, 7):
        radius += wobble * rng.uniform(0.5, 1.0) * np.cos(wave * ANGLES + rng.uniform(0, 2 * np.pi))
    radius *= np.sqrt(rng.uniform(*_AREAS[size]) / Outline((0, 0), radius).area)
    while True:
        outline = Outline((clear_coordinate(rng, 0.1), clear_coordinate(rng, 0.1)), radius)
        if np.hypot(outline.centre[0] - 0.5, outline.centre[1] - 0.5) + outline.reach < 0.5:
            break
    attributes = {"number": "one", "size": size_word(outline.area, SIZE_LIMITS),
                  "location": location_word(*outline.centroid), "shape": shape, "colour": colour}
    return outline, attributes


def _mucosa(rng: np.random.Generator, size: int, lesion: Outline) -> tuple[np.ndarray, np.ndarray]:
    """Light (size, size) and colour (size, size, 3) of a bowel's wall, its dark lumen clear of the lesion."""
    x, y = grid(size)
    away = np.arctan2(0.5 - lesion.centre[1], 0.5 - lesion.centre[0]) + rng.uniform(-1.0, 1.0)
    far = lesion.reach + rng.uniform(0.12, 0.25)
    lumen = lesion.centre[0] + far * np.cos(away), lesion.centre[1] + far * np.sin(away)
    depth = np.hypot(x - lumen[0], (y - lumen[1]) * rng.uniform(0.8, 1.2))
    depth *= np.exp(0.16 * noise(rng, 3, size))

    # Towards the lumen each fold brightens up to its crest, behind which the next one begins in its shadow.
    turns = -rng.uniform(1.3, 2.0) * np.log(depth + 0.07) + 0.25 * noise(rng, 3, size) + rng.uniform(0, 1)
    fold = turns % 1.0
    behind = np.clip((fold - 0.9) / 0.1, 0.0, 1.0)
    crest = fold**2 * (1.0 - behind**2 * (3.0 - 2.0 * behind)) - 0.3 * np.exp(-fold / 0.12) * (1.0 - behind)
    strength = np.clip(0.6 + 0.5 * noise(rng, 2, size), 0.0, 1.2)
    light = 0.88 + 0.42 * strength * crest + 0.05 * noise(rng, 5, size)
    light *= 1.0 - 0.85 * np.exp(-((depth / rng.uniform(0.1, 0.16)) ** 2))
    light *= 1.0 - 0.9 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)

    tone = np.array((0.86, 0.46, 0.39)) + rng.uniform(-0.06, 0.06) * np.array((0.4, 1.0, 1.0))
    patches = 0.05 * noise(rng, 4, size) + 0.025 * noise(rng, 16, size)
    vessels = np.clip(1.0 - np.abs(noise(rng, 8, size)) / 0.13, 0.0, 1.0)
    vessels *= np.clip(noise(rng, 3, size), 0.0, 1.0)
    shift = (patches - 0.12 * vessels)[..., None] * np.array((0.5, 1.0, 0.9))
    return light, tone + shift


def _endoscope_border(rng: np.random.Generator, size: int) -> np.ndarray:
    """What the instrument lets through, (size, size) in [0, 1]: a disc, or a square with cut corners."""
    x, y = np.abs(grid(size) - 0.5)
    if rng.random() < 0.5:
        distance = np.hypot(x, y) - rng.uniform(0.51, 0.56)
    else:
        distance = np.maximum(np.maximum(x, y) - 0.49, (x + y - rng.uniform(0.78, 0.86)) / np.sqrt(2))
    return coverage(distance, size, softness=0.008)
