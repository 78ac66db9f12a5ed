"""What the `config.json` of a CLIPSeg may say, checked before transformers allocates what it asks for."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from featherseg.config import Depth, Several, Strict
from featherseg.models.knobs import ModelKnobs

MODELS = {"clipseg": {"text", "text.blocks", "text.tokens", "vision.blocks", "condition", "head.pretrained"}}
VOCABULARY = 49408
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
