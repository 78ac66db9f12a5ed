"""Architectures of DETRIS: the two of the paper, one for a processor, and small ones."""

from typing import Self

from pydantic import model_validator

from featherseg.config import Count, Depth, ModelConfig, Positive, Several
from featherseg.core.errors import UserError
from featherseg.models.etris.config import STAGES, HeadKnobs, check_towers, sentence_reader
from featherseg.models.etris.config import Architecture as ETRISArchitecture
from featherseg.models.readings import PromptReader
from featherseg.models.towers.word_pieces import SPELLING, vocabulary_of, word_piece_reader
from featherseg.models.weights import RANDOM_SMALL, SMALL_SIZE, architecture_beside

# released weights hold the head; what is put together of DINOv2's and CLIP's does not
_CAN = {"text", "text.blocks", "text.tokens", "vision.blocks", "exchange.words"}
MODELS = {"detris_b": _CAN | {"head.pretrained"}, "detris_l": _CAN | {"head.pretrained"}, "detris_s": _CAN}


class Knobs(HeadKnobs):
    """Those of ETRIS's head."""


class Architecture(ETRISArchitecture):
    """DINOv2's vision tower, a text tower and ETRIS's head, as a weights folder's `config.json` says it.

    Attributes:
        vision_stages: vision blocks after which the head reads a map; the tower ends with the last one.
        registers: register tokens that the vision tower walks beside the class token.
        vocabulary: word pieces that a BERT knows, which is the text tower then; None for CLIP's text tower.
        positions: tokens that a BERT has positions for.
    """

    vision_stages: Several[Depth] = (5, 9, 12)
    registers: Count = 4
    vocabulary: Positive | None = None
    positions: Positive = 512

    @model_validator(mode="after")
    def _is_a_vit(self) -> Self:
        if self.patch_size is None:
            raise ValueError("DINOv2 is a ViT, so patch_size says what the vision tower is")
        ends = list(self.vision_stages)
        if len(ends) != STAGES or ends != sorted(set(ends)):
            raise ValueError(f"vision_stages are {STAGES} numbers of blocks, each larger than the one before")
        return self

    @model_validator(mode="after")
    def _suits_a_bert(self) -> Self:
        if self.vocabulary is None:
            return self
        if self.registers:
            raise ValueError("beside a BERT (vocabulary) the vision tower has no registers")
        if self.embed_dim != self.text_width:
            raise ValueError("a BERT's sentence is not projected, so embed_dim must be text_width")
        if self.word_length > self.positions:
            raise ValueError(f"word_length {self.word_length} is more than the BERT's positions {self.positions}")
        return self


FULL = {
    "detris_b": Architecture(vision_width=768, patch_size=14, vision_stages=(5, 9, 12), image_size=448),
    "detris_l": Architecture(vision_width=1024, patch_size=14, vision_stages=(9, 17, 24), image_size=448),
    # DINOv2 ViT-S/14 without registers, and MiniLM
    "detris_s": Architecture(
        vision_width=384, patch_size=14, vision_stages=(5, 9, 12), registers=0, image_size=224, text_width=384,
        text_heads=12, stages=(2, 4, 6), vocabulary=30522, embed_dim=384, head_width=384),
}


def small_config(width: int = 64, text_width: int = 32, vision_stages: tuple[int, int, int] = (1, 2, 4),
                 stages: tuple[int, int, int] = (1, 2, 3), patch: int = 8, image_size: int = 64,
                 bert: bool = False) -> Architecture:
    """DETRIS at small widths, on CLIP's text tower or on a BERT, whose prompts are spelled out letter by letter."""
    return Architecture(
        vision_width=width, patch_size=patch, vision_head_width=32, text_width=text_width, text_heads=text_width // 16,
        vision_stages=vision_stages, stages=stages, embed_dim=text_width, head_width=text_width, head_heads=4,
        head_mlp=2 * text_width, image_size=image_size, registers=0 if bert else 4,
        vocabulary=len(SPELLING) if bert else None)


def architecture_of(config: ModelConfig, knobs: Knobs) -> Architecture:
    """The architecture that a model's weights name.

    Raises:
        UserError: weights whose text tower is of the other kind.
    """
    full = FULL[config.name]
    if config.weights == RANDOM_SMALL:
        return small_config(image_size=knobs.image_size or SMALL_SIZE, bert=full.vocabulary is not None)
    architecture = architecture_beside(config, Architecture, full)
    if (architecture.vocabulary is None) != (full.vocabulary is None):
        kind = "CLIP's" if architecture.vocabulary is None else "a BERT"
        raise UserError(f"{config.weights}/config.json says that the text tower is {kind}, which is not that of model "
                        f"'{config.name}'; set model.weights to weights of that model.")
    return architecture


def check_sizes(config: ModelConfig, knobs: Knobs) -> None:
    """Check the sizes of a model's input; errors are those of `etris.config.check_towers`."""
    check_towers(architecture_of(config, knobs), knobs.image_size, knobs.word_length)


def reader(config: ModelConfig, knobs: Knobs) -> PromptReader:
    """How a model reads sentences: in CLIP's tokens, or in the word pieces beside its weights."""
    architecture = architecture_of(config, knobs)
    if architecture.vocabulary is None:
        return sentence_reader(architecture, knobs.word_length)
    vocabulary = vocabulary_of(config.weights, architecture.vocabulary)
    return word_piece_reader(vocabulary, knobs.word_length or architecture.word_length)
