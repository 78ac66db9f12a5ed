"""U-Net, U-Net++ and DeepLabV3+ out of segmentation-models-pytorch: MedVLSM's baselines, which read no prompt.

A mask then depends on the image alone: every prompt of an image gets the same one. An input whose side the encoder
does not divide is filled up with zeros, ImageNet's mean colour, to the right and below, and the logits are cut again.
"""

from typing import Any

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.base import SegmentationModel as Net
from torch import Tensor
from torch.nn import functional as F

from featherseg.config import ModelConfig
from featherseg.data.transforms import Squash
from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures, TowerSpec
from featherseg.models.cnn.config import OF_TIMM, READER, Architecture, Knobs, architecture_of, padded_side
from featherseg.models.towers.batchnorm import BatchNorm2d
from featherseg.models.weights import check_keys

NOT_IN_ENCODER = ("fc.", "classifier.", "conv_head.", "bn2.")  # the classifiers of ImageNet's weights
NETS: dict[str, type[Net]] = {"unet": smp.Unet, "unet_lite": smp.Unet, "unetplusplus": smp.UnetPlusPlus,
                              "deeplabv3plus": smp.DeepLabV3Plus}


class CNN(SegmentationModel):
    """A convolutional encoder and decoder behind the seam of text-prompted models.

    Args:
        name: one of `NETS`.
        architecture: see `Architecture`.
        image_size: side of the square input in pixels; None for the architecture's own.

    Raises:
        ValueError: a size that does not fit the encoder, or an encoder that the library does not know.
    """

    net: Net
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    decoder_modules = ("net.decoder", "net.segmentation_head")
    unused = ()
    reader = READER
    sentence_dim = 0

    def __init__(self, name: str, architecture: Architecture, image_size: int | None = None) -> None:
        super().__init__()
        self.name, self.config = name, architecture
        self.image_size = image_size or architecture.image_size
        self.padded_side = padded_side(self.image_size)
        self.resize = Squash(self.image_size)
        self.net = _build_net(name, architecture)
        widths = self.net.encoder.out_channels[1:]
        self.vision = TowerSpec((), None, None, widths[-1], tuple(range(len(widths))), ("net.encoder",))
        self.text = TowerSpec((), None, None, 0, (), ())

    def architecture(self) -> dict[str, Any]:
        """What `config.json` beside this model's weights says, at this input size."""
        return self.config.model_copy(update={"image_size": self.image_size}).model_dump(mode="json")

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Maps (B, C, h, w) after the encoder's five stages."""
        missing = self.padded_side - self.image_size
        return ImageFeatures(tuple(self.net.encoder(F.pad(pixels, (0, missing, 0, missing)))[1:]))

    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """An empty sentence (B, 0)."""
        return TextFeatures(torch.zeros(len(tokens), 0, device=tokens.device), ())

    def decode(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Logits (B, H, W) at the input's resolution, the same for every text of an image."""
        # the library's decoders count the input as a feature too, and read at most its size
        input_size = image.taps[0].new_empty(1, 0, self.padded_side, self.padded_side)
        logits = self.net.segmentation_head(self.net.decoder([input_size, *image.taps]))
        return logits.squeeze(1)[:, :self.image_size, :self.image_size].expand(len(text.sentence), -1, -1)

    def base_tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a weights file under the names that they have in this model.

        Two layouts are known: the whole model, and an encoder alone (ImageNet's, whose classifier is left out).
        """
        if any(name.startswith("encoder.") for name in state):
            return super().base_tensors(state)
        encoder = "net.encoder.model" if self.config.encoder.startswith(OF_TIMM) else "net.encoder"
        return {f"{encoder}.{name}": tensor for name, tensor in state.items() if not name.startswith(NOT_IN_ENCODER)}

    def load_base(self, state: dict[str, Tensor], source: str) -> None:
        """Load weights in one of the layouts of `base_tensors`; an encoder alone leaves the decoder as it is.

        Raises:
            UserError: tensors are missing, unexpected or misshapen; the message names them.
        """
        own = self.net.state_dict()
        given = {name.removeprefix("net."): tensor for name, tensor in self.base_tensors(state).items()}
        alone = not any(name.startswith(("decoder.", "segmentation_head.")) for name in given)
        expected = {name: tensor for name, tensor in own.items() if name in given or not alone
                    or name.startswith("encoder.") and not name.endswith("num_batches_tracked")}
        check_keys(given, expected, source)
        self.net.load_state_dict(own | given)


def _build_net(name: str, architecture: Architecture) -> Net:
    widths = architecture.decoder_channels
    options = {"channels": architecture.encoder_channels, "layers": architecture.encoder_layers}
    try:
        net = NETS[name](architecture.encoder, encoder_weights=None,
                         decoder_channels=widths[0] if name == "deeplabv3plus" else widths,
                         **{key: value for key, value in options.items() if value is not None})
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"encoder {architecture.encoder!r} is none of segmentation-models-pytorch's "
                         f"({' '.join(str(error).split())[:80]})") from None
    if name == "deeplabv3plus":
        pool = net.decoder.aspp[0].convs[-1]
        pool[2] = BatchNorm2d(pool[2].num_features)
    return net


def build(config: ModelConfig, knobs: Knobs) -> CNN:
    """The CNN of the architecture that its weights name.

    Raises:
        ValueError: a size that does not fit the encoder.
    """
    model = CNN(config.name, architecture_of(config), knobs.image_size)
    model.frozen_batchnorm_moves = knobs.frozen_batchnorm == "published_moving"
    return model
