"""The seam between towers, methods and everything that trains or scores.

A model encodes an image and a prompt into features, and decodes features into logits. No method ever
rewrites a tower's forward: it hooks onto the blocks that `TowerSpec` names, or takes one of the two necks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tower = Literal["vision", "text"]


@dataclass(frozen=True)
class TowerSpec:
    """Where a tower's blocks are, so that a method needs no `if model ==`.

    Attributes:
        blocks: dotted names of the transformer blocks that reach the mask, first to last.
        attn: name of the attention module inside a block.
        mlp: name of the MLP inside a block.
        dim: width of the residual stream.
        taps: indices of the blocks after which the features are read.
        modules: dotted names of everything that computes the tower's features.
    """

    blocks: tuple[str, ...]
    attn: str
    mlp: str
    dim: int
    taps: tuple[int, ...]
    modules: tuple[str, ...]


@dataclass(frozen=True)
class ImageFeatures:
    """States of the vision tower after its taps, each (B, tokens, dim), class token first."""

    taps: tuple[Tensor, ...]

    def map(self, function) -> Self:
        """The features with `function` applied to every tensor."""
        return type(self)(tuple(function(tap) for tap in self.taps))

    def index(self, rows: Tensor) -> Self:
        """Features of the given rows of the batch, in their order and as often as named."""
        return self.map(lambda tensor: tensor[rows])

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """One batch out of several."""
        return cls(tuple(torch.cat(taps) for taps in zip(*(part.taps for part in parts), strict=True)))


@dataclass(frozen=True)
class TextFeatures:
    """The prompt's embedding (B, D) and the end-of-text states at the tap depths, each (B, dim)."""

    sentence: Tensor
    taps: tuple[Tensor, ...]

    def map(self, function) -> Self:
        """The features with `function` applied to every tensor."""
        return type(self)(function(self.sentence), tuple(function(tap) for tap in self.taps))

    def index(self, rows: Tensor) -> Self:
        """Features of the given rows of the batch, in their order and as often as named."""
        return self.map(lambda tensor: tensor[rows])

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """One batch out of several."""
        taps = tuple(torch.cat(taps) for taps in zip(*(part.taps for part in parts), strict=True))
        return cls(torch.cat([part.sentence for part in parts]), taps)


class SegmentationModel(nn.Module, ABC):
    """A text-prompted segmentation model: two towers and a decoder.

    Attributes:
        name: the model's name in recipes.
        image_size: side of the square input in pixels.
        mean, std: per-channel normalisation of pixels in 0..1.
        vision, text: where the towers' blocks are.
        sentence_dim: width D of the condition.
        decoder_modules: dotted names of the decoder.
        unused: dotted names of parameters or modules that never reach the mask.
        image_neck, text_neck: what features pass through on their way into the decoder, the identity
            unless a method takes them (shallow and conditional adapters).
    """

    name: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    vision: TowerSpec
    text: TowerSpec
    sentence_dim: int
    decoder_modules: tuple[str, ...]
    unused: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()
        self.image_neck: nn.Module = nn.Identity()
        self.text_neck: nn.Module = nn.Identity()

    @abstractmethod
    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, L), L the longest of the batch where the text tower is causal."""

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Features of normalised pixels (B, 3, H, W)."""

    @abstractmethod
    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """Features of token ids (B, L)."""

    @abstractmethod
    def decode(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Logits (B, h, w) on the head's own grid, of text (B) and image (B, or 1 for all); necks are applied first."""

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, h, w) of normalised pixels (B, 3, H, W) prompted with tokens (B, L)."""
        return self.decode(self.encode_image(pixels), self.encode_text(tokens))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W), float, of uint8 pixels (B, H, W, 3)."""
        mean, std = (torch.tensor(value, device=pixels.device).view(1, 3, 1, 1) for value in (self.mean, self.std))
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def to_input(self, logits: Tensor) -> Tensor:
        """Logits (B, h, w) of the head's grid brought to the input's, (B, 1, H, W), bilinearly."""
        logits = logits.unsqueeze(1)
        if logits.shape[-1] == self.image_size:
            return logits
        return F.interpolate(logits, size=(self.image_size, self.image_size), mode="bilinear", align_corners=False)

    def tower_is_constant(self, tower: Tower) -> bool:
        """Whether nothing trainable lies before this tower's taps, so that its features may be computed once."""
        spec = self.vision if tower == "vision" else self.text
        return not any(p.requires_grad for name in spec.modules for p in self.get_submodule(name).parameters())


def parameters_of(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Parameters, by full name, that are one of `names` or lie in a module of that name."""
    prefixes = tuple(names)
    return {name: p for name, p in model.named_parameters()
            if any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)}
