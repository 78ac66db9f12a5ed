"""The way to the model's input and back keeps things where they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.data.transforms import Letterbox, Squash, Warp, resize_of
from featherseg.tasks.segmentation.metrics import dice, iou
from featherseg.tasks.segmentation.pixels import PixelDataset

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


def affine(height: int, width: int, size: int) -> tuple[float, float, float]:
    """Scale, and the shift of rows and columns, of the map that takes corner to corner, by three corners each."""
    scale = min(size / height, size / width)
    return scale, (size - height * scale) / 2, (size - width * scale) / 2


def keys(distance: np.ndarray) -> np.ndarray:
    """Keys's cubic kernel with the slope -0.75 of OpenCV."""
    near, a = np.abs(distance), -0.75
    inner = (a + 2) * near**3 - (a + 3) * near**2 + 1
    outer = a * near**3 - 5 * a * near**2 + 8 * a * near - 4 * a
    return np.where(near <= 1, inner, np.where(near < 2, outer, 0))


def tent(distance: np.ndarray) -> np.ndarray:
    return np.clip(1 - np.abs(distance), 0, None)


def warped(plane: np.ndarray, rows: np.ndarray, columns: np.ndarray, kernel, outside: float = 0.0) -> np.ndarray:
    """A plane at places, as OpenCV's warpAffine with a constant border: weights of whole pixels, `outside` beyond."""
    down = kernel(rows[:, None] - np.arange(plane.shape[0]))
    right = kernel(columns[:, None] - np.arange(plane.shape[1]))
    return down @ (plane - outside) @ right.T + outside


@pytest.mark.parametrize(("height", "width"), [(30, 47), (47, 30), (9, 20), (41, 41)])
def test_a_warp_is_the_released_codes_affine_map(height, width):
    rng, size = np.random.default_rng(0), 32
    scale, down, right = affine(height, width, size)
    there = (np.arange(size) - down) / scale, (np.arange(size) - right) / scale
    pixels, mask = rng.integers(0, 256, (height, width, 3), dtype=np.uint8), rng.random((height, width)) < 0.4
    image = Warp(size, FILL).image(pixels)
    for channel in range(3):
        wanted = warped(pixels[..., channel].astype(float), *there, keys, FILL[channel])
        assert np.abs(image[..., channel] - wanted.clip(0, 255)).max() <= 0.51
    assert np.abs(Warp(size, FILL).mask(mask) - warped(255.0 * mask, *there, tent)).max() <= 0.51
    values = rng.random((size, size))
    back = np.arange(height) * scale + down, np.arange(width) * scale + right
    for name, kernel in (("bicubic", keys), ("bilinear", tent)):
        given = Warp(size, FILL).inverse(torch.from_numpy(values)[None, None], height, width, name)[0, 0].numpy()
        assert given == pytest.approx(warped(values, *back, kernel), abs=1e-5)


def test_a_warp_has_no_antialiasing_and_lies_half_a_pixel_off():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255
    assert np.ptp(Warp(16, FILL).image(stripes)) == 0, "only every fourth column is looked at"
    assert Letterbox(16, FILL).image(stripes).max() < 128
    disc = np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 20
    exact, warp = (centroid(resize.image(grey(disc))[..., 0] / 255) for resize in (Letterbox(32, FILL), Warp(32, FILL)))
    assert warp - exact == pytest.approx([0.25, 0.25], abs=0.05)  # half of 1 - 32/64


def test_the_kinds_of_resizing_by_name():
    kinds = {"squash": Squash(8), "letterbox": Letterbox(8, FILL), "published_warp": Warp(8, FILL)}
    assert {kind: resize_of(kind, 8, FILL) for kind in kinds} == kinds
    assert len({str(resize.key) for resize in kinds.values()}) == 3


def test_targets_are_shares_where_the_resize_makes_grey_edges(tmp_path):
    mask = ellipse(50, 40)
    with PreparedWriter(tmp_path / "set", dataset="set") as writer:
        writer.add_image("a", grey(mask))
        writer.add_sample(image_id="a", target="all", mask=mask)
    dataset = PreparedDataset.read(tmp_path / "set")
    for resize in (Letterbox(32, FILL), Warp(32, FILL)):
        data = PixelDataset(dataset, resize)
        targets = data.targets([0])
        assert targets.dtype == torch.float32 and 0 == targets.min() < targets.max() == 1
        assert torch.equal(data.masks([0]), targets >= 0.5)
        assert bool(((targets > 0) & (targets < 1)).any()) == isinstance(resize, Warp)
        assert np.array_equal(data.original_mask(0), mask)


@pytest.mark.parametrize("resize", [Squash(32), Letterbox(32, FILL)], ids=name)
def test_the_nearest_pixel_back_is_what_a_cut_before_would_choose(resize):
    values = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    back = resize.inverse(values, 75, 91, "nearest")
    cut_before = resize.inverse((values > 0.4).float(), 75, 91, "nearest")
    assert torch.equal(back > 0.4, cut_before > 0)
    assert set(back.flatten().tolist()) <= set(values.flatten().tolist())
    if isinstance(resize, Squash):
        rows, columns = (((np.arange(side) + 0.5) * 32 / side).astype(int) for side in (75, 91))
        assert np.array_equal(back[0, 0], values[0, 0].numpy()[np.ix_(rows, columns)])
