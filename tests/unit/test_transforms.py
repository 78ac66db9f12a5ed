"""The way to the model's input and back keeps things where they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from featherseg.data.transforms import Squash
from featherseg.metrics import dice


def ellipse(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y / height - 0.4) / 0.25) ** 2 + ((x / width - 0.6) / 0.2) ** 2 < 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (10_000, 50), (31, 200), (64, 64), (300, 451)])
def test_any_size_becomes_the_square_and_comes_back(height, width):
    squash = Squash(64)
    mask = ellipse(height, width)
    pixels = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    small_image, small_mask = squash.image(pixels), squash.mask(mask)
    assert small_image.shape == (64, 64, 3) and small_image.dtype == np.uint8
    assert small_mask.shape == (64, 64) and small_mask.dtype == bool
    back = squash.inverse(torch.from_numpy(small_mask).float()[None, None], height, width)
    assert back.shape == (1, 1, height, width)
    assert dice(back[0, 0].numpy() > 0.5, mask) > 0.93


def test_image_and_mask_stay_aligned():
    squash, mask = Squash(48), ellipse(200, 333)
    brightness = squash.image(np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255)[..., 0] / 255.0
    resized = squash.mask(mask)
    for axis in (0, 1):
        where = np.arange(48)
        of_image = (brightness.sum(1 - axis) * where).sum() / brightness.sum()
        of_mask = (resized.sum(1 - axis) * where).sum() / resized.sum()
        assert of_image == pytest.approx(of_mask, abs=0.2)


def test_image_is_antialiased_as_pillow_does():
    pixels = np.random.default_rng(0).integers(0, 256, (150, 211, 3), dtype=np.uint8)
    reference = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(Squash(32).image(pixels).astype(int) - reference).max() <= 1


def test_same_size_changes_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    mask = pixels[..., 0] > 99
    squash = Squash(32)
    assert np.array_equal(squash.image(pixels), pixels)
    assert np.array_equal(squash.mask(mask), mask)
    values = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(squash.inverse(values, 32, 32), values)


def test_mask_stays_a_mask_of_real_pixels():
    mask = np.zeros((7, 7), bool)
    mask[3, 3] = True
    assert Squash(21).mask(mask).sum() == 9
    assert np.array_equal(np.argwhere(Squash(21).mask(mask)).mean(axis=0), [10, 10])
