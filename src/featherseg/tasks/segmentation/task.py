"""Segmentation as a task: the one list of its metrics, and where each of its parts is.

What computes is imported when it is needed, so that a plan can be read at once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featherseg.config import Run
from featherseg.tasks.base import TASKS, Metric, Score, Task
from featherseg.tasks.segmentation.config import SegmentationEvaluate, SegmentationTrain

if TYPE_CHECKING:
    from featherseg.data.prepared import PreparedDataset, Sample
    from featherseg.models.base import SegmentationModel
    from featherseg.tasks.segmentation.objective import SegmentationObjective

DSC, IOU, HD95 = "dsc", "iou", "hd95"
PIXEL, MILLIMETRE, MASKS = "px", "mm", "masks"
MIOU, OIOU = "mIoU", "oIoU"
PRECISIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
# masks that are counted beside the means: missed are empty predictions of what is there, flooded those that cover
# nearly all of an image whose truth does not, and own_prompt those for which a condition had no prompt but their own
COUNTED = ("n_empty_truth", "n_empty_prediction", "n_own_prompt", "n_missed", "n_flooded")


@TASKS.register("segmentation")
class Segmentation(Task["SegmentationModel"]):
    """One mask for each image and prompt, compared with the true one at original resolution."""

    name = "segmentation"
    metrics = (
        Metric(DSC, by_target=True),
        Metric(HD95, PIXEL, higher_is_better=False),
        Metric(IOU),
        *(Metric(name, MASKS, higher_is_better=None, average="count", by_target=True)
          for name in COUNTED),
        Metric(MIOU),
        Metric(OIOU, average="ratio"),
        *(Metric(f"P@{least}", average="share") for least in PRECISIONS),
    )
    train_settings = SegmentationTrain
    evaluate_settings = SegmentationEvaluate

    def build(self, run: Run) -> "SegmentationModel":
        """A text-prompted model of the registry with its method."""
        from featherseg import adapters, models

        return adapters.apply(models.build(run.model, run.seed), run.adapter, run.seed)

    def objective(self, run: Run, model: "SegmentationModel", dataset: "PreparedDataset") -> "SegmentationObjective":
        """Dice and cross-entropy of masks."""
        from featherseg.tasks.segmentation.objective import SegmentationObjective

        return SegmentationObjective(run, model, dataset)

    def evaluate(self, run: Run, model: "SegmentationModel", dataset: "PreparedDataset",
                 splits: "dict[str, list[Sample]]", out: Path) -> Iterator[Score]:
        """DSC, IoU, HD95, the measures of referring segmentation, and what is counted beside them."""
        from featherseg.tasks.segmentation.evaluate import evaluate

        return evaluate(run, model, dataset, splits, out)

    def plan_notes(self, runs: Sequence[Run]) -> list[str]:
        """The prompts that models cut or cannot tell apart."""
        from featherseg.tasks.segmentation.lost_prompts import lost_prompts

        return lost_prompts(runs)
