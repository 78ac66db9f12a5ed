"""From a picture of any size to the model's square input, and the way back.

Both ways of resizing have the same fields and methods: `size` is the side of the square, `image` and `mask` go
there, `inverse` comes back, and `key` (plain values) tells them apart in caches.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv


@dataclass(frozen=True)
class Squash:
    """Resize to a square without keeping the aspect ratio (VLSM-Adapter, MedVLSM).

    Args:
        size: side of the square in pixels.
    """

    size: int

    @property
    def key(self) -> list:
        """What decides the resized pixels."""
        return ["squash", self.size]

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3), bilinear with antialiasing."""
        return _resize_image(pixels, self.size, self.size, InterpolationMode.BILINEAR)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """bool (H, W) -> bool (size, size), the nearest pixel."""
        return _resize_mask(mask, self.size, self.size)

    def inverse(self, values: Tensor, height: int, width: int) -> Tensor:
        """Logits or probabilities (B, 1, size, size) -> (B, 1, height, width), bilinear with antialiasing."""
        return _resize_values(values, height, width)


@dataclass(frozen=True)
class Letterbox:
    """Resize so that the longer side fills the square, and pad the shorter one on both sides (CRIS, ETRIS).

    The picture covers a whole number of pixels (at least one), so the way back crops exactly what it covers and
    nothing is shifted. The released code places it at fractions of a pixel instead, at most half a pixel away.

    Args:
        size: side of the square in pixels.
        fill: colour of the padding, 0 to 255 each: the mean that the model subtracts.
    """

    size: int
    fill: tuple[int, int, int]

    @property
    def key(self) -> list:
        """What decides the resized pixels."""
        return ["letterbox", self.size, *self.fill]

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3), bicubic with antialiasing."""
        rows, columns = self.window(*pixels.shape[:2])
        square = np.empty((self.size, self.size, 3), np.uint8)
        square[:] = self.fill
        square[rows, columns] = _resize_image(pixels, rows.stop - rows.start, columns.stop - columns.start,
                                              InterpolationMode.BICUBIC)
        return square

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """bool (H, W) -> bool (size, size), the nearest pixel; False in the padding."""
        rows, columns = self.window(*mask.shape)
        square = np.zeros((self.size, self.size), bool)
        square[rows, columns] = _resize_mask(mask, rows.stop - rows.start, columns.stop - columns.start)
        return square

    def inverse(self, values: Tensor, height: int, width: int) -> Tensor:
        """Logits or probabilities (B, 1, size, size) -> (B, 1, height, width), bilinear with antialiasing.

        The padding is cropped before, so that no value of it reaches the picture.
        """
        rows, columns = self.window(height, width)
        return _resize_values(values[:, :, rows, columns], height, width)

    def window(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the square that a picture of this height and width covers."""
        return tuple(_centred(max(1, round(side * self.size / max(height, width))), self.size)
                     for side in (height, width))


Resize = Squash | Letterbox


def _centred(length: int, size: int) -> slice:
    start = (size - length) // 2
    return slice(start, start + length)


def _resize_image(pixels: np.ndarray, height: int, width: int, mode: InterpolationMode) -> np.ndarray:
    channels_first = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    return tv.resize(channels_first, [height, width], mode, antialias=True).permute(1, 2, 0).numpy()


def _resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    plane = torch.from_numpy(mask.astype(np.uint8))[None]
    return tv.resize(plane, [height, width], InterpolationMode.NEAREST_EXACT)[0].numpy() > 0


def _resize_values(values: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(values, (height, width), mode="bilinear", align_corners=False, antialias=True)
