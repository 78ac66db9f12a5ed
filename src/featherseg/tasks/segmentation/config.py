"""The keys of a segmentation run's sections `train` and `evaluate` that other tasks do not have."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, Field, model_validator

from featherseg.config import EvaluateConfig, Positive, Run, Several, Strict, TrainConfig
from featherseg.core.registry import unknown

if TYPE_CHECKING:
    from featherseg.tasks.segmentation.interventions import Interventions

PROMPT_LEVELS = tuple(f"p{k}" for k in range(10))
PromptPolicy = Literal["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "unique", "fullest", "random"]
LossForm = Literal["logits", "published_dice_only", "published_second_sigmoid"]
Shrinking = Literal["nearest_exact", "published_nearest"]
Plateau = Literal["dsc", "published_loss"]
Selection = Literal["dsc", "published_iou"]


def _text_intervention(name: str) -> str:
    from featherseg.tasks.segmentation.text import TEXT  # what decides numbers stays out of what a plan needs

    return _known(name, TEXT)


def _image_intervention(name: str) -> str:
    from featherseg.tasks.segmentation.image import IMAGE

    return _known(name, IMAGE)


def _known(name: str, interventions: "Interventions") -> str:
    if name not in interventions:
        raise ValueError(str(unknown(interventions.kind, name, list(interventions))).removesuffix("."))
    return name


TextIntervention = Annotated[str, AfterValidator(_text_intervention)]
ImageIntervention = Annotated[str, AfterValidator(_image_intervention)]


class LossConfig(Strict):
    """Dice plus cross-entropy (VLSM-Adapter: 1.5 and 1; MedVLSM: 1 and 0.2).

    `form` says what is handed to it: `logits` (correct), or what the released code computes once it has
    applied a sigmoid itself: `published_dice_only` (MONAI 1.1.0: the cross-entropy of one channel is 0) or
    `published_second_sigmoid` (MONAI 1.3.2: the cross-entropy applies a sigmoid again).
    `grid` is the resolution at which it is computed: the model's `input` or the head's own. `shrink` says which pixel
    of the input's mask the head's grid takes: the one at a cell's centre (`nearest_exact`), or the first one of each
    cell (`published_nearest`: ETRIS, CRIS and DETRIS).
    """

    form: LossForm = "logits"
    lambda_dice: Annotated[float, Field(ge=0)] = 1.5
    lambda_ce: Annotated[float, Field(ge=0)] = 1.0
    grid: Literal["input", "head"] = "input"
    shrink: Shrinking = "nearest_exact"

    @model_validator(mode="before")
    @classmethod
    def _forget_the_name(cls, value: Any) -> Any:
        """Earlier checkpoints name the one loss that there is."""
        if isinstance(value, dict) and value.get("name") == "dice_ce":
            return {key: given for key, given in value.items() if key != "name"}
        return value

    @model_validator(mode="after")
    def _something_is_minimised(self) -> Self:
        if self.lambda_dice == 0 and (self.lambda_ce == 0 or self.form == "published_dice_only"):
            raise ValueError("lambda_dice and lambda_ce leave nothing to minimise (published_dice_only has no "
                             "cross-entropy); set one of them above 0")
        return self


class SegmentationTrain(TrainConfig):
    """Training of a segmentation run.

    `prompts` is the policy by which a training prompt is drawn, `val_prompts` the one of validation. `plateau_on` is
    what the plateau schedule waits for: a better validation DSC (`dsc`), or a lower validation loss, as in MedVLSM's
    and VLSM-Adapter's released code. `selection` chooses the epoch that is kept, and stops early: by validation DSC at
    the input's size, the first of equal epochs, or, as in CRIS, ETRIS and DETRIS (`published_iou`), by mean IoU at
    original size, the last of equal ones; both at probability `val_threshold`. `share` is that of the training images
    to train on, each with all of its targets, drawn from the seed; the images of a smaller share are among those of a
    larger one.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    plateau_on: Plateau = "dsc"
    prompts: PromptPolicy = "random"
    val_prompts: PromptPolicy = "fullest"
    selection: Selection = "dsc"
    val_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    cache_features: bool = True
    loss: LossConfig = LossConfig()

    def idle(self) -> set[str]:
        """Names of the fields that have no effect beside the others."""
        idle = super().idle() | (set() if self.schedule == "plateau" else {"plateau_on"})
        return idle | ({"share"} if self.share == 1 else set())


class RelianceConfig(Strict):
    """How a run's reliance on image and text is measured (`featherseg.reliance`).

    `text` and `image` name interventions beside those that the verdict needs; null is all of them but `other`, which
    is tried on request only. `images` is the number of images of a split at most, one of each patient before a second
    of any; null is all of them. `draws` is that of the bootstrap.
    """

    text: Several[TextIntervention] | None = None
    image: Several[ImageIntervention] | None = None
    images: Positive | None = None
    draws: Positive = 2000


class SegmentationEvaluate(EvaluateConfig):
    """Scoring of a segmentation run: with which prompt, at which probability threshold.

    `prompts` is the policy of the own prompt; `sentences` scores every sentence of a target by itself. `reliance` is
    null where reliance is not measured.
    """

    prompts: PromptPolicy | Literal["sentences"] = "fullest"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    reliance: RelianceConfig | None = None


def training_of(run: Run) -> SegmentationTrain:
    """The settings of a segmentation run's training; raises `ValueError` where nothing is trained."""
    return cast(SegmentationTrain, run.training)


def scoring_of(run: Run) -> SegmentationEvaluate:
    """The settings of a segmentation run's scoring."""
    return cast(SegmentationEvaluate, run.evaluate)
