"""Architectures of the CNNs: MedVLSM's three baselines on ResNet-50, a U-Net on EfficientNet-Lite0, and small ones."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from featherseg.config import Depth, ModelConfig, Positive, Several, Strict
from featherseg.models.knobs import FrozenBatchNorm, ModelKnobs
from featherseg.models.readings import PromptReader
from featherseg.models.weights import RANDOM_SMALL, architecture_beside

STRIDE, SMALLEST = 32, 64
OF_TIMM = "tu-"  # the library's prefix of timm's encoders
READER = PromptReader()
NAMES = ("unet", "unet_lite", "unetplusplus", "deeplabv3plus")
MODELS: dict[str, set[str]] = {name: set() for name in NAMES}


class Knobs(ModelKnobs):
    """`frozen_batchnorm` says whether the statistics of frozen BatchNorm layers stay `fixed` in training (correct) or
    move, as in released code (`published_moving`).
    """

    where_named = frozenset({"frozen_batchnorm"})

    frozen_batchnorm: FrozenBatchNorm = "fixed"


class Architecture(Strict):
    """An encoder of segmentation-models-pytorch and a decoder, as a weights folder's `config.json` says it.

    Attributes:
        encoder: the encoder's name there; `tu-<name>` is one of timm's.
        encoder_channels, encoder_layers: widths and numbers of blocks of a timm ResNet's four layers; None for the
            encoder's own.
        decoder_channels: widths of the decoder's stages, coarse to fine: five (U-Net, U-Net++) or one (DeepLabV3+).
        image_size: side of the square input in pixels, unless a run says another.
    """

    encoder: str = "resnet50"
    encoder_channels: Several[Positive] | None = None
    encoder_layers: Several[Depth] | None = None
    decoder_channels: Several[Positive] = (256, 128, 64, 32, 16)
    image_size: Positive = 256

    @model_validator(mode="after")
    def _only_timms_resnets_have_widths(self) -> Self:
        for key in ("encoder_channels", "encoder_layers"):
            value = getattr(self, key)
            if value is not None and (len(value) != 4 or not self.encoder.startswith("tu-resnet")):
                raise ValueError(f"{key} are four numbers, of an encoder tu-resnet...")
        return self


FULL = {
    "unet": Architecture(),
    "unet_lite": Architecture(encoder="tu-tf_efficientnet_lite0", decoder_channels=(128, 64, 32, 16, 16)),
    "unetplusplus": Architecture(),
    "deeplabv3plus": Architecture(decoder_channels=(256,)),
}


def small_config(name: str, image_size: int = 64) -> Architecture:
    """The same with a narrow ResNet of eight convolutions and a narrow decoder: for the embedded level and tests."""
    return Architecture(
        encoder="tu-resnet18", encoder_channels=(16, 32, 64, 128), encoder_layers=(1, 1, 1, 1), image_size=image_size,
        decoder_channels=(32,) if name == "deeplabv3plus" else (64, 32, 16, 16, 8))


def architecture_of(config: ModelConfig) -> Architecture:
    """The architecture that a model's weights name; ImageNet's weights of the encoder come without one."""
    if config.weights == RANDOM_SMALL:
        return small_config(config.name)
    if (Path(config.weights) / "config.json").is_file():
        return architecture_beside(config, Architecture, FULL[config.name])
    return FULL[config.name]


def padded_side(image_size: int) -> int:
    """The side that the encoder sees: the next multiple of its stride.

    Raises:
        ValueError: a side too small for the encoder's five stages.
    """
    if image_size < SMALLEST:
        raise ValueError(f"image_size {image_size} is below {SMALLEST}")
    return -(-image_size // STRIDE) * STRIDE


def check_sizes(config: ModelConfig, knobs: Knobs) -> None:
    """Check the size of a model's input; errors are those of `padded_side`."""
    padded_side(knobs.image_size or architecture_of(config).image_size)


def reader(config: ModelConfig, knobs: Knobs) -> PromptReader:
    """How a CNN reads prompts: it reads none."""
    return READER
