"""From a picture of any size to the model's square input, and the way back.

All ways of resizing have the same fields and methods: `size` is the side of the square, `image` and `mask` go
there, `inverse` comes back by one of the kernels `bilinear`, `nearest` and `bicubic`, `full` is the level of a mask's
target, and `key` (plain values) tells them apart in caches.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from featherseg.config import ResizeKind

Kernel = Literal["bilinear", "nearest", "bicubic"]


@dataclass(frozen=True)
class Squash:
    """Resize to a square without keeping the aspect ratio (VLSM-Adapter, MedVLSM).

    Args:
        size: side of the square in pixels.
    """

    full: ClassVar[int] = 1
    size: int

    @property
    def key(self) -> list:
        """What decides the resized pixels."""
        return ["squash", self.size]

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3), bilinear with antialiasing."""
        return _resize_image(pixels, self.size, self.size, "bilinear")

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """bool (H, W) -> bool (size, size), the nearest pixel."""
        return _resize_mask(mask, self.size, self.size)

    def inverse(self, values: Tensor, height: int, width: int, kernel: Kernel = "bilinear") -> Tensor:
        """Logits or probabilities (B, 1, size, size) -> (B, 1, height, width); bilinear is antialiased."""
        return _resize_values(values, height, width, kernel)


@dataclass(frozen=True)
class Letterbox:
    """Resize so that the longer side fills the square, and pad the shorter one on both sides (CRIS, ETRIS).

    The picture covers a whole number of pixels (at least one), so the way back crops exactly what it covers and
    nothing is shifted.

    Args:
        size: side of the square in pixels.
        fill: colour of the padding, 0 to 255 each: the mean that the model subtracts.
    """

    full: ClassVar[int] = 1
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
                                              "bicubic")
        return square

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """bool (H, W) -> bool (size, size), the nearest pixel; False in the padding."""
        rows, columns = self.window(*mask.shape)
        square = np.zeros((self.size, self.size), bool)
        square[rows, columns] = _resize_mask(mask, rows.stop - rows.start, columns.stop - columns.start)
        return square

    def inverse(self, values: Tensor, height: int, width: int, kernel: Kernel = "bilinear") -> Tensor:
        """Logits or probabilities (B, 1, size, size) -> (B, 1, height, width); bilinear is antialiased.

        The padding is cropped before, so that no value of it reaches the picture.
        """
        rows, columns = self.window(height, width)
        return _resize_values(values[:, :, rows, columns], height, width, kernel)

    def window(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the square that a picture of this height and width covers."""
        rows, columns = (_centred(max(1, round(side * self.size / max(height, width))), self.size)
                         for side in (height, width))
        return rows, columns


@dataclass(frozen=True)
class Warp:
    """A letterbox at fractions of a pixel and without antialiasing, as CRIS, ETRIS and DETRIS are released.

    Their affine map takes the picture's corner to the padding's, which it measures in pixels' places (0, 1, 2, ...),
    not in pixels' edges: content lies up to half a pixel off. Masks become grey at their edges. OpenCV, which the
    released code maps with, rounds places to 1/32 of a pixel; here they are exact.

    Args:
        size: side of the square in pixels.
        fill: colour of the padding, 0 to 255 each.
    """

    full: ClassVar[int] = 255
    size: int
    fill: tuple[int, int, int]

    @property
    def key(self) -> list:
        """What decides the resized pixels."""
        return ["warp", self.size, *self.fill]

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3), bicubic."""
        fill = torch.tensor(self.fill, dtype=torch.float32)[:, None, None]
        channels_first = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float()
        # what lies outside of the picture counts as 0 to the sampling, and is the fill's colour here
        return _as_uint8(self._there(channels_first - fill, "bicubic") + fill).permute(1, 2, 0).numpy()

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """bool (H, W) -> uint8 (size, size), bilinear between 0 and 255."""
        return _as_uint8(self._there(255 * torch.from_numpy(mask).float()[None], "bilinear"))[0].numpy()

    def inverse(self, values: Tensor, height: int, width: int, kernel: Kernel = "bilinear") -> Tensor:
        """Logits or probabilities (B, 1, size, size) -> (B, 1, height, width); outside of the square lies 0."""
        scale, offsets = self._map(height, width)
        rows, columns = (torch.arange(side) * scale + offset
                         for side, offset in zip((height, width), offsets, strict=True))
        return _sample(values, rows, columns, kernel)

    def _there(self, planes: Tensor, kernel: Kernel) -> Tensor:
        """Planes (C, H, W) as (C, size, size), 0 outside of the picture."""
        scale, offsets = self._map(*planes.shape[1:])
        rows, columns = ((torch.arange(self.size) - offset) / scale for offset in offsets)
        return _sample(planes[None], rows, columns, kernel)[0]

    def _map(self, height: int, width: int) -> tuple[float, tuple[float, float]]:
        """The factor from the picture to the square, and how far down and to the right the picture begins there."""
        scale = self.size / max(height, width)
        return scale, ((self.size - height * scale) / 2, (self.size - width * scale) / 2)


Resize = Squash | Letterbox | Warp


def resize_of(kind: ResizeKind, size: int, fill: tuple[int, int, int]) -> Resize:
    """The way to a square of side `size`; `fill` is the padding's colour, where there is padding."""
    ways: dict[ResizeKind, Resize] = {
        "squash": Squash(size), "letterbox": Letterbox(size, fill), "published_warp": Warp(size, fill)}
    return ways[kind]


def _centred(length: int, size: int) -> slice:
    start = (size - length) // 2
    return slice(start, start + length)


def _resize_image(pixels: np.ndarray, height: int, width: int, mode: Literal["bilinear", "bicubic"]) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (height, width, 3), antialiased, as torchvision does it.

    PyTorch's own kernel for bytes is called, since importing torchvision takes as long as importing torch.
    """
    channels_first = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    if channels_first.shape[1:] == (height, width):
        return pixels
    resized = F.interpolate(channels_first[None], (height, width), mode=mode, align_corners=False, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    plane = torch.from_numpy(mask.astype(np.uint8))
    return F.interpolate(plane[None, None], (height, width), mode="nearest-exact")[0, 0].numpy() > 0


def _resize_values(values: Tensor, height: int, width: int, kernel: Kernel) -> Tensor:
    if kernel == "nearest":
        return F.interpolate(values, (height, width), mode="nearest-exact")
    antialias = kernel == "bilinear"
    return F.interpolate(values, (height, width), mode=kernel, align_corners=False, antialias=antialias)


def _sample(planes: Tensor, rows: Tensor, columns: Tensor, kernel: Kernel) -> Tensor:
    """Planes (B, C, H, W) at the crossings of places, (B, C, len(rows), len(columns)); outside of them lies 0."""
    height, width = planes.shape[2:]
    y, x = (2 * rows + 1) / height - 1, (2 * columns + 1) / width - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(planes)
    return F.grid_sample(planes, grid.expand(len(planes), -1, -1, -1), mode=kernel, align_corners=False)


def _as_uint8(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
