"""CLIPSeg's decoder (Lueddecke & Ecker, CVPR 2022), transformers' module, for every model that has one."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.clipseg.modeling_clipseg import CLIPSegDecoder

from featherseg.models.base import ImageFeatures, TextFeatures


def redraw(decoder: CLIPSegDecoder) -> None:
    """Draw the layers beside the decoder's transformer as torch does, in place.

    transformers draws them with a deviation of 1, which puts random logits at +-100.
    """
    for part in (decoder.reduces, decoder.film_mul, decoder.film_add, decoder.transposed_convolution):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                layer.reset_parameters()


def decoded(decoder: CLIPSegDecoder, image: ImageFeatures, text: TextFeatures) -> Tensor:
    """Logits (B, h, w): the input's resolution for patch 16, half of it for patch 8.

    Attention keeps its weights where gradients are wanted. Fused kernels compute them anew on the way back, and shallow
    adapters on the language side can drive the scores to 1e8, which float32 holds to whole numbers only: the gradient
    of a softmax then came out at 1e24.
    """
    with sdpa_kernel(SDPBackend.MATH) if torch.is_grad_enabled() else nullcontext():
        logits = decoder(image.taps, text.sentence).logits
    return logits.reshape(len(text.sentence), *logits.shape[-2:])
