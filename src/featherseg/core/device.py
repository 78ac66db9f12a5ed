"""Tensors on their way from the host to the device that a model is on."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device; on a CUDA device the copy is queued, so that the host does not wait for it."""
    # only pinned memory is copied without waiting
    source = tensor.pin_memory() if device.type == "cuda" else tensor
    return source.to(device, non_blocking=True)
