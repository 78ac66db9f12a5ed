"""Scores of a segmentation run at original resolution, and a first language check.

Every sample of a split is segmented with its `own` prompt, with an empty one (`none`), with that of an `other` sample,
and, where all have one, with the class name alone (`class_only`, P1): fuller prompts may be made from the true mask. A
model that listens loses much under the second and third; one that looks only at the image does not notice. These
conditions are interventions of the reliance suite (`text.py`).

Under the policy `sentences` each of a sample's sentences (its fullest prompt where it has none) is an own prompt,
scored by itself and at both thresholds of `referring.py`. Nothing is drawn from a global generator, and each split is
planned and encoded by itself: its scores depend neither on what ran before nor on the other splits.
Prompts that the model cannot tell apart, because it cuts them or reads neither case nor spaces, are one prompt
(`readings`): an `other` prompt is one that the model reads as another one.

Beside the scores it keeps:

- `predictions.parquet`: one row per sample, text condition and sentence (its place among the sample's, 0 where there is
  one): the prompt, the mask as COCO run lengths, its DSC, and whether it or the truth is empty.
- `metrics.json`: the rules of measurement, and for each split how many own prompts the model cuts or cannot tell
  apart, and how many targets share their prompt or vanish at the model's input size.

HD95 is in millimetres where every sample of the split knows its pixels' spacing, else in pixels.
"""

import itertools
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import torch
from pycocotools import mask as coco

from featherseg.config import Run
from featherseg.core.files import write_json
from featherseg.core.progress import progress
from featherseg.data.facts import count_alike, prompt_keys
from featherseg.data.prepared import SENTENCES, PreparedDataset, Sample
from featherseg.models.base import SegmentationModel
from featherseg.models.readings import Lost, Readings, losses
from featherseg.tasks.base import Score
from featherseg.tasks.segmentation import referring
from featherseg.tasks.segmentation.config import SegmentationEvaluate, scoring_of
from featherseg.tasks.segmentation.features import FeatureBank
from featherseg.tasks.segmentation.metrics import (
    AVERAGED,
    EMPTY_RULE,
    PIXELS,
    overlap,
    score,
)
from featherseg.tasks.segmentation.pixels import PixelDataset
from featherseg.tasks.segmentation.predict import Asked, segment
from featherseg.tasks.segmentation.task import COUNTED, HD95, MILLIMETRE, PIXEL
from featherseg.tasks.segmentation.trials import OWN, Trial, own_prompts, plan_trials

NEARLY_ALL = 0.9  # share of the image above which a mask covers nearly all of it


class Prediction(TypedDict):
    """A row of `predictions.parquet`; see the module's docstring."""

    dataset: str
    sample_id: str
    split: str
    sentence: int
    text_condition: str
    image_condition: str
    prompt: str
    prompt_of: str
    threshold: float
    grid: str
    dsc: float
    empty_truth: bool
    empty_prediction: bool
    height: int
    width: int
    rle: str


def evaluate(run: Run, model: SegmentationModel, dataset: PreparedDataset, splits: dict[str, list[Sample]],
             out: Path) -> Iterator[Score]:
    """Scores of every trial, split by split; writes `predictions.parquet` and `metrics.json` into `out` at the end.

    Args:
        run: the resolved run.
        model: as it was trained, in eval mode.
        dataset: where images and true masks are.
        splits: the samples of each split that is scored.
        out: an existing folder.
    """
    settings, pixels = scoring_of(run), PixelDataset(dataset, model.resize)
    predictions: list[Prediction] = []
    prompts: dict[str, Lost] = {}
    targets: dict[str, dict[str, int]] = {}
    for split, samples in splits.items():
        own = {sample.sample_id: own_prompts(sample, settings.prompts, run.seed) for sample in samples}
        unit = distance_unit(samples, f"{run.dataset}, split {split}")
        readings = Readings(model.read, itertools.chain(*own.values()))
        trials = plan_trials(samples, settings.prompts, run.seed, readings)
        maps = probability_maps(model, pixels, trials, settings.batch_size)
        with progress(len(trials), f"scoring {run.name}, {split}", "mask") as bar:
            for trial, probabilities, truth in _beside_truths(trials, maps, dataset):
                rows = score_rows(trial, probabilities, truth, settings, unit)
                own_prompt = readings.is_among(trial.prompt, own[trial.sample.sample_id])
                yield from scores_of(trial, rows, own_prompt, run)
                predictions.append(prediction_row(trial, probabilities > settings.threshold, rows[0]))
                bar.update()
        prompts[split] = readings.count(trial.prompt for trial in trials if trial.condition == OWN)
        targets[split] = count_targets(samples, pixels, settings.prompts, run.seed)
    pd.DataFrame(predictions).to_parquet(out / "predictions.parquet", index=False)
    for split, counted in prompts.items():
        for sentence in losses(counted):
            print(f"{run.name}, split {split}: {sentence}", file=sys.stderr)
    write_json(out / "metrics.json", {"empty_masks": EMPTY_RULE, "referring_measures": referring.RULE,
                                      "prompts": prompts, "targets": targets})


def _beside_truths(trials: list[Trial], maps: Iterator[np.ndarray],
                   dataset: PreparedDataset) -> Iterator[tuple[Trial, np.ndarray, np.ndarray]]:
    """Each trial with its probability map and the true mask, which is read once for the trials of a sample."""
    pairs = zip(trials, maps, strict=True)
    for _, of_sample in itertools.groupby(pairs, lambda pair: pair[0].sample.sample_id):
        truth = None
        for trial, probabilities in of_sample:
            truth = dataset.mask(trial.sample) if truth is None else truth
            yield trial, probabilities, truth


def count_targets(samples: list[Sample], pixels: PixelDataset, policy: str, seed: int) -> dict[str, int]:
    """Targets that a model cannot be expected to find, whatever it has learned.

    Args:
        samples: those of the split.
        pixels: of the dataset at the model's input size.
        policy, seed: which prompt is a sample's own.

    Returns:
        n: samples. alike: those with an own prompt that another target of their image has too (`facts.count_alike`).
        vanishing: those whose mask has no pixel left at the model's input size.
    """
    numbers = {sample.sample_id: number for number, sample in enumerate(pixels.samples)}
    shown = [sample for sample in samples if sample.area_fraction]
    vanishing = sum(not pixels.masks([numbers[sample.sample_id]]).any() for sample in shown)
    asked = [prompt_keys(sample.image, own_prompts(sample, policy, seed)) for sample in samples]
    return {"n": len(samples), "alike": count_alike(asked), "vanishing": vanishing}


def distance_unit(samples: list[Sample], where: str) -> str:
    """The unit of HD95: millimetres where all samples know their pixels' spacing, else pixels."""
    unknown = sum(sample.spacing is None for sample in samples)
    if 0 < unknown < len(samples):
        print(f"{where}: {unknown} of {len(samples)} samples have no pixel_spacing, so HD95 is in pixels for all",
              file=sys.stderr)
    return PIXEL if unknown else MILLIMETRE


def score_rows(trial: Trial, probabilities: np.ndarray, truth: np.ndarray, settings: SegmentationEvaluate,
               unit: str = PIXEL) -> list[dict[str, Any]]:
    """What is known of one trial, a column for each metric: one row at the threshold of the settings, and, where
    sentences are scored, one with `iou`, `intersection` and `union` at each other threshold of `referring.py`."""
    rows, sentence = [], trial.condition == OWN and settings.prompts == SENTENCES
    spacing = (trial.sample.spacing if unit == MILLIMETRE else None) or PIXELS
    for threshold in dict.fromkeys((settings.threshold, *(referring.THRESHOLDS if sentence else ()))):
        prediction, chosen = probabilities > threshold, threshold == settings.threshold
        measured = score(prediction, truth, spacing) if chosen else overlap(prediction, truth)
        found, nearly_all = truth.any(), prediction.mean() > NEARLY_ALL >= truth.mean()
        rows.append({
            "threshold": threshold, "empty_truth": not found, "empty_prediction": not prediction.any(),
            "missed": bool(found and not prediction.any()), "flooded": bool(nearly_all),
            "hd95_unit": unit, **measured})
    return rows


def scores_of(trial: Trial, rows: list[dict[str, Any]], own_prompt: bool, run: Run) -> Iterator[Score]:
    """What one trial adds to the run's records.

    Args:
        rows: `score_rows`; the one at the settings' threshold counts for itself, and those of sentences at the
            thresholds of `referring.py` for its measures, of the first sentence and of all.
        own_prompt: whether the model reads its prompt as one of the sample's own.
        run: says which data set is not a pooled set's member.
    """
    settings, sample = scoring_of(run), trial.sample
    member = "" if sample.dataset == run.dataset else sample.dataset
    for row in rows:
        score_at = partial(Score, sample.sample_id, sample.split, member=member, target=sample.target,
                           condition=trial.condition, threshold=row["threshold"])
        if row["threshold"] == settings.threshold:
            for name in AVERAGED:
                yield score_at(name, row[name], unit=row["hd95_unit"] if name == HD95 else "")
            for name in COUNTED:
                flag = name.removeprefix("n_")
                yield score_at(name, float(own_prompt if flag == "own_prompt" else row[flag]))
        if trial.condition == OWN and settings.prompts == SENTENCES and row["threshold"] in referring.THRESHOLDS:
            for scope in (referring.FIRST, referring.ALL)[trial.sentence > 0:]:
                yield from referring.scores(partial(score_at, scope=scope), row)


def prediction_row(trial: Trial, prediction: np.ndarray, row: dict[str, Any]) -> Prediction:
    """One trial's mask, as run lengths, with its DSC and whether it or the truth is empty.

    Args:
        row: of `score_rows`, at the settings' threshold.
    """
    sample = trial.sample
    return {
        "dataset": sample.dataset, "sample_id": sample.sample_id, "split": sample.split, "sentence": trial.sentence,
        "text_condition": trial.condition, "image_condition": OWN, "prompt": trial.prompt,
        "prompt_of": trial.prompt_of, "threshold": row["threshold"], "grid": "original", "dsc": row["dsc"],
        "empty_truth": row["empty_truth"], "empty_prediction": row["empty_prediction"], "height": sample.height,
        "width": sample.width, "rle": run_lengths(prediction)}


def probability_maps(model: SegmentationModel, pixels: PixelDataset, trials: list[Trial],
                     batch_size: int) -> Iterator[np.ndarray]:
    """Probability maps, float32 (H, W) at original resolution, of trials that stand image by image."""
    row_of = {sample.image: row for sample, row in zip(pixels.samples, pixels.image_rows, strict=True)}
    asked = [Asked(row_of[trial.sample.image], trial.prompt, (trial.sample.height, trial.sample.width))
             for trial in trials]
    with torch.inference_mode():
        rows = [one.key for one in asked]
        bank = FeatureBank(model, pixels, rows, [one.prompt for one in asked])
    return segment(model, bank, asked, batch_size, images_at_once=batch_size)


def run_lengths(mask: np.ndarray) -> str:
    """A bool mask (H, W) as COCO's compressed run lengths."""
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")
