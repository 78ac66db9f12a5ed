"""Architectures of CLIPSeg's decoder on DINOv2 and MiniLM: that of the public weights, and a small one."""

from collections.abc import Sequence
from typing import Self

from pydantic import model_validator

from featherseg.config import Depth, ModelConfig, Positive, Several, Strict
from featherseg.models.knobs import ModelKnobs
from featherseg.models.readings import PromptReader
from featherseg.models.towers.word_pieces import SPELLING, vocabulary_of, word_piece_reader
from featherseg.models.weights import RANDOM_SMALL, SMALL_SIZE, architecture_beside

# no weights hold a trained decoder
MODELS = {"dino_clipseg": {"text", "text.blocks", "text.tokens", "vision.blocks", "condition"}}


class Knobs(ModelKnobs):
    """Those that every model has."""


class Architecture(Strict):
    """DINOv2's and MiniLM's towers and CLIPSeg's decoder, as a weights folder's `config.json` says it.

    Attributes:
        vision_width, vision_depth, vision_heads, patch_size: of the vision tower.
        text_width, text_depth, text_heads: of the text tower (BERT).
        vocabulary: word pieces that the text tower knows.
        positions: tokens that the text tower has positions for.
        context_length: tokens after which a prompt is cut.
        taps: vision blocks, from 0, after which the decoder reads the image.
        text_taps: text blocks, from 0, at which a method may read the prompt, at the same shares of the tower's depth.
        reduce_dim, decoder_heads, decoder_mlp: of the decoder.
        image_size: side of the square input in pixels, unless a run says another.
    """

    vision_width: Positive = 384
    vision_depth: Depth = 12
    vision_heads: Positive = 6
    patch_size: Positive = 14
    text_width: Positive = 384
    text_depth: Depth = 6
    text_heads: Positive = 12
    vocabulary: Positive = 30522
    positions: Positive = 512
    context_length: Positive = 256
    taps: Several[int] = (3, 6, 9)
    text_taps: Several[int] = (1, 3, 4)
    reduce_dim: Positive = 64
    decoder_heads: Positive = 4
    decoder_mlp: Positive = 2048
    image_size: Positive = 224

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for width, heads in (("vision_width", "vision_heads"), ("text_width", "text_heads"),
                             ("reduce_dim", "decoder_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(f"{width} {getattr(self, width)} is not a multiple of {heads} {getattr(self, heads)}")
        for key, taps, depth in (("taps", self.taps, self.vision_depth),
                                 ("text_taps", self.text_taps, self.text_depth)):
            if not taps or list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] < depth:
                raise ValueError(f"{key} {list(taps)} should be some of the tower's blocks, 0 to {depth - 1}, rising")
        if len(self.taps) != len(self.text_taps):
            raise ValueError(f"taps {list(self.taps)} and text_taps {list(self.text_taps)} are not as many")
        if not 3 <= self.context_length <= self.positions:
            raise ValueError(f"context_length {self.context_length} is not between 3 and positions {self.positions}")
        return self


FULL = Architecture()


def small_config(width: int = 64, text_width: int = 64, depth: int = 5, patch: int = 8, image_size: int = 64,
                 taps: tuple[int, ...] = (1, 2, 3), reduce_dim: int = 32) -> Architecture:
    """The same architecture at small widths, on prompts spelled out letter by letter."""
    return Architecture(
        vision_width=width, vision_depth=depth, vision_heads=width // 32, patch_size=patch,
        text_width=text_width, text_depth=depth, text_heads=text_width // 32, vocabulary=len(SPELLING), positions=256,
        taps=taps, text_taps=taps, reduce_dim=reduce_dim, decoder_mlp=4 * reduce_dim, image_size=image_size)


def architecture_of(config: ModelConfig, knobs: Knobs) -> Architecture:
    """The architecture that a model's weights name."""
    if config.weights == RANDOM_SMALL:
        return small_config(image_size=knobs.image_size or SMALL_SIZE)
    return architecture_beside(config, Architecture, FULL)


def check_towers(architecture: Architecture, image_size: int, vocabulary: Sequence[str]) -> None:
    """Check what a model is asked for.

    Raises:
        ValueError: a size or a vocabulary that does not fit the architecture.
    """
    if image_size % architecture.patch_size:
        raise ValueError(f"image_size {image_size} is not a multiple of the patch size {architecture.patch_size}")
    if len(vocabulary) > architecture.vocabulary:
        raise ValueError(f"the vocabulary has {len(vocabulary)} word pieces, but the text tower knows "
                         f"{architecture.vocabulary}")


def check_sizes(config: ModelConfig, knobs: Knobs) -> None:
    """Check what a model is asked for; errors are those of `vocabulary_of` and `check_towers`."""
    architecture = architecture_of(config, knobs)
    vocabulary = vocabulary_of(config.weights, architecture.vocabulary)
    check_towers(architecture, knobs.image_size or architecture.image_size, vocabulary)


def reader(config: ModelConfig, knobs: Knobs) -> PromptReader:
    """How a model reads prompts; errors are those of `vocabulary_of`."""
    architecture = architecture_of(config, knobs)
    return word_piece_reader(vocabulary_of(config.weights, architecture.vocabulary), architecture.context_length)
