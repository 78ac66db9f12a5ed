"""ETRIS (Xu et al., ICCV 2023, arXiv 2307.11545): CLIP's towers and a head on their maps."""

from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from featherseg.config import ModelConfig
from featherseg.data.transforms import resize_of
from featherseg.models.etris.config import Architecture, HeadKnobs, HeadPart, Knobs, architecture_of
from featherseg.models.etris.head import (
    GlobalAlignment,
    HierarchicalAlignment,
    LastMap,
    NoAlignment,
    PlainProjector,
    Projector,
)
from featherseg.models.towers.clip import BACKBONE, CLIPTowers, ResNetTowers, ViTTowers

HEAD = {"hierarchical_alignment": "neck", "global_alignment": "decoder", "projector": "proj"}


ModelT = TypeVar("ModelT", bound="ETRIS")


class ETRIS(CLIPTowers):
    """ETRIS's head; errors, and arguments but the last, are those of `CLIPTowers`.

    Args:
        head_parts: parts of the head, None for all; a simple layer without the text stands in for each other one.

    Attributes:
        sentence_parts: dotted names of what computes the sentence vector alone.
        sums_neck: whether hierarchical alignment adds what its last convolutions are given, as in DETRIS.
    """

    trains_head = True
    sentence_parts: tuple[str, ...] = (f"{BACKBONE}.text_projection",)
    sums_neck = False

    def __init__(self, name: str, architecture: Architecture, image_size: int | None = None,
                 word_length: int | None = None, head_parts: Sequence[HeadPart] | None = None) -> None:
        self.head_parts = tuple(HEAD) if head_parts is None else tuple(head_parts)
        self.left_out = tuple(module for part, module in HEAD.items() if part not in self.head_parts)
        if not {"hierarchical_alignment", "projector"} & set(self.head_parts):  # who read the sentence
            self.unused = (*self.unused, *self.sentence_parts)
        super().__init__(name, architecture, image_size, word_length)

    def _build_head(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        config, spec, parts = self.config, self.exchange_spec, self.head_parts
        width, heads, sentence, last = config.head_width, config.head_heads, config.embed_dim, self._last_width()
        return (
            HierarchicalAlignment((*spec.widths[:2], last), sentence, width, heads, spec.strides, self.sums_neck)
            if "hierarchical_alignment" in parts else LastMap(last, width, spec.strides[-1]),
            GlobalAlignment(width, heads, config.head_mlp) if "global_alignment" in parts else NoAlignment(),
            Projector(sentence, width // 2) if "projector" in parts else PlainProjector(width))

    def _last_width(self) -> int:
        """Channels of the last map."""
        return self.config.embed_dim


class ResNetETRIS(ETRIS, ResNetTowers):
    """ETRIS on CLIP's ResNets."""


class ViTETRIS(ETRIS, ViTTowers):
    """ETRIS on CLIP's ViTs."""


def build_etris(name: str, architecture: Architecture, image_size: int | None = None,
                word_length: int | None = None, head_parts: Sequence[HeadPart] | None = None) -> ETRIS:
    """ETRIS on the vision tower that the architecture names; arguments and errors are those of `ETRIS`."""
    kind = ViTETRIS if architecture.resnet_layers is None else ResNetETRIS
    return kind(name, architecture, image_size, word_length, head_parts)


def build(config: ModelConfig, knobs: Knobs) -> ETRIS:
    """ETRIS on the vision tower of its name.

    Raises:
        UserError: weights whose vision tower is of the other kind.
        ValueError: a size that does not fit the towers.
    """
    architecture = architecture_of(config, knobs)
    model = build_etris(config.name, architecture, knobs.image_size, knobs.word_length, knobs.head_parts)
    model.frozen_batchnorm_moves = knobs.frozen_batchnorm == "published_moving"
    return with_ways(model, knobs)


def with_ways(model: ModelT, knobs: HeadKnobs) -> ModelT:
    """The model with the knobs' ways from a picture to its input, and from its head's grid back."""
    model.upsampling = knobs.upsampling
    model.resize = resize_of(knobs.resize, model.image_size, model.fill)
    return model
