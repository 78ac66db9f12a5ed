"""DINOv2's vision tower without registers (Oquab et al., TMLR 2024, arXiv 2304.07193): timm's ViT on a grid of its own.

The class token's position is part of the class token, and the places are those of the model's own grid, so that the
tower walks like any other of timm's.
"""

import math

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

CLASS, PLACES = "cls_token", "pos_embed"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pixels in 0..1


def build_dinov2(width: int, depth: int, heads: int, patch_size: int, image_size: int) -> VisionTransformer:
    """The tower in random weights.

    Args:
        width, depth, heads: of its blocks.
        patch_size, image_size: sides in pixels.
    """
    return VisionTransformer(
        img_size=image_size, patch_size=patch_size, embed_dim=width, depth=depth, num_heads=heads, num_classes=0,
        init_values=1.0, no_embed_class=True)


def on_grid(state: dict[str, Tensor], side: int) -> dict[str, Tensor]:
    """DINOv2's tensors under timm's names, fitted to a tower of `build_dinov2` whose grid has `side` places a side.

    Positions (1, 1 + g * g, C) begin with the class token's, as published; without it, (1, g * g, C), they are those of
    another grid of `build_dinov2`. Tensors of other shapes come back as they are.
    """
    own, positions = state.get(CLASS), state.get(PLACES)
    if own is None or positions is None or own.ndim != 3 or positions.ndim != 3 or own.shape[1:] != (
            1, positions.shape[2]):
        return state
    if _is_square(positions.shape[1] - 1):
        own, positions = own + positions[:, :1], positions[:, 1:]
    return state | {CLASS: own, PLACES: interpolated(positions, side)}


def interpolated(positions: Tensor, side: int) -> Tensor:
    """Positions (1, g * g, C) of a square grid on a grid of `side` places a side, (1, side * side, C).

    Bicubic, as transformers' Dinov2Model; Meta's first code asks for the ratio (side + 0.1) / g instead, which moves
    places by less than a tenth. Others, which do not lie on a square grid, come back as they are.
    """
    before = math.isqrt(positions.shape[1])
    if before == side or not _is_square(positions.shape[1]) or not positions.is_floating_point():
        return positions
    grid = positions.transpose(1, 2).unflatten(2, (before, before))
    return F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count
