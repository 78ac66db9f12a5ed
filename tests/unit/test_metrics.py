"""The three metrics against MONAI, against values worked out by hand, and on empty masks."""

import time

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from featherseg.tasks.segmentation import metrics


def blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A random smooth mask, often in several pieces and cut by the border."""
    return gaussian_filter(rng.standard_normal((height, width)), rng.uniform(2, 8)) > rng.uniform(-0.02, 0.02)


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(7)
    found = []
    while len(found) < 25:
        height, width = rng.integers(20, 120, 2)
        prediction, truth = blob(rng, height, width), blob(rng, height, width)
        if prediction.any() and truth.any():
            found.append((prediction, truth))
    whole, corner, column = (np.zeros((40, 60), bool) for _ in range(3))
    whole[:] = True
    corner[:10, :7] = True
    column[:, -1] = True
    return [*found, (whole, corner), (corner, whole), (column, corner), (whole, whole), (column, whole)]


def test_agrees_with_monai():
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics", reason="MONAI, the reference, is not installed")
    cases = pairs()
    assert sum(bool(p[0].any() or p[:, 0].any()) for p, _ in cases) > 20, "too few masks touch the border"
    for prediction, truth in cases:
        ours = metrics.score(prediction, truth)
        p, t = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth))
        assert ours["dsc"] == pytest.approx(monai.compute_dice(p, t).item(), abs=1e-6)
        assert ours["iou"] == pytest.approx(monai.compute_iou(p, t).item(), abs=1e-6)
        reference = monai.compute_hausdorff_distance(p, t, include_background=True, percentile=95).item()
        assert ours["hd95"] == pytest.approx(reference, abs=1e-4)


def test_values_by_hand():
    prediction, truth = np.zeros((2, 10, 20), bool)
    prediction[2:6, 2:6] = True
    truth[2:6, 4:8] = True
    assert metrics.score(prediction, truth) == {
        "dsc": 0.5, "iou": pytest.approx(8 / 24), "hd95": 2.0, "intersection": 8, "union": 24}
    assert metrics.overlap(prediction, truth) == {"iou": pytest.approx(8 / 24), "intersection": 8, "union": 24}


def test_hd95_ignores_the_farthest_twentieth():
    truth = np.zeros((5, 1000), bool)
    truth[2, :100] = True
    prediction = truth.copy()
    prediction[2, 990:993] = True
    assert metrics.hd95(prediction, truth) == 0.0
    prediction[2, 980:999] = True
    assert metrics.hd95(prediction, truth) > 800


def test_hd95_is_the_larger_direction():
    small, large = np.zeros((2, 50, 50), bool)
    small[0, 0] = True
    large[0, :] = True
    assert metrics.hd95(small, large) == metrics.hd95(large, small) == pytest.approx(49 * 0.95)


def test_empty_masks():
    empty, something = np.zeros((2, 30, 40), bool)
    something[3, 4] = True
    assert metrics.score(empty, empty) == {"dsc": 1.0, "iou": 1.0, "hd95": 0.0, "intersection": 0, "union": 0}
    for prediction, truth in [(empty, something), (something, empty)]:
        assert metrics.score(prediction, truth) == {
            "dsc": 0.0, "iou": 0.0, "hd95": 50.0, "intersection": 0, "union": 1}


@pytest.mark.parametrize("spacing", [(0.154, 0.308), (2.0, 0.5)])
def test_hd95_in_millimetres_agrees_with_monai(spacing):
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics", reason="MONAI, the reference, is not installed")
    for prediction, truth in pairs()[:8]:
        p, t = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth))
        reference = monai.compute_hausdorff_distance(p, t, include_background=True, percentile=95, spacing=spacing)
        assert metrics.score(prediction, truth, spacing)["hd95"] == pytest.approx(reference.item(), rel=1e-4)


def test_a_pixel_twice_as_high_counts_twice_downward():
    first, second = np.zeros((2, 9, 9), bool)
    first[0, 0], second[3, 4] = True, True
    assert metrics.hd95(first, second) == 5 and metrics.hd95(first, second, (2.0, 2.0)) == 10
    assert metrics.hd95(first, second, (2.0, 0.5)) == pytest.approx(np.hypot(6, 2))
    assert metrics.hd95(first, np.zeros((9, 9), bool), (2.0, 0.5)) == pytest.approx(np.hypot(18, 4.5))
    equal = {name: value for name, value in metrics.score(first, second, (2.0, 0.5)).items() if name != "hd95"}
    assert equal.items() <= metrics.score(first, second).items(), "shares and areas stay as they are"


def test_masks_of_different_size_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(5, 4\)"):
        metrics.score(np.zeros((4, 5), bool), np.zeros((5, 4), bool))


def test_large_masks_take_little_time():
    rng = np.random.default_rng(0)
    prediction, truth = (gaussian_filter(rng.standard_normal((1000, 1000)), 60) > 0 for _ in range(2))
    start = time.process_time()
    metrics.score(prediction, truth)
    assert time.process_time() - start < 1
