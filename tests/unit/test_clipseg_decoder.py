"""CLIPSeg's decoder: gradients that a fused attention kernel loses."""

import copy

import pytest
import torch

from featherseg.models.base import ImageFeatures, TextFeatures
from featherseg.models.clipseg.model import CLIPSeg, small_config


@pytest.mark.parametrize("scale", [1, 300])
def test_gradients_are_those_of_float64_however_large_the_sentence(scale):
    torch.manual_seed(0)
    model = CLIPSeg(small_config(width=32, text_width=32, depth=3, taps=(0, 1, 2)), 64)
    taps, sentence = torch.randn(3, 2, 65, 32), scale * torch.randn(2, 32)

    def gradient(model: CLIPSeg, dtype: torch.dtype) -> torch.Tensor:
        given = sentence.to(dtype).requires_grad_()
        model.decode(ImageFeatures(tuple(scale * taps.to(dtype))), TextFeatures(given, ())).square().mean().backward()
        return given.grad.double()

    exact = gradient(copy.deepcopy(model).double(), torch.float64)
    assert torch.dist(gradient(model, torch.float32), exact) <= 1e-2 * exact.norm()
