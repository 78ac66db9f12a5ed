"""Architectures of BiomedCLIPSeg: MedVLSM's, and a small one."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator

from featherseg.config import Depth, ModelConfig, Positive, Several, Strict
from featherseg.models.knobs import Dropout, ModelKnobs
from featherseg.models.readings import PromptReader
from featherseg.models.towers.word_pieces import SPELLING, vocabulary_of, word_piece_reader
from featherseg.models.weights import RANDOM_SMALL, SMALL_SIZE, architecture_beside

TapOffset = Literal[0, 1]
_CAN = {"text", "text.blocks", "text.tokens", "vision.blocks", "condition"}
MODELS = {"biomedclipseg": _CAN,  # its decoder comes untrained
          "biomedclipseg_d": _CAN | {"head.pretrained"}}


class Knobs(ModelKnobs):
    """Where the image is read, and the text tower's dropout.

    `tap_offset` is how many blocks later than CLIPSeg the decoder reads the image (0 is correct, 1 as released);
    `text_dropout` is in the text tower in training (0 without one, 0.1 as released, where it is on although the tower
    is frozen).
    """

    where_named = frozenset({"tap_offset", "text_dropout"})

    tap_offset: TapOffset = 0
    text_dropout: Dropout = 0.0


class Architecture(Strict):
    """BiomedCLIP's two towers and CLIPSeg's decoder, as a weights folder's `config.json` says it.

    Attributes:
        vision_width, vision_depth, vision_heads, patch_size: of the vision tower.
        image_size: side of the square input in pixels that the positions are made for.
        text_width, text_depth, text_heads: of the text tower (BERT).
        vocabulary: word pieces that the text tower knows.
        positions: tokens that the text tower has positions for.
        context_length: tokens after which a prompt is cut.
        embed_dim: width of the sentence vector.
        taps: vision blocks, from 0, after which CLIPSeg's decoder reads the image.
        reduce_dim, decoder_heads, decoder_mlp: of the decoder.
    """

    vision_width: Positive = 768
    vision_depth: Depth = 12
    vision_heads: Positive = 12
    patch_size: Positive = 16
    image_size: Positive = 224
    text_width: Positive = 768
    text_depth: Depth = 12
    text_heads: Positive = 12
    vocabulary: Positive = 30522
    positions: Positive = 512
    context_length: Positive = 256
    embed_dim: Positive = 512
    taps: Several[int] = (3, 6, 9)
    reduce_dim: Positive = 64
    decoder_heads: Positive = 4
    decoder_mlp: Positive = 2048

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for width, heads in (("vision_width", "vision_heads"), ("text_width", "text_heads"),
                             ("reduce_dim", "decoder_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(f"{width} {getattr(self, width)} is not a multiple of {heads} {getattr(self, heads)}")
        depth = min(self.vision_depth, self.text_depth)
        if not self.taps or list(self.taps) != sorted(set(self.taps)) or not 0 <= self.taps[0] <= self.taps[-1] < depth:
            raise ValueError(f"taps {list(self.taps)} should be some of the towers' blocks, 0 to {depth - 1}, rising")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if not 3 <= self.context_length <= self.positions:
            raise ValueError(f"context_length {self.context_length} is not between 3 and positions {self.positions}")
        return self


FULL = Architecture()


def small_config(width: int = 96, text_width: int = 64, depth: int = 6, patch: int = 8, image_size: int = 64,
                 taps: tuple[int, ...] = (1, 2, 4), reduce_dim: int = 32) -> Architecture:
    """The same architecture at small widths, on prompts spelled out letter by letter."""
    return Architecture(
        vision_width=width, vision_depth=depth, vision_heads=max(1, width // 32), patch_size=patch,
        image_size=image_size, text_width=text_width, text_depth=depth, text_heads=max(1, text_width // 32),
        vocabulary=len(SPELLING), positions=256, embed_dim=text_width // 2, taps=taps, reduce_dim=reduce_dim,
        decoder_mlp=4 * reduce_dim)


def architecture_of(config: ModelConfig, knobs: Knobs) -> Architecture:
    """The architecture that a model's weights name."""
    if config.weights == RANDOM_SMALL:
        return small_config(image_size=knobs.image_size or SMALL_SIZE)
    return architecture_beside(config, Architecture, FULL)


def check_towers(architecture: Architecture, image_size: int, vocabulary: Sequence[str], tap_offset: int) -> None:
    """Check what a model is asked for.

    Raises:
        ValueError: a size, tap or vocabulary that does not fit the architecture.
    """
    if image_size % architecture.patch_size:
        raise ValueError(f"image_size {image_size} is not a multiple of the patch size {architecture.patch_size}")
    last, depth = architecture.taps[-1] + tap_offset, architecture.vision_depth
    if last >= depth:
        raise ValueError(f"with its offset the last tap is {last}, but the vision tower's blocks are 0 to {depth - 1}")
    if len(vocabulary) > architecture.vocabulary:
        raise ValueError(f"the vocabulary has {len(vocabulary)} word pieces, but the text tower knows "
                         f"{architecture.vocabulary}")


def check_sizes(config: ModelConfig, knobs: Knobs) -> None:
    """Check what a model is asked for; errors are those of `vocabulary_of` and `check_towers`."""
    architecture = architecture_of(config, knobs)
    vocabulary = vocabulary_of(config.weights, architecture.vocabulary)
    check_towers(architecture, knobs.image_size or architecture.image_size, vocabulary, knobs.tap_offset)


def reader(config: ModelConfig, knobs: Knobs) -> PromptReader:
    """How a model reads prompts; errors are those of `vocabulary_of`."""
    architecture = architecture_of(config, knobs)
    return word_piece_reader(vocabulary_of(config.weights, architecture.vocabulary), architecture.context_length)
