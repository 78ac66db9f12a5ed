"""The referring measures against values worked out by hand and against torchmetrics."""

import numpy as np
import pytest
from test_metrics import blob

from featherseg.tasks.segmentation import metrics, referring


def test_values_by_hand():
    found = referring.measures(iou=[1.0, 0.5, 0.2, 0.95], intersection=[10, 50, 20, 95], union=[10, 100, 100, 100])
    assert found == {"mIoU": pytest.approx(2.65 / 4), "oIoU": pytest.approx(175 / 310), "P@0.5": 0.5, "P@0.6": 0.5,
                     "P@0.7": 0.5, "P@0.8": 0.5, "P@0.9": 0.5}
    assert tuple(found) == referring.MEASURES


def test_precision_is_strict_as_in_the_released_code():
    found = referring.measures([0.5, 0.55, 0.65, 0.75, 0.85, 0.95], [1] * 6, [2] * 6)
    assert [round(6 * found[f"P@0.{k}"]) for k in (5, 6, 7, 8, 9)] == [5, 4, 3, 2, 1]


def test_agrees_with_torchmetrics():
    torch = pytest.importorskip("torch")
    jaccard = pytest.importorskip("torchmetrics.classification", reason="the reference").BinaryJaccardIndex
    rng = np.random.default_rng(3)
    truths = [blob(rng, 40, 60) for _ in range(12)]
    pairs = [(np.roll(truth, shift, axis=1), truth) for shift, truth in enumerate(truths)]
    overall, each, rows = jaccard(), [], []
    for prediction, truth in pairs:
        alone = jaccard()
        for metric in (overall, alone):
            metric.update(torch.from_numpy(prediction), torch.from_numpy(truth).long())
        each.append(alone.compute().item())
        rows.append(metrics.overlap(prediction, truth))
    found = referring.measures(*([row[name] for row in rows] for name in ("iou", "intersection", "union")))
    assert found["oIoU"] == pytest.approx(overall.compute().item(), abs=1e-6)
    assert found["mIoU"] == pytest.approx(np.mean(each), abs=1e-6)
    assert found["P@0.5"] == pytest.approx(np.mean(np.array(each) > 0.5)) and 0 < found["P@0.5"] < 1
    assert abs(found["mIoU"] - found["oIoU"]) > 0.005, "mean and overall IoU are the same here"


def test_two_empty_masks_agree_and_add_nothing_to_the_overall_measure():
    found = referring.measures(iou=[1.0, 0.25], intersection=[0, 10], union=[0, 40])
    assert (found["mIoU"], found["oIoU"], found["P@0.9"]) == (0.625, 0.25, 0.5)
    assert referring.measures([1.0], [0], [0])["oIoU"] == 1.0


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ValueError, match="no expression"):
        referring.measures([], [], [])
