"""From a picture of any size to the model's square input, and the way back.

`Squash` is the resize of VLSM-Adapter and MedVLSM. An aspect-keeping one with padding (ETRIS, CRIS) is
another class with the same three methods.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv


class Squash:
    """Resize to a square without keeping the aspect ratio.

    Args:
        size: side of the square in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3), bilinear with antialiasing."""
        channels_first = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        square = [self.size, self.size]
        resized = tv.resize(channels_first, square, InterpolationMode.BILINEAR, antialias=True)
        return resized.permute(1, 2, 0).numpy()

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """bool (H, W) -> bool (size, size), the nearest pixel."""
        plane = torch.from_numpy(mask.astype(np.uint8))[None]
        return tv.resize(plane, [self.size, self.size], InterpolationMode.NEAREST_EXACT)[0].numpy() > 0

    def inverse(self, values: Tensor, height: int, width: int) -> Tensor:
        """Logits or probabilities (B, 1, size, size) -> (B, 1, height, width), bilinear with antialiasing."""
        return F.interpolate(values, (height, width), mode="bilinear", align_corners=False, antialias=True)
