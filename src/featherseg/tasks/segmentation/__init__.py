"""Text-prompted segmentation: a mask of what a prompt names in an image."""

from featherseg.tasks.segmentation.task import Segmentation

__all__ = ["Segmentation"]
