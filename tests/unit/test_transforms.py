"""The way to the model's input and back keeps things where they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.data.torch_dataset import PixelDataset
from featherseg.data.transforms import Letterbox, Squash
from featherseg.metrics import dice, iou

FILL = (123, 117, 104)
SIZES = [(1, 1), (10_000, 50), (31, 200), (64, 64), (300, 451), (427, 640), (641, 423), (3, 417), (413, 415)]
WAYS = [Squash(416), Letterbox(416, FILL)]


def ellipse(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y / height - 0.4) / 0.25) ** 2 + ((x / width - 0.6) / 0.2) ** 2 < 1


def grey(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255


def there_and_back(resize: Squash | Letterbox, mask: np.ndarray) -> np.ndarray:
    values = torch.from_numpy(resize.mask(mask)).float()[None, None]
    back = resize.inverse(values, *mask.shape)
    assert back.shape == (1, 1, *mask.shape)
    return back[0, 0].numpy()


def centroid(weights: np.ndarray) -> np.ndarray:
    return np.array([np.average(np.arange(n), weights=weights.sum(1 - axis)) for axis, n in enumerate(weights.shape)])


def name(resize: Squash | Letterbox) -> str:
    return resize.key[0]


@pytest.mark.parametrize("resize", WAYS, ids=name)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_any_size_becomes_the_square_and_comes_back(resize, height, width):
    mask = ellipse(height, width)
    small_image, small_mask = resize.image(grey(mask)), resize.mask(mask)
    assert small_image.shape == (416, 416, 3) and small_image.dtype == np.uint8
    assert small_mask.shape == (416, 416) and small_mask.dtype == bool
    back = there_and_back(resize, mask)
    covered = min(s.stop - s.start for s in resize.window(height, width)) if isinstance(resize, Letterbox) else 416
    assert dice(back > 0.5, mask) > (0.93 if covered > 3 else 0.5)


@pytest.mark.parametrize("resize", WAYS, ids=name)
@pytest.mark.parametrize(("height", "width"), [(300, 451), (427, 640), (640, 427), (641, 423), (413, 415), (1000, 333)])
def test_a_mask_that_goes_there_and_back_is_not_shifted(resize, height, width):
    mask = ellipse(height, width)
    back = there_and_back(resize, mask)
    assert iou(back > 0.5, mask) > 0.98
    pixel_of_the_square = max(1, max(height, width) / 416)
    assert np.abs(centroid(back > 0.5) - centroid(mask)).max() < 0.25 * pixel_of_the_square
    everything = np.ones((height, width), bool)
    assert there_and_back(resize, everything).min() == pytest.approx(1)


@pytest.mark.parametrize("resize", WAYS, ids=name)
def test_the_borders_of_the_image_are_those_of_the_square(resize):
    """A mask along one side comes back along that side: a crop that is off by a pixel would lose or move it."""
    for height, width in ((427, 640), (640, 427), (97, 416)):
        for side in (np.s_[:9], np.s_[-9:], np.s_[:, :9], np.s_[:, -9:]):
            mask = np.zeros((height, width), bool)
            mask[side] = True
            assert iou(there_and_back(resize, mask) > 0.5, mask) > 0.85


@pytest.mark.parametrize("resize", [Squash(48), Letterbox(48, (0, 0, 0))], ids=name)
def test_image_and_mask_stay_aligned(resize):
    mask = ellipse(200, 333)
    brightness = resize.image(grey(mask))[..., 0] / 255.0
    assert centroid(brightness) == pytest.approx(centroid(resize.mask(mask)), abs=0.2)


def test_a_letterbox_keeps_the_aspect_ratio_and_pads_with_the_fill():
    y, x = np.mgrid[:300, :600]
    disc = (y - 149.5) ** 2 + (x - 299.5) ** 2 < 100**2
    box = Letterbox(416, FILL)
    image, mask = box.image(grey(disc)), box.mask(disc)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert len(rows) == pytest.approx(len(columns), abs=1) and len(rows) == pytest.approx(200 * 416 / 600, abs=1)
    assert (image[:104] == FILL).all() and (image[-104:] == FILL).all() and not mask[:104].any()
    assert not (image[104:-104] == FILL).all(axis=2).any()
    assert box.window(300, 600) == (slice(104, 312), slice(0, 416))
    assert box.window(600, 300) == (slice(0, 416), slice(104, 312))


def test_what_a_letterbox_pads_never_reaches_the_picture():
    box, values = Letterbox(416, FILL), torch.full((1, 1, 416, 416), 1e6)
    rows, columns = box.window(301, 450)
    values[:, :, rows, columns] = 1
    torch.testing.assert_close(box.inverse(values, 301, 450), torch.ones(1, 1, 301, 450))


def test_equal_resizes_have_equal_keys_and_others_do_not():
    assert Letterbox(64, FILL).key == Letterbox(64, FILL).key
    others = [Squash(64), Squash(65), Letterbox(64, FILL), Letterbox(65, FILL), Letterbox(64, (0, 0, 0))]
    assert len({str(resize.key) for resize in others}) == 5


def test_the_cache_of_pixels_tells_resizes_apart(tmp_path):
    with PreparedWriter(tmp_path / "set", dataset="set") as writer:
        writer.add_image("a", np.full((20, 40, 3), 200, np.uint8))
        writer.add_sample(image_id="a", target="all", mask=np.ones((20, 40), bool))
    dataset = PreparedDataset.read(tmp_path / "set")
    squashed, boxed = (PixelDataset(dataset, resize) for resize in (Squash(32), Letterbox(32, FILL)))
    assert squashed.masks([0]).all() and boxed.masks([0]).float().mean() == 0.5
    assert tuple(boxed.images([0])[0, 0, 0].tolist()) == FILL
    assert squashed.fingerprint != boxed.fingerprint


def test_image_is_antialiased_as_pillow_does():
    pixels = np.random.default_rng(0).integers(0, 256, (150, 211, 3), dtype=np.uint8)
    bilinear = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(Squash(32).image(pixels).astype(int) - bilinear).max() <= 1
    bicubic = np.asarray(Image.fromarray(pixels).resize((32, 23), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(Letterbox(32, FILL).image(pixels)[4:27].astype(int) - bicubic).max() <= 1


@pytest.mark.parametrize("resize", [Squash(32), Letterbox(32, FILL)], ids=name)
def test_same_size_changes_nothing(resize):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    mask = pixels[..., 0] > 99
    assert np.array_equal(resize.image(pixels), pixels)
    assert np.array_equal(resize.mask(mask), mask)
    values = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resize.inverse(values, 32, 32), values)


def test_mask_stays_a_mask_of_real_pixels():
    mask = np.zeros((7, 7), bool)
    mask[3, 3] = True
    assert Squash(21).mask(mask).sum() == 9
    assert np.array_equal(np.argwhere(Squash(21).mask(mask)).mean(axis=0), [10, 10])
