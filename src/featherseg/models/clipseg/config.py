"""What the `config.json` of a CLIPSeg may say, checked before transformers allocates what it asks for."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from featherseg.config import Depth, ModelConfig, Several, Strict, parse
from featherseg.core.files import read_object
from featherseg.models.knobs import ModelKnobs
from featherseg.models.readings import PromptReader
from featherseg.models.towers.tokenizer import CONTEXT, clip_token_ids
from featherseg.models.weights import RANDOM_SMALL, SMALL_SIZE, config_file, is_random

MODELS = {"clipseg": {"text", "text.blocks", "text.tokens", "vision.blocks", "condition", "head.pretrained"}}
VOCABULARY = 49408
FULL_SIZE = 352  # side in pixels of the input of all but small models, unless a run says another
READER = PromptReader(clip_token_ids, CONTEXT)
Size = Annotated[int, Field(gt=0, le=2**13)]  # CLIP's widest is 1,664
Share = Annotated[float, Field(ge=0, lt=1, strict=False)]
Activation = Literal["quick_gelu", "gelu", "relu"]


class Knobs(ModelKnobs):
    """CLIPSeg has no knob of its own."""


class Part(Strict):
    """A part of the file: keys that transformers has and this does not name are left to transformers."""

    model_config = ConfigDict(extra="ignore")


class Tower(Part):
    """Sizes of one of CLIP's towers; what is absent has transformers' default."""

    hidden_size: Size | None = None
    intermediate_size: Size | None = None
    num_hidden_layers: Depth | None = None
    num_attention_heads: Size | None = None
    hidden_act: Activation | None = None
    attention_dropout: Share | None = None
    patch_size: Size | None = None
    image_size: Size | None = None
    num_channels: Literal[3] | None = None
    max_position_embeddings: Size | None = None
    vocab_size: Literal[49408] | None = None  # VOCABULARY

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        _check_divided(self, "hidden_size", "num_attention_heads")
        return self


class ClipsegFile(Part):
    """A CLIPSeg's `config.json`, as far as it decides shapes or where the prompt enters."""

    vision_config: Tower | None = None
    text_config: Tower | None = None
    projection_dim: Size | None = None
    reduce_dim: Size | None = None
    extract_layers: Annotated[Several[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    conditional_layer: Annotated[int, Field(ge=0)] | None = None
    decoder_num_attention_heads: Size | None = None
    decoder_intermediate_size: Size | None = None
    decoder_attention_dropout: Share | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        taps = self.extract_layers
        if taps is not None and list(taps) != sorted(set(taps)):
            raise ValueError(f"extract_layers {list(taps)} are not in ascending order, each once")
        if taps is not None and self.conditional_layer is not None and self.conditional_layer >= len(taps):
            raise ValueError(f"conditional_layer {self.conditional_layer} is none of the {len(taps)} layers of the "
                             "decoder, so the prompt would not be read")
        _check_divided(self, "reduce_dim", "decoder_num_attention_heads")
        return self


def _check_divided(part: Part, width: str, heads: str) -> None:
    values = getattr(part, width), getattr(part, heads)
    if None not in values and values[0] % values[1]:
        raise ValueError(f"{width} {values[0]} is not a multiple of {heads} {values[1]}")


@dataclass(frozen=True)
class Sizes:
    """What decides whether an input and the taps fit; the defaults are transformers'.

    Attributes:
        patch_size: side of the vision tower's patches in pixels.
        depth: number of blocks of the tower that has fewer.
        taps: the blocks, from 0, after which the decoder reads the image.
    """

    patch_size: int = 32
    depth: int = 12
    taps: tuple[int, ...] = (3, 6, 9)

    def check(self, image_size: int) -> None:
        """Check the side of an input.

        Raises:
            ValueError: it is not a multiple of the patch size, or a tap lies beyond the last block.
        """
        if image_size % self.patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of the patch size {self.patch_size}")
        if not self.taps or max(self.taps) >= self.depth:
            raise ValueError(f"extract_layers {list(self.taps)} should name some of the towers' blocks, 0 to "
                             f"{self.depth - 1}")


FULL = Sizes(patch_size=16)
SMALL = Sizes(patch_size=8, depth=6, taps=(1, 2, 4))


def sizes_of(file: ClipsegFile) -> Sizes:
    """The sizes that a `config.json` says."""
    vision, text = file.vision_config or Tower(), file.text_config or Tower()
    default = Sizes()
    depth = min(vision.num_hidden_layers or default.depth, text.num_hidden_layers or default.depth)
    return Sizes(vision.patch_size or default.patch_size, depth, file.extract_layers or default.taps)


def input_size(config: ModelConfig, knobs: Knobs) -> int:
    """Side of the square input in pixels."""
    return knobs.image_size or (SMALL_SIZE if config.weights == RANDOM_SMALL else FULL_SIZE)


def check_sizes(config: ModelConfig, knobs: Knobs) -> None:
    """Check the size of a model's input and its taps; errors are those of `Sizes.check`.

    Raises:
        UserError: a `config.json` that does not describe a CLIPSeg.
    """
    if is_random(config.weights):
        sizes = SMALL if config.weights == RANDOM_SMALL else FULL
    else:
        file = config_file(config.weights)
        sizes = sizes_of(parse(ClipsegFile, read_object(file), str(file)))
    sizes.check(input_size(config, knobs))


def reader(config: ModelConfig, knobs: Knobs) -> PromptReader:
    """How CLIPSeg reads prompts, whatever its weights."""
    return READER
