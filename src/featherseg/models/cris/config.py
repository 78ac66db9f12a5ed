"""Architectures of CRIS: the released one on CLIP RN50, and a small one."""

from typing import Annotated

from pydantic import Field

from featherseg.config import Depth, Positive, Several
from featherseg.models.etris import config as etris_config


class Architecture(etris_config.Architecture):
    """Two CLIP towers, of which vision is a ResNet, and CRIS's head, as a weights folder's `config.json` says it.

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
