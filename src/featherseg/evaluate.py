"""Scores of one run at original resolution, and a first language check.

Every sample of the split is segmented three times: with its `own` prompt, with the `empty` one, and with
that of an `other` sample. A model that listens loses much under the last two; one that looks only at the
image does not notice. Nothing is drawn from a global generator: scores do not depend on what ran before.

What is written, into one folder:

- `per_sample.parquet`: one row per sample, text condition and metric.
- `predictions.parquet`: one row per sample and text condition, the mask as COCO run lengths.
- `metrics.json`: means and standard deviations over samples, by text condition and by target, beside the
  numbers of samples, of empty masks, and of samples for which the condition had no prompt but their own.
- `status.json`: ok, or not_run with the reason (then nothing else is there).
"""

import bisect
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pycocotools import mask as coco

from featherseg.config import Run
from featherseg.data.prepared import PreparedDataset, Sample, prompt_of
from featherseg.data.torch_dataset import PixelDataset
from featherseg.errors import UserError
from featherseg.features import FeatureBank
from featherseg.files import atomic_path, not_run_reason, write_json, write_status
from featherseg.metrics import EMPTY_RULE, METRICS, score
from featherseg.models.base import SegmentationModel
from featherseg.predict import Query, batches, decode_queries, encode_prompts, load_model
from featherseg.progress import progress

OWN, EMPTY, OTHER = "own", "empty", "other"


@dataclass(frozen=True)
class Trial:
    """One segmentation to be scored.

    Attributes:
        sample: whose image is segmented and whose mask is the truth.
        condition: where the prompt comes from: `own`, `empty` or `other`.
        prompt: the prompt.
        prompt_of: sample id of the prompt's owner, "" for the empty prompt.
    """

    sample: Sample
    condition: str
    prompt: str
    prompt_of: str


def evaluate(run: Run, data_dir: Path, train_dir: Path, out_dir: Path) -> None:
    """Score a trained run, or hand on the reason for which its data, weights or training are not there.

    Args:
        run: the resolved run.
        data_dir: the prepared dataset.
        train_dir: the run's checkpoint and status.
        out_dir: the folder to be written, complete or not at all.

    Raises:
        UserError: the split has no samples, or data, weights or checkpoint are absent, damaged or do not fit.
    """
    reason = run.not_run or not_run_reason(data_dir) or not_run_reason(train_dir)
    with atomic_path(out_dir) as folder:
        folder.mkdir()
        if reason is None:
            _score_run(run, PreparedDataset.read(data_dir), train_dir, folder)
        write_status(folder, reason)


def _score_run(run: Run, dataset: PreparedDataset, train_dir: Path, folder: Path) -> None:
    settings = run.evaluate
    samples = dataset.split(settings.split)
    if not samples:
        found = ", ".join(sorted({sample.split for sample in dataset.samples})) or "(none)"
        raise UserError(f"dataset '{run.dataset}' has no samples in split '{settings.split}'; set "
                        f"evaluate.split to one that it has ({found}), or prepare it with such samples.")
    trials = plan_trials(samples, settings.prompts, run.seed)
    model = load_model(run, train_dir)
    maps = probability_maps(model, dataset, trials, settings.batch_size)
    scores, predictions = [], []
    with progress(len(samples), f"scoring {run.name}", "sample") as bar:
        for trial, probabilities in zip(trials, maps, strict=True):
            sample, prediction = trial.sample, probabilities > settings.threshold
            if trial.condition == OWN:
                truth = dataset.mask(sample)
                bar.update()
            row = {"dataset": sample.dataset, "sample_id": sample.sample_id,
                   "text_condition": trial.condition, "image_condition": OWN, "prompt": trial.prompt,
                   "prompt_of": trial.prompt_of, "threshold": settings.threshold, "grid": "original"}
            flags = {"target": sample.target, "empty_truth": not truth.any(),
                     "empty_prediction": not prediction.any()}
            scores += [row | flags | {"metric": metric, "value": value}
                       for metric, value in score(prediction, truth).items()]
            predictions.append(row | {"height": sample.height, "width": sample.width,
                                      "rle": run_lengths(prediction)})
    per_sample = pd.DataFrame(scores)
    per_sample.to_parquet(folder / "per_sample.parquet", index=False)
    pd.DataFrame(predictions).to_parquet(folder / "predictions.parquet", index=False)
    parameters = list(model.parameters())
    write_json(folder / "metrics.json", {
        "run": run.name, "dataset": run.dataset, "split": settings.split, "prompts": settings.prompts,
        "threshold": settings.threshold, "grid": "original", "empty_masks": EMPTY_RULE,
        "conditions": summarise(per_sample),
        "trainable_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "total_parameters": sum(parameter.numel() for parameter in parameters)})


def plan_trials(samples: list[Sample], policy: str, seed: int) -> list[Trial]:
    """The trials of some samples, image by image, the three of one sample together.

    The other prompt is one that differs from the sample's own: that of another target of the same image where
    there is one, else that of any other sample. Where all samples share one prompt there is only that.

    Args:
        samples: those of the split, in any order.
        policy: level of the own prompt (`prompt_of`).
        seed: decides, together with the sample's id, which other prompt, and which own one where the policy
            is `random`.
    """
    own = {}
    for sample in samples:
        rng = random.Random(f"own/{seed}/{sample.sample_id}") if policy == "random" else None
        own[sample.sample_id] = prompt_of(sample, policy, rng)
    others = _Others(samples, own)
    trials = []
    for sample in sorted(samples, key=lambda sample: (sample.image, sample.sample_id)):
        other = others.draw(sample, random.Random(f"other/{seed}/{sample.sample_id}"))
        trials += [Trial(sample, OWN, own[sample.sample_id], sample.sample_id), Trial(sample, EMPTY, "", ""),
                   Trial(sample, OTHER, own[other], other)]
    return trials


class _Others:
    """Draws samples with another prompt, without looking at all samples each time.

    Args:
        samples: those to draw from.
        own: prompt by sample id.
    """

    def __init__(self, samples: list[Sample], own: dict[str, str]) -> None:
        self._own = own
        self._by_image: dict[str, list[str]] = defaultdict(list)
        for sample_id, image in sorted((sample.sample_id, sample.image) for sample in samples):
            self._by_image[image].append(sample_id)
        # equal prompts stand side by side, so the samples with another prompt are all but one stretch
        self._ids = sorted(own, key=lambda sample_id: (own[sample_id], sample_id))
        self._prompts = [own[sample_id] for sample_id in self._ids]

    def draw(self, sample: Sample, rng: random.Random) -> str:
        """Id of a sample with another prompt, of the same image if possible; its own id if there is none."""
        prompt = self._own[sample.sample_id]
        nearby = [other for other in self._by_image[sample.image] if self._own[other] != prompt]
        if nearby:
            return rng.choice(nearby)
        first, last = bisect.bisect_left(self._prompts, prompt), bisect.bisect_right(self._prompts, prompt)
        if last - first == len(self._ids):
            return sample.sample_id
        place = rng.randrange(len(self._ids) - (last - first))
        return self._ids[place if place < first else place + last - first]


@torch.inference_mode()
def probability_maps(model: SegmentationModel, dataset: PreparedDataset, trials: list[Trial],
                     batch_size: int) -> Iterator[np.ndarray]:
    """Probability maps, float32 (H, W) at original resolution, of trials that stand image by image.

    Each prompt and each image is encoded once, however many trials share it; what is encoded or decoded
    together depends on the trials alone.
    """
    pixels = PixelDataset(dataset, model.image_size)
    row_of = {sample.image: row for sample, row in zip(pixels.samples, pixels.image_rows, strict=True)}
    prompts = [trial.prompt for trial in trials]
    bank = FeatureBank(model, pixels, [row_of[trial.sample.image] for trial in trials], prompts)
    text, text_of = encode_prompts(prompts, bank.texts, next(model.parameters()).device, batch_size)
    images = [list(group) for _, group in itertools.groupby(trials, lambda trial: trial.sample.image)]
    for some_images in batches(images, batch_size):
        vision = bank.images([row_of[group[0].sample.image] for group in some_images])
        queries = [Query(place, text_of[trial.prompt], (trial.sample.height, trial.sample.width))
                   for place, group in enumerate(some_images) for trial in group]
        yield from decode_queries(model, vision, text, queries, batch_size)


def summarise(per_sample: pd.DataFrame) -> dict[str, Any]:
    """Means of `per_sample.parquet`, by text condition.

    Returns:
        condition -> {dsc, iou, hd95: {mean, std}, n, n_empty_truth, n_empty_prediction, n_own_prompt,
        targets: {target -> the same}}. std is that of the samples at hand, not an estimate for others.
    """
    own = per_sample[per_sample.text_condition == OWN].groupby("sample_id").prompt.first()
    rows = per_sample.assign(own_prompt=per_sample.prompt == per_sample.sample_id.map(own))
    return {condition: {**_means(part), "targets": {name: _means(of) for name, of in part.groupby("target")}}
            for condition, part in rows.groupby("text_condition")}


def _means(rows: pd.DataFrame) -> dict[str, Any]:
    by_metric = {metric: rows[rows.metric == metric] for metric in METRICS}
    means = {metric: {"mean": float(part.value.mean()), "std": float(part.value.std(ddof=0))}
             for metric, part in by_metric.items()}
    samples = by_metric["dsc"]
    flags = ("empty_truth", "empty_prediction", "own_prompt")
    return {**means, "n": len(samples), **{f"n_{flag}": int(samples[flag].sum()) for flag in flags}}


def run_lengths(mask: np.ndarray) -> str:
    """A bool mask (H, W) as COCO's compressed run lengths."""
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")
