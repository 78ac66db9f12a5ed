"""Architectures of SAN: the paper's on CLIP ViT-B/16, and a small one."""

from typing import Literal, Self

from pydantic import model_validator

from featherseg.config import Depth, ModelConfig, Positive, Several, Strict
from featherseg.models.knobs import ModelKnobs
from featherseg.models.readings import PromptReader
from featherseg.models.towers.tokenizer import CONTEXT, clip_token_ids
from featherseg.models.weights import RANDOM_SMALL, SMALL_SIZE, architecture_beside

SideFusion = Literal["fixed", "published_swapped"]
Recognition = Literal["trained", "published_without_gradient"]
CLIP_SHRINKS = 2
READER = PromptReader(clip_token_ids, CONTEXT)
MODELS = {"san": {"text"}}  # CLIP stays as it is, and the side network is trained anew


class Knobs(ModelKnobs):
    """`side_fusion` is which of CLIP's states reach which block of the side network, and `recognition` whether
    gradients run through what CLIP makes of the proposals.
    """

    where_named = frozenset({"side_fusion", "recognition"})

    side_fusion: SideFusion = "fixed"
    recognition: Recognition = "trained"


class Architecture(Strict):
    """CLIP and a side network, as a weights folder's `config.json` says it.

    Attributes:
        vision_width, vision_depth, vision_head_width, patch_size: of CLIP's ViT.
        grid: side of the grid of positions that the ViT holds; they are interpolated.
        text_width, text_depth, text_heads: of CLIP's text tower.
        embed_dim: width in which CLIP compares images and prompts.
        side_width, side_depth, side_heads: of the side network, a ViT too.
        fused: numbers of CLIP blocks after which their states are added to the side network's, before its first
            block and after each of its first ones; behind the last of them CLIP recognises the proposals.
        queries: mask proposals an image.
        mask_width: width in which proposals and places are compared.
        image_size: side of the square input in pixels; CLIP sees it at half of that.
    """

    vision_width: Positive = 768
    vision_depth: Depth = 12
    vision_head_width: Positive = 64
    patch_size: Positive = 16
    grid: Positive = 14
    text_width: Positive = 512
    text_depth: Depth = 12
    text_heads: Positive = 8
    embed_dim: Positive = 512
    side_width: Positive = 240
    side_depth: Depth = 8
    side_heads: Positive = 6
    fused: Several[int] = (0, 3, 6, 9)
    queries: Positive = 100
    mask_width: Positive = 256
    image_size: Positive = 640

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for width, part in (("vision_width", "vision_head_width"), ("text_width", "text_heads"),
                            ("side_width", "side_heads")):
            if getattr(self, width) % getattr(self, part):
                raise ValueError(f"{width} {getattr(self, width)} is not a multiple of {part} {getattr(self, part)}")
        fused = list(self.fused)
        if not fused or fused != sorted(set(fused)) or fused[0] < 0 or fused[-1] >= self.vision_depth:
            raise ValueError(f"fused {fused} should be rising numbers of CLIP's blocks, 0 to {self.vision_depth - 1}")
        if len(fused) > self.side_depth:
            raise ValueError(f"fused {fused} are more than the side network's {self.side_depth} blocks")
        return self


FULL = Architecture()


def small_config(image_size: int = 64) -> Architecture:
    """The same architecture at small widths."""
    return Architecture(vision_width=64, vision_depth=6, vision_head_width=32, patch_size=8, grid=4, text_width=64,
                        text_depth=4, text_heads=2, embed_dim=64, side_width=48, side_depth=5, side_heads=2,
                        fused=(0, 1, 2, 4), queries=10, mask_width=32, image_size=image_size)


def architecture_of(config: ModelConfig, knobs: Knobs) -> Architecture:
    """The architecture that a model's weights name."""
    if config.weights == RANDOM_SMALL:
        return small_config(knobs.image_size or SMALL_SIZE)
    return architecture_beside(config, Architecture, FULL)


def check_patches(architecture: Architecture, image_size: int) -> None:
    """Check the side of the input.

    Raises:
        ValueError: it is not a multiple of the patches, of which CLIP's are as large as two of the side network's.
    """
    divisor = CLIP_SHRINKS * architecture.patch_size
    if image_size % divisor:
        raise ValueError(f"image_size {image_size} is not a multiple of {divisor}")


def check_sizes(config: ModelConfig, knobs: Knobs) -> None:
    """Check the size of a model's input; errors are those of `check_patches`."""
    architecture = architecture_of(config, knobs)
    check_patches(architecture, knobs.image_size or architecture.image_size)


def reader(config: ModelConfig, knobs: Knobs) -> PromptReader:
    """How SAN reads prompts, whatever its weights."""
    return READER
