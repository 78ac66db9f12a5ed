"""CLIPSeg's decoder: gradients that a fused attention kernel loses."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from featherseg.models.base import ImageFeatures, TextFeatures
from featherseg.models.clipseg import decoder as decoder_file
from featherseg.models.clipseg.decoder import build_decoder, needs_exact
from featherseg.models.clipseg.model import CLIPSeg, small_config

FUSED = "_scaled_dot_product_flash_attention_for_cpu"


class Operators(TorchDispatchMode):
    """Names of the operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(operator.overloadpacket.__name__)
        return operator(*args, **kwargs or {})


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


@pytest.mark.parametrize("build", [
    lambda: CLIPSeg(small_config(width=32, text_width=32, depth=3, taps=(0, 1, 2)), 64).net.decoder,
    lambda: build_decoder({"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 16},
                          32, (0, 1, 2), 16, 2, 32)], ids=["CLIPSeg's", "a built one"])
@pytest.mark.parametrize(("scale", "gradients", "fused"), [(1, True, 3), (1e4, True, 0), (1e4, False, 3),
                                                           (float("nan"), True, 0)])
def test_attention_is_fused_unless_gradients_are_wanted_of_huge_scores(build, scale, gradients, fused):
    torch.manual_seed(0)
    decoder = build()
    taps = tuple(scale * torch.randn(3, 2, 17, 32))
    # blocks after the first read the taps too, so that all three have large scores
    with Operators() as ran, torch.set_grad_enabled(gradients):
        decoder(taps, scale * torch.randn(2, 32))
    assert ran.names.count(FUSED) == fused


def test_the_bound_is_never_below_the_largest_score_and_is_not_read_on_an_accelerator(monkeypatch):
    query, key = torch.randn(2, 3, 2, 9, 4)
    largest = 0.5 * (query @ key.mT).abs().max().item()
    monkeypatch.setattr(decoder_file, "LARGEST_FUSED_SCORE", 0.999 * largest)
    assert needs_exact(query, key, 0.5)
    monkeypatch.setattr(decoder_file, "LARGEST_FUSED_SCORE", 0.5 * query.norm().item() * key.norm().item())
    assert not needs_exact(query, key, 0.5)
    elsewhere = torch.empty(3, 2, 9, 4, device="meta")  # a tensor whose values cannot be read
    assert needs_exact(elsewhere, elsewhere, 0.5)
