"""From the head's grid to a picture's own size: logits by default, probabilities as in released code."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from featherseg import models
from featherseg.config import ModelConfig
from featherseg.data.transforms import Letterbox, Squash, Warp
from featherseg.models.base import SegmentationModel

SIZES = [(50, 91), (77, 40)]


def built(name: str, **knobs) -> SegmentationModel:
    return models.build(ModelConfig(name=name, weights="random-small", **knobs))


def logits() -> torch.Tensor:
    return 4 * torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))


def original(model, values: torch.Tensor) -> list[np.ndarray]:
    return list(model.original_resolution(values, SIZES))


@pytest.mark.parametrize(("name", "mode", "aligned"), [("cris", "bicubic", True), ("etris_vit", "bilinear", False)])
def test_by_default_logits_come_back_and_then_become_probabilities(name, mode, aligned):
    model = built(name)
    at_input = F.interpolate(logits().unsqueeze(1), size=(64, 64), mode=mode, align_corners=aligned)
    for plane, size, found in zip(at_input, SIZES, original(model, logits()), strict=True):
        torch.testing.assert_close(torch.from_numpy(found), model.resize.inverse(plane[None], *size)[0, 0].sigmoid())


@pytest.mark.parametrize("name", ["cris", "etris_vit", "detris_b"])
def test_as_published_probabilities_come_back_by_splines_twice(name):
    model = built(name, resize="published_warp", upsampling="published_bicubic", way_back="published_cubic")
    assert isinstance(model.resize, Warp)
    at_input = F.interpolate(logits().sigmoid().unsqueeze(1), size=(64, 64), mode="bicubic", align_corners=True)
    for plane, size, found in zip(at_input, SIZES, original(model, logits()), strict=True):
        wanted = model.resize.inverse(plane[None], *size, "bicubic")[0, 0]
        assert np.array_equal(found > 0.35, wanted.numpy() > 0.35)
        torch.testing.assert_close(torch.from_numpy(found), wanted.clamp(0, 1))
    assert at_input.max() > 1, "splines overshoot, and what they overshoot by comes back too"


@pytest.mark.parametrize("name", ["clipseg", "unet", "san", "biomedclipseg", "cris"])
@pytest.mark.parametrize("threshold", [0.35, 0.5])
def test_as_published_a_mask_is_cut_at_the_inputs_size(name, threshold):
    model = built(name, way_back="published_nearest")
    assert isinstance(model.resize, Squash)
    at_input = model.to_input(logits()).sigmoid()
    for plane, size, found in zip(at_input, SIZES, original(model, logits()), strict=True):
        cut = (plane[None] > threshold).double()
        assert np.array_equal(found > threshold, F.interpolate(cut, size, mode="nearest-exact")[0, 0].numpy() > 0)


def test_knobs_choose_the_ways_and_defaults_stay():
    assert isinstance(built("etris_vit").resize, Letterbox) and isinstance(built("cris").resize, Squash)
    assert isinstance(built("cris", resize="letterbox").resize, Letterbox)
    assert built("cris").upsampling == "bicubic" and built("etris_vit").upsampling == "bilinear"
    for name in models.MODELS:
        assert built(name).way_back == "bilinear"
