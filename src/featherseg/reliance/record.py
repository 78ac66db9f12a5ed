"""The record of an examination, as `reliance.json` holds it: what `scores.score` and `measure.measure` give."""

from typing import Literal, NotRequired, TypedDict

from featherseg.models.readings import Lost

Modality = Literal["text", "image"]


class Interval(TypedDict):
    """A mean with its bootstrap interval, whose ends are None where there are too few groups for one."""

    value: float
    low: float | None
    high: float | None


class Own(Interval):
    """The DSC with each image's own prompt, and the mean IoU."""

    iou: float


class Condition(TypedDict):
    """One intervention; see `scores.score`. Its ends `low` and `high` are those of `drop`."""

    modality: Modality
    condition: str
    same_as: str | None
    n: int
    n_not_measured: int
    n_empty_prediction: int
    n_own_prompt: int
    n_cut: int
    dsc: float
    drop: float
    low: float | None
    high: float | None
    p: float
    effect: float | None
    rank_biserial: float | None
    changed: Interval
    p_holm: float


class Perceptual(TypedDict):
    """The perceptual score of one modality."""

    score: float
    low: float | None
    high: float | None


class Shapley(TypedDict):
    """What each modality adds to the DSC of neither; `why_no_shares` stands where there are no shares."""

    absent: dict[str, str]
    dsc: dict[str, float]
    gain: Interval
    shares: dict[Modality, Interval] | None
    image: Interval
    text: Interval
    why_no_shares: NotRequired[str]


class Matrix(TypedDict):
    """Mean IoU of the mask for each name's prompt (rows) with each name's truth; None for those never together."""

    names: list[str]
    iou: list[list[float | None]]


class Following(TypedDict):
    """Whether masks go where prompts say, on images with several structures."""

    n_images: int
    n_structures: int
    n_left_out: int
    accuracy: Interval
    chance: float
    n_pairs: int
    moved: Interval
    on_diagonal: float
    off_diagonal: float
    matrix: Matrix | None


class Scores(TypedDict):
    """All scores of one table of trials; of a model that was examined its controls stand beside them."""

    n_images: int
    n_samples: int
    n_groups: int
    n_empty_truth: int
    confidence: float
    draws: int
    empty_masks: str
    own: Own
    conditions: list[Condition]
    perceptual: dict[Modality, Perceptual | None]
    shapley: Shapley
    following: Following | None
    controls: NotRequired[dict[str, "Control"]]


class Control(Scores):
    """The scores of a model whose answer is known."""

    meaning: str
    decides: str


class Record(Scores):
    """An examined model: how, its scores, and what they say."""

    model: str
    data: str
    prompts: str
    threshold: float
    seed: int
    own_prompts: Lost
    fit_no_sample: list[str]
    decides: NotRequired[str]
    paragraph: NotRequired[str]
