"""CLIPSeg's decoder (Lueddecke & Ecker, CVPR 2022), transformers' module, for every model that has one."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.clipseg.configuration_clipseg import CLIPSegConfig
from transformers.models.clipseg.modeling_clipseg import CLIPSegDecoder

from featherseg.models.base import ImageFeatures, TextFeatures

ATTENTION = "featherseg_decoder"  # the name of `attention` in transformers' registry

# Fused kernels compute the softmax anew on the way back, from scores whose float32 steps grow with them. On random
# queries and keys the CPU's gradients were as near to float64's as exact attention's while scores were below 1e5, and
# off by orders of magnitude from 1e6 on.
LARGEST_FUSED_SCORE = 1e4


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
    set_attention(decoder)
    return decoder


def redraw(decoder: CLIPSegDecoder) -> None:
    """Draw the layers beside the decoder's transformer as torch does, in place.

    transformers draws them with a deviation of 1, which puts random logits at +-100.
    """
    for part in (decoder.reduces, decoder.film_mul, decoder.film_add, decoder.transposed_convolution):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                layer.reset_parameters()


def set_attention(decoder: CLIPSegDecoder) -> None:
    """Let the decoder's blocks use `attention`."""
    for layer in decoder.layers:
        layer.self_attn.config._attn_implementation = ATTENTION


def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
              scaling: float, **options: Any) -> tuple[Tensor, None]:
    """transformers' `sdpa`, exact where gradients are wanted and scores may be too large for fused kernels.

    Shallow adapters on the language side can drive the scores to 1e8, which float32 holds to whole numbers only: the
    gradient of a fused softmax then came out at 1e24.

    Args:
        module: the attention layer.
        query, key, value: (B, heads, N, width of a head).
        scaling: of the scores.
    """
    exact = torch.is_grad_enabled() and needs_exact(query, key, scaling)
    with sdpa_kernel(SDPBackend.MATH) if exact else nullcontext():
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)


AttentionInterface.register(ATTENTION, attention)


@torch.no_grad()
def needs_exact(query: Tensor, key: Tensor, scaling: float) -> bool:
    """Whether scores may exceed `LARGEST_FUSED_SCORE`, by |q . k| <= |q| |k|, or are not finite.

    On an accelerator always: to read the bound would make the host wait for the device in every block.
    """
    if query.device.type != "cpu":
        return True
    bound = scaling * query.norm(dim=-1).max() * key.norm(dim=-1).max()
    return not bound <= LARGEST_FUSED_SCORE  # true of NaN


def decoded(decoder: CLIPSegDecoder, image: ImageFeatures, text: TextFeatures) -> Tensor:
    """Logits (B, h, w): the input's resolution for patch 16, half of it for patch 8, nine times the grid for patch 14.
    """
    logits = decoder(image.taps, text.sentence).logits
    return logits.reshape(len(text.sentence), *logits.shape[-2:])
