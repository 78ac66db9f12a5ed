"""Tuning methods: one file each, entered into one registry."""

from featherseg.adapters import (
    bridger,
    decoder,
    dense_aligner,
    full,
    houlsby,
    lora,
    prompt,
    vlsm_dense,
    vlsm_shallow,
    zero_shot,
)
from featherseg.adapters.base import METHODS, apply, check_pair, resolve, trainable

__all__ = ["METHODS", "apply", "bridger", "check_pair", "decoder", "dense_aligner", "full", "houlsby", "lora", "prompt",
           "resolve", "trainable", "vlsm_dense", "vlsm_shallow", "zero_shot"]
