"""Tuning methods: one file each, imported when it is named."""

from featherseg.adapters.base import METHODS, apply, check_pair, resolve, trainable

__all__ = ["METHODS", "apply", "check_pair", "resolve", "trainable"]
