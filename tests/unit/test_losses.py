"""The losses against MONAI, and the published variants against what their formulas say."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from featherseg.tasks.segmentation.config import LossConfig
from featherseg.tasks.segmentation.losses import per_sample_dice, per_sample_loss, soft_dice_loss
from featherseg.tasks.segmentation.metrics import dice


def config(form: str = "logits", dice: float = 1.5, ce: float = 0.7) -> LossConfig:
    return LossConfig(form=form, lambda_dice=dice, lambda_ce=ce)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, 1, 17, 13, generator=generator)
    fractions = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).view(5, 1, 1, 1)
    return logits, torch.rand(5, 1, 17, 13, generator=generator) < fractions


@pytest.fixture(scope="module")
def monai():
    return pytest.importorskip("monai.losses", reason="MONAI, the reference, is not installed")


def perfect(fraction: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are certain and right about a mask of the given area fraction."""
    masks = (torch.arange(10_000) < 10_000 * fraction).view(1, 1, 100, 100)
    return torch.where(masks, 40.0, -40.0), masks


def test_dice_and_entropy_on_logits_are_monais(batch, monai):
    reference = monai.DiceCELoss(sigmoid=True, lambda_dice=1.5, lambda_ce=0.7)
    for logits, masks in zip(*(tensor.split(1) for tensor in batch), strict=True):
        wanted = reference(logits, masks.float()).item()
        assert per_sample_loss(logits, masks, config()).item() == pytest.approx(wanted, rel=1e-5)


def test_second_sigmoid_is_what_monai_does_with_probabilities(batch, monai):
    logits, masks = batch
    reference = monai.DiceCELoss(sigmoid=False, lambda_dice=1.5, lambda_ce=0.7)
    ours = per_sample_loss(logits, masks, config("published_second_sigmoid"))
    assert ours.mean().item() == pytest.approx(reference(logits.sigmoid(), masks.float()).item(), rel=1e-5)


def test_dice_only_is_monais_dice_and_one_channel_entropy_is_zero(batch, monai):
    logits, masks = batch
    reference = 1.5 * monai.DiceLoss(sigmoid=True)(logits, masks.float())
    entropy = F.cross_entropy(logits.sigmoid(), torch.zeros(5, 17, 13, dtype=torch.long))
    assert entropy.item() == 0
    ours = per_sample_loss(logits, masks, config("published_dice_only"))
    assert ours.mean().item() == pytest.approx(reference.item(), rel=1e-5)


@pytest.mark.parametrize("fraction", [0.0, 0.15, 0.5, 1.0])
def test_cost_of_a_perfect_mask(fraction):
    logits, masks = perfect(fraction)
    floor = math.log(2) - (math.log(2) - math.log1p(math.exp(-1))) * fraction
    assert floor == pytest.approx(0.693 - 0.380 * fraction, abs=1e-3)
    assert per_sample_loss(logits, masks, config("logits", ce=1)).item() == pytest.approx(0, abs=1e-6)
    assert per_sample_loss(logits, masks, config("published_dice_only")).item() == pytest.approx(0, abs=1e-6)
    second = per_sample_loss(logits, masks, config("published_second_sigmoid", ce=1)).item()
    assert second == pytest.approx(floor, abs=1e-6)


def test_each_sample_has_its_own_loss(batch):
    logits, masks = batch
    for form in ("logits", "published_dice_only", "published_second_sigmoid"):
        together = per_sample_loss(logits, masks, config(form))
        alone = torch.cat([per_sample_loss(one, mask, config(form))
                           for one, mask in zip(logits.split(1), masks.split(1), strict=True)])
        assert together.shape == (5,)
        torch.testing.assert_close(together, alone)


def test_half_precision_logits_are_scored_in_full(batch):
    logits, masks = batch
    loss = per_sample_loss(logits.bfloat16(), masks, config())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, per_sample_loss(logits.bfloat16().float(), masks, config()))


def test_empty_mask_and_empty_prediction_agree():
    empty = torch.zeros(1, 1, 8, 8)
    assert soft_dice_loss(empty, empty).item() == 0
    assert per_sample_dice(empty.bool(), empty.bool()).item() == 1


def test_dsc_is_the_metric(batch):
    logits, masks = batch
    ours = per_sample_dice(logits > 0, masks)
    wanted = [dice(np.asarray(p[0]), np.asarray(m[0])) for p, m in zip(logits > 0, masks, strict=True)]
    assert ours.tolist() == pytest.approx(wanted, abs=1e-12)
