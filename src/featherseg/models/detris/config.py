"""Architectures of DETRIS: the two of the paper, and small ones."""

from typing import Self

from pydantic import model_validator

from featherseg.config import Depth, ModelConfig, Positive, Several
from featherseg.models.etris.config import STAGES, HeadKnobs, check_towers, sentence_reader
from featherseg.models.etris.config import Architecture as ETRISArchitecture
from featherseg.models.readings import PromptReader
from featherseg.models.weights import RANDOM_SMALL, SMALL_SIZE, architecture_beside

# released weights hold the head; what is put together of DINOv2's and CLIP's does not
_CAN = {"text", "text.blocks", "text.tokens", "vision.blocks", "exchange.words", "head.pretrained"}
MODELS = {"detris_b": _CAN, "detris_l": _CAN}


class Knobs(HeadKnobs):
    """Those of ETRIS's head."""


class Architecture(ETRISArchitecture):
    """DINOv2's vision tower, CLIP's text tower and ETRIS's head, as a weights folder's `config.json` says it.

    Attributes:
        vision_stages: vision blocks after which the head reads a map; the tower ends with the last one.
        registers: register tokens that the vision tower walks beside the class token.
    """

    vision_stages: Several[Depth] = (5, 9, 12)
    registers: Positive = 4

    @model_validator(mode="after")
    def _is_a_vit(self) -> Self:
        if self.patch_size is None:
            raise ValueError("DINOv2 is a ViT, so patch_size says what the vision tower is")
        ends = list(self.vision_stages)
        if len(ends) != STAGES or ends != sorted(set(ends)):
            raise ValueError(f"vision_stages are {STAGES} numbers of blocks, each larger than the one before")
        return self


FULL = {
    "detris_b": Architecture(vision_width=768, patch_size=14, vision_stages=(5, 9, 12), image_size=448),
    "detris_l": Architecture(vision_width=1024, patch_size=14, vision_stages=(9, 17, 24), image_size=448),
}


def small_config(width: int = 64, text_width: int = 32, vision_stages: tuple[int, int, int] = (1, 2, 4),
                 stages: tuple[int, int, int] = (1, 2, 3), patch: int = 8, image_size: int = 64) -> Architecture:
    """DETRIS at small widths."""
    return Architecture(
        vision_width=width, patch_size=patch, vision_head_width=32, text_width=text_width, text_heads=text_width // 16,
        vision_stages=vision_stages, stages=stages, embed_dim=text_width, head_width=text_width, head_heads=4,
        head_mlp=2 * text_width, image_size=image_size)


def architecture_of(config: ModelConfig, knobs: Knobs) -> Architecture:
    """The architecture that a model's weights name."""
    if config.weights == RANDOM_SMALL:
        return small_config(image_size=knobs.image_size or SMALL_SIZE)
    return architecture_beside(config, Architecture, FULL[config.name])


def check_sizes(config: ModelConfig, knobs: Knobs) -> None:
    """Check the sizes of a model's input; errors are those of `etris.config.check_towers`."""
    check_towers(architecture_of(config, knobs), knobs.image_size, knobs.word_length)


def reader(config: ModelConfig, knobs: Knobs) -> PromptReader:
    """How a model reads sentences."""
    return sentence_reader(architecture_of(config, knobs), knobs.word_length)
