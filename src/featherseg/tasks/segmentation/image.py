"""Image interventions: what becomes of an image while the prompt stays as it is.

Each is a function `(picture, other, rng) -> image or None`: the image uint8 (H, W, 3), another image of the split
where there is one, and a generator; the result has the first one's size. None: it cannot be made here.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from featherseg.tasks.segmentation.interventions import Interventions

OWN, MEAN_COLOUR, OTHER_IMAGE, BLUR = "own", "mean_colour", "other_image", "blur"
BLUR_WIDTH = 1 / 12  # standard deviation as a fraction of the shorter side: large structures are left as shadows
PATCHES = 8  # along each side

Make = Callable[[np.ndarray, np.ndarray | None, np.random.Generator], np.ndarray | None]
IMAGE: Interventions[Make] = Interventions("image intervention")


@IMAGE.add(OWN, "own image")
def own(picture: np.ndarray, other: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """The image itself: no intervention."""
    return picture


@IMAGE.add(MEAN_COLOUR, "mean colour")
def mean_colour(picture: np.ndarray, other: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """The image's mean colour everywhere: the absent image."""
    return np.broadcast_to(_mean(picture).round().astype(np.uint8), picture.shape).copy()


@IMAGE.add(OTHER_IMAGE, "images permuted")
def other_image(picture: np.ndarray, other: np.ndarray | None, rng: np.random.Generator) -> np.ndarray | None:
    """The image that falls here when all images are permuted, brought to this one's size."""
    if other is None:
        return None
    height, width = picture.shape[:2]
    return other if other.shape == picture.shape else np.asarray(Image.fromarray(other).resize((width, height)))


@IMAGE.add("noise", "noise")
def noise(picture: np.ndarray, other: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Independent normal noise with the mean and the deviation of the image's channels."""
    spread = picture.reshape(-1, 3).std(axis=0, dtype=np.float64).astype(np.float32)
    drawn = rng.standard_normal(picture.shape, dtype=np.float32) * spread + _mean(picture).astype(np.float32)
    return np.clip(drawn, 0, 255).astype(np.uint8)


@IMAGE.add(BLUR, "blurred")
def blur(picture: np.ndarray, other: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """The image under a Gaussian of `BLUR_WIDTH` of its shorter side."""
    radius = BLUR_WIDTH * min(picture.shape[:2])
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


@IMAGE.add("patch_shuffle", "patches shuffled")
def patch_shuffle(picture: np.ndarray, other: np.ndarray | None, rng: np.random.Generator) -> np.ndarray | None:
    """The image's `PATCHES` x `PATCHES` patches in another order; a rest at the right and the bottom stays."""
    height, width = picture.shape[0] // PATCHES, picture.shape[1] // PATCHES
    if not height or not width:
        return None
    whole = picture[: height * PATCHES, : width * PATCHES]
    patches = whole.reshape(PATCHES, height, PATCHES, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
    mixed = patches[rng.permutation(len(patches))].reshape(PATCHES, PATCHES, height, width, 3).swapaxes(1, 2)
    shuffled = picture.copy()
    shuffled[: height * PATCHES, : width * PATCHES] = mixed.reshape(whole.shape)
    return shuffled


def _mean(picture: np.ndarray) -> np.ndarray:
    """Mean of each channel; sums of whole numbers, row by row, are exact, and twenty times as quick as `mean`."""
    return picture.sum(axis=0, dtype=np.int64).sum(axis=0) / (picture.shape[0] * picture.shape[1])
