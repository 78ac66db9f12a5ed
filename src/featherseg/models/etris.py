"""ETRIS (Xu et al., ICCV 2023, arXiv 2307.11545): CLIP's towers and a head on their maps."""

from torch import nn

from featherseg.models.clip_towers import CLIPTowers, ResNetTowers, ViTTowers
from featherseg.models.etris_config import Architecture
from featherseg.models.etris_head import GlobalAlignment, HierarchicalAlignment, Projector


class ETRIS(CLIPTowers):
    """ETRIS's head; arguments and errors are those of `CLIPTowers`."""

    trains_head = True

    def _build_head(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        config, spec = self.config, self.exchange_spec
        neck = HierarchicalAlignment((*spec.widths[:2], config.embed_dim), config.embed_dim, config.head_width,
                                     config.head_heads, spec.strides)
        decoder = GlobalAlignment(config.head_width, config.head_heads, config.head_mlp)
        return neck, decoder, Projector(config.embed_dim, config.head_width // 2)


class ResNetETRIS(ETRIS, ResNetTowers):
    """ETRIS on CLIP's ResNets."""


class ViTETRIS(ETRIS, ViTTowers):
    """ETRIS on CLIP's ViTs."""


def build_etris(name: str, architecture: Architecture, image_size: int | None = None,
                word_length: int | None = None) -> ETRIS:
    """ETRIS on the vision tower that the architecture names; arguments and errors are those of `ETRIS`."""
    kind = ViTETRIS if architecture.resnet_layers is None else ResNetETRIS
    return kind(name, architecture, image_size, word_length)
