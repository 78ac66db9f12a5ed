"""CLIPSeg's decoder (Lueddecke & Ecker, CVPR 2022), transformers' module, for every model that has one."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.clipseg.configuration_clipseg import CLIPSegConfig
from transformers.models.clipseg.modeling_clipseg import CLIPSegDecoder

from featherseg.models.base import ImageFeatures, TextFeatures


def build_decoder(vision: dict[str, int], condition_width: int, taps: Sequence[int], width: int, heads: int,
                  mlp: int) -> CLIPSegDecoder:
    """An untrained decoder.

    Args:
        vision: `hidden_size`, `num_hidden_layers`, `num_attention_heads` and `patch_size` of the tower that it reads.
        condition_width: of the sentence's vector.
        taps: the tower's blocks, from 0, after which it reads.
        width, heads, mlp: of its own blocks.
    """
    decoder = CLIPSegDecoder(CLIPSegConfig(
        attn_implementation="sdpa", vision_config=vision, projection_dim=condition_width, reduce_dim=width,
        extract_layers=list(taps), decoder_num_attention_heads=heads, decoder_intermediate_size=mlp,
        use_complex_transposed_convolution=True))
    redraw(decoder)
    return decoder


def redraw(decoder: CLIPSegDecoder) -> None:
    """Draw the layers beside the decoder's transformer as torch does, in place.

    transformers draws them with a deviation of 1, which puts random logits at +-100.
    """
    for part in (decoder.reduces, decoder.film_mul, decoder.film_add, decoder.transposed_convolution):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                layer.reset_parameters()


def decoded(decoder: CLIPSegDecoder, image: ImageFeatures, text: TextFeatures) -> Tensor:
    """Logits (B, h, w): the input's resolution for patch 16, half of it for patch 8, nine times the grid for patch 14.

    Attention keeps its weights where gradients are wanted. Fused kernels compute them anew on the way back, and shallow
    adapters on the language side can drive the scores to 1e8, which float32 holds to whole numbers only: the gradient
    of a softmax then came out at 1e24.
    """
    with sdpa_kernel(SDPBackend.MATH) if torch.is_grad_enabled() else nullcontext():
        logits = decoder(image.taps, text.sentence).logits
    return logits.reshape(len(text.sentence), *logits.shape[-2:])
