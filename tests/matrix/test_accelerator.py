"""What an accelerator needs to run ahead of the host: no step that reads its values or waits for a copy."""

import pytest
import torch
from pairs import COVERING, Pair, batch, label, small
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from featherseg import adapters
from featherseg.models.etris import head
from featherseg.tasks.segmentation.config import SegmentationTrain
from featherseg.tasks.segmentation.objective import mask_losses

DEVICE = "meta"  # has shapes and no values: reading one is an error


class OneDevice(TorchDispatchMode):
    """Refuses every operation that has tensors of two devices, for which the host would wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        devices = {str(tensor.device) for tensor in tensors}
        assert len(devices) < 2, f"{func} brings tensors from one device to another"
        return out


def step_on_device(name: str, adapter: dict) -> list[torch.nn.Parameter]:
    """Forward and backward of a training step; returns what it trains."""
    model = adapters.apply(small(name), adapter, seed=1).train().to(DEVICE)
    pixels, tokens, masks = (tensor.to(DEVICE) for tensor in batch(model))
    images = (pixels.permute(0, 2, 3, 1) * 0).to(torch.uint8)
    with OneDevice():
        logits = model(model.normalise(images), tokens)
        mask_losses(model, logits, masks, SegmentationTrain().loss).sum().backward()
    return list(adapters.trainable(model).values())


@pytest.mark.parametrize(("name", "adapter"), [pair for pair in COVERING if pair[1]["name"] != "zero_shot"], ids=label)
def test_a_training_step_reads_no_value_and_copies_nothing_to_the_device(name: str, adapter: Pair):
    assert any(parameter.grad is not None for parameter in step_on_device(name, adapter))


def test_a_copy_to_the_device_is_noticed(monkeypatch):
    positions = head.sine_positions
    monkeypatch.setattr(head, "sine_positions", lambda length, width, device: positions(length, width, "cpu"))
    with pytest.raises(AssertionError, match="from one device to another"):
        step_on_device("etris_vit", {"name": "decoder"})
