"""Running a model over the trials: a tidy table with one row for each mask that was compared with a truth.

Each image is decoded once and each of its variants made once; each pair of them with a prompt is asked for once,
however many trials share it. Masks are compared at the image's own resolution, eight pixels a byte.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from featherseg.core.errors import UserError
from featherseg.core.progress import progress
from featherseg.data.prepared import PreparedDataset, Sample
from featherseg.reliance.trials import ImageTrials, Trial
from featherseg.tasks.segmentation.image import IMAGE
from featherseg.tasks.segmentation.image import OWN as OWN_IMAGE
from featherseg.tasks.segmentation.text import OWN as OWN_TEXT

Segment = Callable[[Sequence[np.ndarray], Sequence[str]], Iterable[np.ndarray]]
IMAGES_AT_ONCE, PIXELS_AT_ONCE = 8, 2**22
ROUNDING = 1e-3  # by which a probability may miss 0 to 1, as interpolated ones do
_Key = tuple[str, str, str]  # image, its intervention, prompt


class BadMap(Exception):
    """What a `Segment` gave is no probability map, or it gave none; the message says in which way."""


@dataclass(frozen=True)
class Mask:
    """A mask as bits, and its area in pixels."""

    bits: np.ndarray
    area: int

    @classmethod
    def of(cls, mask: np.ndarray) -> "Mask":
        """The mask of a bool array (H, W)."""
        packed = np.packbits(mask)
        bits = np.zeros(-(-len(packed) // 8), np.uint64)
        bits.view(np.uint8)[: len(packed)] = packed
        return cls(bits, int(np.bitwise_count(bits).sum()))

    def overlap(self, other: "Mask") -> tuple[float, float]:
        """DSC and IoU with another mask of the same size; two empty ones agree (`metrics.EMPTY_RULE`)."""
        common = int(np.bitwise_count(self.bits & other.bits).sum())
        total = self.area + other.area
        return (2 * common / total, common / (total - common)) if total else (1.0, 1.0)

    def stored(self) -> bytes:
        """For a table: compressed bits."""
        return zlib.compress(self.bits.tobytes())


class Row(TypedDict):
    """A row of the table: one mask beside the truth and beside that of the own prompt; `mask` is `Mask.stored`."""

    dataset: str
    split: str
    sample_id: str
    image_id: str
    group: str
    target: str
    text_condition: str
    image_condition: str
    prompt: str
    read_as: str
    cut: bool
    prompt_of: str
    dsc: float
    iou: float
    iou_with_own: float
    empty_truth: bool
    empty_prediction: bool
    height: int
    width: int
    mask: bytes | None


def unpack(stored: bytes, height: int, width: int) -> np.ndarray:
    """The mask, bool (height, width), of a table's column `mask`."""
    bits = np.frombuffer(zlib.decompress(stored), np.uint8)
    return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)


def run(segment: Segment, dataset: PreparedDataset, plan: Sequence[ImageTrials], *, seed: int, threshold: float = 0.5,
        shown: int = 0, name: str = "the model") -> pd.DataFrame:
    """Ask for every mask of a plan and compare it with the truth.

    Args:
        segment: images uint8 (H, W, 3) and as many prompts -> probability maps (H, W), in this order.
        dataset: where the images and the true masks are.
        plan: `trials.plan`.
        seed: decides, with each image's name and the intervention's, what is drawn in images.
        threshold: probability above which a pixel belongs to the mask.
        shown: the masks of so many images are kept, those with most structures first.
        name: of the model, for messages.

    Returns:
        One row a trial: dataset, split, sample_id, image_id, group, target, text_condition, image_condition, prompt,
        read_as, cut, prompt_of, dsc, iou, iou_with_own (with the mask of own image and own prompt), empty_truth,
        empty_prediction, height, width, mask (compressed bits of the shown ones, else None).

    Raises:
        UserError: an image or mask cannot be read or has another size than it was prepared with, or `segment` gives
            what is no map; image and prompt are named.
    """
    read = lru_cache(maxsize=3)(lambda path: _picture(dataset, by_path[path]))
    by_path = {trials.image: trials.sample for trials in plan}
    most = sorted(plan, key=lambda trials: -len({trial.sample.target for trial in trials.trials}))
    kept, rows = {trials.image for trials in most[:shown]}, []
    with progress(len(plan), f"interventions on {name}", "img") as bar:
        for some in _parts(plan):
            pictures = {(trials.image, condition): picture for trials in some
                        for condition, picture in _pictures(trials, read, seed)}
            masks = _masks(segment, some, pictures, threshold, name)
            for trials in some:
                rows += _rows(trials, masks, dataset, keep=trials.image in kept)
                bar.update()
    return pd.DataFrame(rows)


def _parts(plan: Sequence[ImageTrials]) -> Iterator[list[ImageTrials]]:
    """Consecutive images that a model may work on together: at most `IMAGES_AT_ONCE` and `PIXELS_AT_ONCE`, or one."""
    some: list[ImageTrials] = []
    pixels = 0
    for trials in plan:
        size = trials.sample.height * trials.sample.width
        if some and (len(some) == IMAGES_AT_ONCE or pixels + size > PIXELS_AT_ONCE):
            yield some
            some, pixels = [], 0
        some.append(trials)
        pixels += size
    if some:
        yield some


def _picture(dataset: PreparedDataset, sample: Sample) -> np.ndarray:
    picture = dataset.image(sample)
    if picture.shape[:2] != (sample.height, sample.width):
        raise UserError(f"{dataset.path / sample.image} is {picture.shape[1]}x{picture.shape[0]} pixels instead of "
                        f"{sample.width}x{sample.height}; run the prepare stage again.")
    return picture


def _pictures(trials: ImageTrials, read: Callable[[str], np.ndarray],
              seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """An image and its variants by intervention; those that cannot be made are left out."""
    picture = read(trials.image)
    other = read(trials.other.image) if trials.other else None
    for condition in dict.fromkeys(trial.image for trial in trials.trials):
        rng = np.random.default_rng([seed, *f"{condition}/{trials.image}".encode()])
        made = IMAGE[condition].make(picture, other, rng)
        if made is not None:
            yield condition, made


def _masks(segment: Segment, some: Sequence[ImageTrials], pictures: dict[tuple[str, str], np.ndarray],
           threshold: float, name: str) -> dict[_Key, Mask]:
    """The mask of every pair of picture and prompt that the trials ask for, each asked for once."""
    wanted = {(trials.image, trial.image, trial.prompt): trial for trials in some for trial in trials.trials}
    asked = sorted((key for key in wanted if key[:2] in pictures), key=_by_picture)
    given = [pictures[key[:2]] for key in asked]
    maps = iter(segment(given, [prompt for _, _, prompt in asked]))
    masks: dict[_Key, Mask] = {}
    for key, picture in zip(asked, given, strict=True):
        trial = wanted[key]
        try:
            masks[key] = Mask.of(_checked(next(maps, None), picture.shape[:2]) > threshold)
        except BadMap as fault:
            changed = "" if trial.image == OWN_IMAGE else f" under {trial.image}"
            raise UserError(f"{name} {fault} (image {trial.sample.image_id!r}{changed}, prompt {key[2]!r}); it gets "
                            "an image uint8 (H, W, 3) and a prompt, and gives a mask (H, W), bool or "
                            "probabilities.") from fault.__cause__
    return masks


def _by_picture(key: _Key) -> tuple[str, bool, str]:
    """Sorts all prompts of one picture together, those of the own image first."""
    image, condition, _ = key
    return image, condition != OWN_IMAGE, condition


def _checked(given: Any, size: tuple[int, int]) -> np.ndarray:
    """What a segment gave, as an array (H, W).

    Raises:
        BadMap: it is nothing, has another shape or type, or values that are no probabilities.
    """
    if given is None:
        raise BadMap("gives no mask")
    try:
        array = np.asarray(given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a foreign array type raises
        raise BadMap(f"gives {type(given).__name__}, which is no array ({' '.join(str(error).split())})") from error
    if array.dtype.kind not in "biuf":
        raise BadMap(f"gives {type(given).__name__} of type {array.dtype}")
    if array.shape != size:
        raise BadMap(f"gives shape {array.shape} for an image of {size[0]} rows and {size[1]} columns")
    if array.dtype == bool:
        return array
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not np.isfinite([low, high]).all():
        raise BadMap("gives values that are no numbers (NaN or infinite)")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise BadMap(f"gives values from {low:g} to {high:g} instead of 0 to 1")
    return array


def _rows(trials: ImageTrials, masks: dict[_Key, Mask], dataset: PreparedDataset, keep: bool) -> list[Row]:
    samples = {trial.sample.sample_id: trial.sample for trial in trials.trials}
    truths = {sample_id: Mask.of(dataset.mask(sample)) for sample_id, sample in samples.items()}
    own = {trial.sample.sample_id: masks[trials.image, OWN_IMAGE, trial.prompt] for trial in trials.trials
           if (trial.condition, trial.image) == (OWN_TEXT, OWN_IMAGE)}
    return [_row(trial, masks[key], truths[trial.sample.sample_id], own[trial.sample.sample_id], keep)
            for trial in trials.trials if (key := (trials.image, trial.image, trial.prompt)) in masks]


def _row(trial: Trial, mask: Mask, truth: Mask, own: Mask, keep: bool) -> Row:
    sample: Sample = trial.sample
    dsc, iou = mask.overlap(truth)
    return {"dataset": sample.dataset, "split": sample.split, "sample_id": sample.sample_id,
            "image_id": sample.image_id, "group": sample.group, "target": sample.target,
            "text_condition": trial.condition, "image_condition": trial.image, "prompt": trial.prompt,
            "read_as": trial.read_as, "cut": trial.cut, "prompt_of": trial.prompt_of, "dsc": dsc, "iou": iou,
            "iou_with_own": mask.overlap(own)[1], "empty_truth": truth.area == 0, "empty_prediction": mask.area == 0,
            "height": sample.height, "width": sample.width, "mask": mask.stored() if keep else None}
