"""Architectures of ETRIS: the three of the paper, and small ones."""

from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from featherseg.config import Depth, ModelConfig, Positive, ResizeKind, Several, Strict
from featherseg.core.errors import UserError
from featherseg.models.knobs import FrozenBatchNorm, ModelKnobs, Upsampling
from featherseg.models.readings import PromptReader
from featherseg.models.towers.tokenizer import CONTEXT, clip_token_ids
from featherseg.models.weights import RANDOM_SMALL, SMALL_SIZE, architecture_beside

STAGES = 3
RESNET_STRIDE = 32
HeadPart = Literal["hierarchical_alignment", "global_alignment", "projector"]
HEAD_PARTS: tuple[HeadPart, ...] = get_args(HeadPart)
# released weights hold the head; CLIP's alone do not
_CAN = {"text", "text.blocks", "text.tokens", "exchange.stages", "head.pretrained"}
MODELS = {"etris_r50": _CAN, "etris_r101": _CAN, "etris_vit": _CAN | {"vision.blocks"}}


def _in_order(parts: tuple[HeadPart, ...]) -> tuple[HeadPart, ...]:
    if len(set(parts)) < len(parts):
        raise ValueError("a part is named twice")
    return tuple(part for part in HEAD_PARTS if part in parts)


HeadParts = Annotated[Several[HeadPart], Field(min_length=1), AfterValidator(_in_order)]


class HeadKnobs(ModelKnobs):
    """Of every model with ETRIS's head: its parts, and how pictures and sentences get to the model and masks back.

    `word_length` is the number of tokens that a sentence is cut or padded to. `upsampling` is the way from the head's
    grid back to the input's: logits `bilinear`, or probabilities by cubic splines whose corners are aligned
    (`published_bicubic`, as in the released code). `resize` is how a picture gets to the square: in its aspect
    (`letterbox`), that at fractions of a pixel and without antialiasing (`published_warp`), or squashed.
    """

    where_named = frozenset({"word_length", "resize"})

    word_length: Positive | None = None
    head_parts: HeadParts = HEAD_PARTS
    upsampling: Upsampling = "bilinear"
    resize: ResizeKind = "letterbox"


class Knobs(HeadKnobs):
    """`frozen_batchnorm` says whether the statistics of frozen BatchNorm layers stay `fixed` in training (correct) or
    move, as in the released code (`published_moving`).
    """

    where_named = HeadKnobs.where_named | {"frozen_batchnorm"}

    frozen_batchnorm: FrozenBatchNorm = "fixed"


class Architecture(Strict):
    """Two CLIP towers and ETRIS's head, as a weights folder's `config.json` says it.

    Attributes:
        vision_width: width of a ViT's blocks, or of a ResNet's stem.
        resnet_layers: blocks in each of a ResNet's four layers; None for a ViT.
        patch_size: side of a ViT's patches in pixels; None for a ResNet.
        vision_head_width: width of one attention head in the vision tower.
        pool_grid: side of the grid of positions that a ResNet's attention pool holds; they are interpolated.
        text_width, text_heads: of the text tower.
        stages: text blocks, and in a ViT vision blocks, after which each stage ends; a ResNet's stages are its last
            three layers. The towers end with the last stage.
        embed_dim: width of the sentence vector and of the last vision map.
        head_width, head_heads, head_mlp: of the head's attention layers.
        image_size: side of the square input in pixels, unless a run says another.
        word_length: tokens that a sentence is cut or padded to, unless a run says another.
    """

    vision_width: Positive
    resnet_layers: Several[Depth] | None = None
    patch_size: Positive | None = None
    vision_head_width: Positive = 64
    pool_grid: Positive = 7
    text_width: Positive = 512
    text_heads: Positive = 8
    stages: Several[Depth] = (4, 8, 12)
    embed_dim: Positive = 512
    head_width: Positive = 512
    head_heads: Positive = 8
    head_mlp: Positive = 512
    image_size: Positive = 416
    word_length: Positive = 17

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.resnet_layers is None) == (self.patch_size is None):
            raise ValueError("exactly one of resnet_layers and patch_size says what the vision tower is")
        if len(self.stages) != STAGES or list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages are {STAGES} numbers of blocks, each larger than the one before")
        if self.resnet_layers is not None and len(self.resnet_layers) != 4:
            raise ValueError("resnet_layers are four numbers of blocks")
        if self.text_width != self.head_width:
            raise ValueError("the head attends to the words as they are, so head_width must be text_width")
        vision = self.vision_width if self.resnet_layers is None else 32 * self.vision_width
        for width, parts, said in ((vision, self.vision_head_width, "the vision tower's width, vision_head_width"),
                                   (self.text_width, self.text_heads, "text_width, text_heads"),
                                   (self.head_width, self.head_heads, "head_width, head_heads"),
                                   (self.head_width, 4, "head_width, which holds sines and cosines of two axes, 4")):
            if width % parts:
                raise ValueError(f"{said}: {width} is not a multiple of {parts}")
        return self


FULL = {
    "etris_r50": Architecture(vision_width=64, resnet_layers=(3, 4, 6, 3), embed_dim=1024),
    "etris_r101": Architecture(vision_width=64, resnet_layers=(3, 4, 23, 3)),
    "etris_vit": Architecture(vision_width=768, patch_size=16),
}


def small_config(width: int = 96, text_width: int = 64, stages: tuple[int, int, int] = (2, 4, 6), patch: int = 8,
                 image_size: int = 64) -> Architecture:
    """ETRIS on a small ViT: the embedded model (the defaults) and tiny ones for tests."""
    return Architecture(
        vision_width=width, patch_size=patch, vision_head_width=32, text_width=text_width, text_heads=text_width // 32,
        stages=stages, embed_dim=text_width, head_width=text_width, head_heads=4, head_mlp=2 * text_width,
        image_size=image_size)


def small_resnet_config(width: int = 8, text_width: int = 32, stages: tuple[int, int, int] = (1, 2, 3),
                        image_size: int = 64) -> Architecture:
    """ETRIS on a small ResNet, for tests."""
    return Architecture(
        vision_width=width, resnet_layers=(1, 1, 2, 1), vision_head_width=32, pool_grid=3, text_width=text_width,
        text_heads=text_width // 16, stages=stages, embed_dim=2 * text_width, head_width=text_width, head_heads=4,
        head_mlp=2 * text_width, image_size=image_size)


def architecture_of(config: ModelConfig, knobs: Knobs) -> Architecture:
    """The architecture that a model's weights name.

    Raises:
        UserError: weights whose vision tower is of the other kind.
    """
    architecture = architecture_beside(config, Architecture, FULL[config.name])
    if (config.name == "etris_vit") == (architecture.patch_size is None):
        kind = "ResNet" if architecture.patch_size is None else "ViT"
        raise UserError(f"{config.weights}/config.json says that the vision tower is a {kind}, which is not that of "
                        f"model '{config.name}'; set model.weights to weights of that model.")
    if config.weights == RANDOM_SMALL:
        small = small_config if architecture.patch_size else small_resnet_config
        return small(image_size=knobs.image_size or SMALL_SIZE)
    return architecture


def check_towers(architecture: Architecture, image_size: int | None, word_length: int | None) -> None:
    """Check the sizes of an input, None for the architecture's own.

    Raises:
        ValueError: a size that does not fit the towers.
    """
    size, words = image_size or architecture.image_size, word_length or architecture.word_length
    divisor = architecture.patch_size or RESNET_STRIDE
    if size % divisor:
        raise ValueError(f"image_size {size} is not a multiple of {divisor}")
    if not 3 <= words <= CONTEXT:
        raise ValueError(f"word_length {words} is not between 3 and CLIP's {CONTEXT}")


def sentence_reader(architecture: Architecture, word_length: int | None) -> PromptReader:
    """How sentences are read, in CLIP's tokens; a `word_length` of None is the architecture's own."""
    return PromptReader(clip_token_ids, word_length or architecture.word_length)


def check_sizes(config: ModelConfig, knobs: Knobs) -> None:
    """Check the sizes of a model's input; errors are those of `architecture_of` and `check_towers`."""
    check_towers(architecture_of(config, knobs), knobs.image_size, knobs.word_length)


def reader(config: ModelConfig, knobs: Knobs) -> PromptReader:
    """How a model reads sentences; errors are those of `architecture_of`."""
    return sentence_reader(architecture_of(config, knobs), knobs.word_length)
