"""CRIS (Wang et al., "CRIS: CLIP-Driven Referring Image Segmentation", CVPR 2022, arXiv 2111.15174).

CLIP's ResNet, a feature pyramid that the sentence gates, a transformer decoder that attends to the words, and a
convolution that the sentence generates. Modules are named as in the released checkpoints, so that those load by name.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherseg.config import ModelConfig, ResizeKind
from featherseg.data.transforms import resize_of
from featherseg.models.base import TextFeatures
from featherseg.models.cris.config import Architecture, Knobs, TextPadding, architecture_of
from featherseg.models.etris.head import CoordConv, GlobalAlignment, Projector, convolution
from featherseg.models.knobs import Upsampling
from featherseg.models.towers.batchnorm import BatchNorm1d
from featherseg.models.towers.clip import ResNetTowers
from featherseg.models.towers.tokenizer import END_ID


class Pyramid(nn.Module):
    """Three vision maps joined on the middle one's grid, the coarsest gated by the sentence (section 3.2).

    Args:
        inputs: channels of the three maps, fine to coarse.
        widths: channels that they are brought to.
        sentence_dim: width of the sentence vector.
    """

    def __init__(self, inputs: Sequence[int], widths: Sequence[int], sentence_dim: int) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.txt_proj = nn.Sequential(nn.Linear(sentence_dim, coarse, bias=False), BatchNorm1d(coarse),
                                      nn.ReLU(inplace=True))
        self.f1_v_proj = convolution(inputs[2], coarse)
        self.norm_layer = nn.Sequential(nn.BatchNorm2d(coarse), nn.ReLU(inplace=True))
        self.f2_v_proj = convolution(inputs[1], middle, 3)
        self.f2_cat = convolution(coarse + middle, middle)
        self.f3_v_proj = convolution(inputs[0], fine, 3)
        self.f3_cat = convolution(fine + middle, middle)
        self.f4_proj5 = convolution(coarse, middle, 3)
        self.f4_proj4 = convolution(middle, middle, 3)
        self.f4_proj3 = convolution(middle, middle, 3)
        self.aggr = convolution(3 * middle, middle)
        self.coordconv = nn.Sequential(CoordConv(middle), convolution(middle, middle, 3))

    def forward(self, maps: Sequence[Tensor], sentence: Tensor) -> Tensor:
        """A map (B, widths[1], h, w) of maps (B, or 1 for all, C, h', w') and sentences (B, sentence_dim)."""
        fine, middle, coarse = maps
        gate = self.txt_proj(sentence)[:, :, None, None]
        coarse = self.norm_layer(self.f1_v_proj(coarse) * gate)
        middle = self.f2_cat(_beside(self.f2_v_proj(middle), _doubled(coarse)))
        fine = self.f3_cat(_beside(F.avg_pool2d(self.f3_v_proj(fine), 2), middle))
        joined = [self.f4_proj3(fine), self.f4_proj4(middle), _doubled(self.f4_proj5(coarse))]
        return self.coordconv(self.aggr(torch.cat(joined, dim=1)))


class CRIS(ResNetTowers):
    """CRIS with the towers' features of `CLIPTowers`; its arguments and errors are those, and the last two.

    Args:
        text_padding: `masked` keeps tokens that only fill up the word length from the decoder. `published_unmasked`
            is what MedVLSM's and VLSM-Adapter's code does: prompts are filled up with the end token and the decoder's
            mask looks for token 0, so that it attends to the padding.
        resize: pictures are squashed to the input's square, as in MedVLSM and VLSM-Adapter, or keep their aspect and
            are padded (`letterbox`, `published_warp`), as where CRIS was trained.

    Attributes:
        upsampling: of logits, bicubic with the corners aligned, as in MedVLSM and VLSM-Adapter, unless it is set.
    """

    config: Architecture
    upsampling: Upsampling = "bicubic"

    def __init__(self, name: str, architecture: Architecture, image_size: int | None = None,
                 word_length: int | None = None, text_padding: TextPadding = "masked",
                 resize: ResizeKind = "squash") -> None:
        super().__init__(name, architecture, image_size, word_length)
        self.masks_padding = text_padding == "masked"
        self.pad_token = 0 if self.masks_padding else END_ID
        self.resize = resize_of(resize, self.image_size, self.fill)

    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """The projected end-of-text state (B, D), and the words (B, L, width) with the padding that is masked."""
        text = super().encode_text(tokens)
        if text.padding is None or self.masks_padding:
            return text
        return TextFeatures(text.sentence, text.taps, torch.zeros_like(text.padding))

    def _build_head(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        config, widths = self.config, self.exchange_spec.widths
        neck = Pyramid((*widths[:2], config.embed_dim), config.neck_widths, config.embed_dim)
        decoder = GlobalAlignment(config.head_width, config.head_heads, config.head_mlp, dropout=config.dropout)
        return neck, decoder, Projector(config.embed_dim, config.head_width // 2)


def _doubled(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="bilinear")


def _beside(image: Tensor, both: Tensor) -> Tensor:
    """Channels of a map (B, or 1 for all, C, h, w) and one of a batch (B, C', h, w) beside each other."""
    return torch.cat([image.expand(len(both), -1, -1, -1), both], dim=1)


def build(config: ModelConfig, knobs: Knobs) -> CRIS:
    """CRIS of the architecture that its weights name.

    Raises:
        ValueError: a size that does not fit the towers.
    """
    architecture = architecture_of(config, knobs)
    model = CRIS(config.name, architecture, knobs.image_size, knobs.word_length, knobs.text_padding, knobs.resize)
    model.frozen_batchnorm_moves = knobs.frozen_batchnorm == "published_moving"
    model.upsampling = knobs.upsampling
    return model
