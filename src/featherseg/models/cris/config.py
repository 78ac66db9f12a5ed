"""Architectures of CRIS: the released one on CLIP RN50, and a small one."""

from typing import Annotated, Literal

from pydantic import Field

from featherseg.config import Depth, ModelConfig, Positive, ResizeKind, Several
from featherseg.models.etris import config as etris_config
from featherseg.models.knobs import Dropout, FrozenBatchNorm, ModelKnobs, Upsampling
from featherseg.models.readings import PromptReader
from featherseg.models.weights import RANDOM_SMALL, SMALL_SIZE, architecture_beside

TextPadding = Literal["masked", "published_unmasked"]
MODELS = {"cris": {"text", "text.blocks", "text.tokens", "head.pretrained"}}


class Knobs(ModelKnobs):
    """How pictures and sentences get to CRIS and masks back, and what its decoder sees.

    `word_length` is the number of tokens that a sentence is cut or padded to. `frozen_batchnorm` says whether the
    statistics of frozen BatchNorm layers stay `fixed` in training (correct) or move, as in the released code
    (`published_moving`). `upsampling` is the way from the head's grid back to the input's: logits `bicubic`, corner on
    corner, as MedVLSM does, or `bilinear`, or probabilities by cubic splines (`published_bicubic`, as where CRIS was
    trained). `resize` is how a picture gets to the square: squashed, as MedVLSM does, in its aspect (`letterbox`), or
    that at fractions of a pixel and without antialiasing (`published_warp`). `text_padding` says whether the decoder is
    kept from the padding, and `decoder_dropout` is the decoder's (None is 0.1; MedVLSM and VLSM-Adapter tune it with
    0.2).
    """

    where_named = frozenset({"word_length", "frozen_batchnorm", "resize", "text_padding", "decoder_dropout"})

    word_length: Positive | None = None
    frozen_batchnorm: FrozenBatchNorm = "fixed"
    upsampling: Upsampling = "bicubic"
    resize: ResizeKind = "squash"
    text_padding: TextPadding = "masked"
    decoder_dropout: Dropout | None = None


class Architecture(etris_config.Architecture):
    """Two CLIP towers, a ResNet for vision, and CRIS's head, as a weights folder's `config.json` describes them.

    Attributes:
        neck_widths: channels of the neck's maps, fine to coarse; the middle one is `head_width`.
        dropout: in the decoder, unless a run says another.
    """

    resnet_layers: Annotated[Several[Depth], Field(min_length=4, max_length=4)] = (3, 4, 6, 3)
    head_mlp: Positive = 2048
    neck_widths: Annotated[Several[Positive], Field(min_length=3, max_length=3)] = (256, 512, 1024)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


FULL = {"cris": Architecture(vision_width=64, embed_dim=1024)}


def small_config(width: int = 8, text_width: int = 32, stages: tuple[int, int, int] = (1, 2, 3),
                 image_size: int = 64) -> Architecture:
    """CRIS on a small ResNet, for the embedded level and tests."""
    return Architecture(
        vision_width=width, resnet_layers=(1, 1, 2, 1), vision_head_width=32, pool_grid=3, text_width=text_width,
        text_heads=text_width // 16, stages=stages, embed_dim=2 * text_width, head_width=text_width, head_heads=4,
        head_mlp=4 * text_width, neck_widths=(text_width // 2, text_width, 2 * text_width), image_size=image_size)


def architecture_of(config: ModelConfig, knobs: Knobs) -> Architecture:
    """The architecture that a model's weights name, with the dropout that is asked for."""
    architecture = architecture_beside(config, Architecture, FULL[config.name])
    if config.weights == RANDOM_SMALL:
        architecture = small_config(image_size=knobs.image_size or SMALL_SIZE)
    if knobs.decoder_dropout is None:
        return architecture
    return architecture.model_copy(update={"dropout": knobs.decoder_dropout})


def check_sizes(config: ModelConfig, knobs: Knobs) -> None:
    """Check the sizes of a model's input; errors are those of `etris.config.check_towers`."""
    etris_config.check_towers(architecture_of(config, knobs), knobs.image_size, knobs.word_length)


def reader(config: ModelConfig, knobs: Knobs) -> PromptReader:
    """How a model reads sentences."""
    return etris_config.sentence_reader(architecture_of(config, knobs), knobs.word_length)
