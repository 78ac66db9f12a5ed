"""A prepared dataset as tensors at the model's input size."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from featherseg.core.caches import RowFile, RowWriter, cached_folder, key_of
from featherseg.core.progress import progress
from featherseg.core.sources import closure
from featherseg.data.prepared import PreparedDataset, Sample
from featherseg.data.transforms import Resize


class PixelDataset:
    """Images and masks of every sample, decoded and resized once into the cache `pixels`.

    An image with three targets is kept once. The cache is filled in a pass of its own, by whichever process
    needs it first; its key is the dataset's content, the resize and the code that decodes and resizes.

    Args:
        dataset: the prepared dataset.
        resize: the way to the model's square input (`SegmentationModel.resize`).

    Attributes:
        samples: the dataset's samples; methods name them by index in this list.
        image_rows: for each sample the row of its image.
        fingerprint: of the dataset's content and of the resize, so of every pixel that this object returns.
    """

    def __init__(self, dataset: PreparedDataset, resize: Resize) -> None:
        self.samples, self._dataset, self._full = dataset.samples, dataset, resize.full
        self.fingerprint = key_of(dataset.fingerprint(), resize.key)
        rows: dict[str, int] = {}
        self.image_rows = [rows.setdefault(sample.image, len(rows)) for sample in self.samples]
        code = closure("tasks/segmentation/pixels.py")
        folder = cached_folder("pixels", key_of(self.fingerprint, code),
                               lambda partial: _fill(partial, dataset, resize))
        self._images, self._masks = RowFile(folder / "images.npy"), RowFile(folder / "masks.npy")

    def images(self, rows: Iterable[int]) -> Tensor:
        """uint8 (B, size, size, 3) of image rows."""
        return torch.from_numpy(self._images.read(rows))

    def masks(self, indices: Iterable[int]) -> Tensor:
        """bool (B, 1, size, size) of samples."""
        return self.targets(indices) >= 0.5

    def targets(self, indices: Iterable[int]) -> Tensor:
        """float32 (B, 1, size, size) of samples: 0, 1, and between them where the resize makes grey edges."""
        return torch.from_numpy(self._masks.read(indices)).unsqueeze(1) / self._full

    def original_mask(self, index: int) -> np.ndarray:
        """bool (height, width) of a sample, at its own size."""
        return self._dataset.mask(self.samples[index])


def _fill(folder: Path, dataset: PreparedDataset, resize: Resize) -> None:
    size = resize.size
    by_image: dict[str, Sample] = {}
    for sample in dataset.samples:
        by_image.setdefault(sample.image, sample)
    with (progress(len(by_image) + len(dataset.samples), f"decoding at {size} px", "file") as bar,
          RowWriter(folder / "images.npy", len(by_image), (size, size, 3), np.uint8) as images,
          RowWriter(folder / "masks.npy", len(dataset.samples), (size, size), np.uint8) as masks):
        for sample in by_image.values():
            images.append(resize.image(dataset.image(sample))[None])
            bar.update()
        for sample in dataset.samples:
            masks.append(resize.mask(dataset.mask(sample))[None])
            bar.update()
