"""What a drawn image is made of: targets with masks, attributes and cumulative prompts."""

from dataclasses import dataclass, field

import numpy as np

from featherseg.data.prompts.wording import cumulative


@dataclass(frozen=True)
class Target:
    """One structure that a prompt can ask for.

    Attributes:
        name: unique in its image.
        mask: bool (size, size), the visible part.
        attributes: number, size, location, shape and colour.
        prompts: the cumulative levels "p0".."p9", and "unique": the shortest prompt that singles it out; a set of
            referring expressions has "sentences" too.
        expressions: in a set of referring expressions every one that singles it out, the shortest first.
    """

    name: str
    mask: np.ndarray
    attributes: dict[str, str]
    prompts: dict[str, list[str]]
    expressions: tuple[str, ...] = ()

    @property
    def unique_prompt(self) -> str:
        """The shortest prompt that no other target of the image fits."""
        return self.prompts["unique"][0]


@dataclass(frozen=True)
class Scene:
    """A drawn image.

    Attributes:
        image: uint8 (size, size, 3).
        targets: what prompts ask for.
        others: objects that no prompt asks for; they have no prompts.
        split: None where the hash of the image's id decides.
    """

    image: np.ndarray
    targets: list[Target]
    others: list[Target] = field(default_factory=list)
    split: str | None = None


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
    prompts = cumulative({**attributes, "shape": shape}, noun, general)
    if general:
        prompts["p9"] = [f"{prompt}, located in {attributes['location']} of the image" for prompt in prompts["p8"]]
    return prompts


def clear_coordinate(rng: np.random.Generator, border: float, margin: float = 0.025) -> float:
    """A random coordinate at least `border` inside the image and `margin` off the lines between locations."""
    while True:
        value = rng.uniform(border, 1.0 - border)
        if abs(value - 1 / 3) > margin and abs(value - 2 / 3) > margin:
            return value
