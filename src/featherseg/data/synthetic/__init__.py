"""Pictures that the project draws itself, with masks, attributes and prompts: the stand-ins for real data.

One (name, index, seed) is the same picture, with the same attributes and prompts, at any size.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from featherseg.core.errors import UserError
from featherseg.data.splits import split_by_hash
from featherseg.data.synthetic import lesions, organs, scenes, scenes_ref
from featherseg.data.synthetic.scenes import scene_prompts
from featherseg.data.synthetic.targets import Scene, Target

__all__ = ["DESCRIPTIONS", "NAMES", "Scene", "Target", "draw", "prepare_synthetic", "scene_prompts", "synthetic_splits"]

_SETS = {"scenes": scenes, "lesions": lesions, "organs": organs, "scenes_ref": scenes_ref}
_SMALLEST = 16  # side in pixels
NAMES = tuple(_SETS)  # a set's place is part of its seed
DESCRIPTIONS = {name: module.DESCRIPTION for name, module in _SETS.items()}


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
    if name not in _SETS:
        raise UserError(f"There is no synthetic set {name!r}; choose one of {', '.join(NAMES)}.")
    if index < 0 or seed < 0 or size < _SMALLEST:
        raise UserError(f"Synthetic set {name!r}: index {index} and seed {seed} must be at least 0, and size "
                        f"{size} at least {_SMALLEST} pixels.")
    return _SETS[name].paint(np.random.default_rng([NAMES.index(name), seed, index]), size)


def synthetic_splits(name: str, images: int, seed: int) -> Iterator[str]:
    """The split of each image of a set, in order: the set's own, else by the hash of the image's id.

    Raises:
        UserError: unknown name, or a number out of range.
    """
    return (_split(_image_id(name, index), draw(name, index, seed, _SMALLEST)) for index in range(images))


def prepare_synthetic(name: str, images: int, size: int, seed: int, out_dir: Path | str,
                      finish: Callable[[Path], None] | None = None) -> None:
    """Draw `images` images of a set into a prepared dataset.

    The set says how it is split; where it does not, 60/20/20 by hash of the image's id.
    `finish` gets the complete folder before it takes its place (`PreparedWriter`).

    Raises:
        UserError: unknown name, a number out of range, or the folder cannot be written.
    """
    from featherseg.data.prepared import PreparedWriter

    if images < 1:
        raise UserError(f"Synthetic set {name!r}: images is {images}, but a dataset needs at least 1.")
    with PreparedWriter(out_dir, dataset=name, finish=finish) as writer:
        for index in range(images):
            scene, image_id = draw(name, index, seed, size), _image_id(name, index)
            writer.add_image(image_id, scene.image)
            for target in scene.targets:
                writer.add_sample(image_id=image_id, target=target.name, mask=target.mask,
                                  split=_split(image_id, scene), prompts=target.prompts,
                                  attributes=target.attributes)


def _image_id(name: str, index: int) -> str:
    return f"{name}_{index:05d}"


def _split(image_id: str, scene: Scene) -> str:
    return scene.split or split_by_hash(image_id)
