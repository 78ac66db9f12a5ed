"""Training losses, one value a sample, so that a batch divided over processes averages to the same number."""

import torch
from torch import Tensor
from torch.nn import functional as F

from featherseg.tasks.segmentation.config import LossConfig

SMOOTH = 1e-5


def per_sample_loss(logits: Tensor, masks: Tensor, config: LossConfig) -> Tensor:
    """Weighted sum of soft Dice loss and cross-entropy of each sample (VLSM-Adapter, MedVLSM).

    `config.form` chooses between what is correct and what the papers' released code computes, which hands
    probabilities to MONAI's DiceCELoss(sigmoid=False):

    - `logits`: Dice of the probabilities, binary cross-entropy of the logits.
    - `published_dice_only` (MONAI 1.1.0): the cross-entropy is a softmax over one channel, exactly 0.
    - `published_second_sigmoid` (MONAI 1.3.2): the cross-entropy takes the probabilities for logits. A
      perfect mask still costs ln 2 - (ln 2 - ln(1 + 1/e)) x its area fraction = 0.693 - 0.380 x the fraction.

    Args:
        logits: (B, 1, H, W), any floating type; computed in float32.
        masks: (B, 1, H, W), bool, or shares of a pixel's area in [0, 1].
        config: form and the two weights.

    Returns:
        float32 (B,).
    """
    logits, masks = logits.float(), masks.float()
    probabilities = logits.sigmoid()
    dice = config.lambda_dice * soft_dice_loss(probabilities, masks)
    if config.form == "published_dice_only":
        return dice
    scores = probabilities if config.form == "published_second_sigmoid" else logits
    entropy = F.binary_cross_entropy_with_logits(scores, masks, reduction="none").mean(dim=(1, 2, 3))
    return dice + config.lambda_ce * entropy


def soft_dice_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 sum(p m) + s) / (sum(p) + sum(m) + s) of each sample, s = 1e-5 (MONAI's DiceLoss).

    Args:
        probabilities, masks: (B, 1, H, W) in [0, 1].

    Returns:
        (B,), in [0, 1].
    """
    overlap = (probabilities * masks).sum(dim=(1, 2, 3))
    total = probabilities.sum(dim=(1, 2, 3)) + masks.sum(dim=(1, 2, 3))
    return 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)


def per_sample_dice(predicted: Tensor, masks: Tensor) -> Tensor:
    """DSC of each sample; two empty masks agree, as in `metrics.dice`.

    Args:
        predicted, masks: bool (B, 1, H, W).

    Returns:
        float64 (B,), in [0, 1].
    """
    total = (predicted.sum(dim=(1, 2, 3)) + masks.sum(dim=(1, 2, 3))).double()
    overlap = (predicted & masks).sum(dim=(1, 2, 3)).double()
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), 1.0)
