"""Scores of one run at original resolution, and a first language check.

Every sample of a split is segmented with its `own` prompt, with the `empty` one, with that of an `other` sample, and,
where all have one, with the `class_name` alone (P1): fuller prompts may be made from the true mask. A model that
listens loses much under the second and third; one that looks only at the image does not notice.

Under the policy `sentences` each of a sample's sentences (its fullest prompt where it has none) is an own prompt,
scored by itself and at both thresholds of `referring.py`. Nothing is drawn from a global generator, and each split is
planned and encoded by itself: its scores depend neither on what ran before nor on the other splits.
Prompts that the model cannot tell apart, because it cuts them or reads neither case nor spaces, are one prompt
(`readings`): an `other` prompt is one that the model reads as another one.

What is written, into one folder:

- `per_sample.parquet`: one row per sample, text condition, sentence (its place among the sample's, 0 where
  there is one), threshold and metric, with the value's unit: HD95 is in millimetres where every sample of the split
  knows its pixels' spacing, else in pixels.
- `predictions.parquet`: one row per sample, text condition and sentence, the mask as COCO run lengths.
- `metrics.json`: for each split, means and standard deviations over what was segmented, by text condition, by
  target and by data set (the members of a pooled one), beside the numbers of masks, of empty ones, and of samples
  for which the condition had no prompt but their own; how many own prompts the model cuts or cannot tell apart;
  under the policy `sentences`, the measures of `referring.py`; and how many targets share their prompt or vanish at
  the model's input size.
- `reliance.parquet`, `reliance.json`: where the settings ask for it, every trial of `featherseg.reliance`, and for
  each split what follows from them.
- `status.json`: ok, or not_run with the reason (then nothing else is there).
"""

import bisect
import functools
import itertools
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pycocotools import mask as coco

from featherseg.config import EvaluateConfig, Run
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, not_run_reason, write_json, write_status
from featherseg.core.progress import progress
from featherseg.data.facts import count_alike, prompt_keys
from featherseg.data.prepared import PreparedDataset, Sample, prompt_of
from featherseg.data.splits import missing_splits
from featherseg.models.base import SegmentationModel
from featherseg.models.readings import Readings, as_text, losses
from featherseg.resume import forget
from featherseg.tasks.segmentation import referring
from featherseg.tasks.segmentation.features import FeatureBank
from featherseg.tasks.segmentation.metrics import (
    AVERAGED,
    EMPTY_RULE,
    METRICS,
    MILLIMETRE,
    PIXEL,
    PIXELS,
    UNITS,
    overlap,
    score,
)
from featherseg.tasks.segmentation.pixels import PixelDataset
from featherseg.tasks.segmentation.predict import (
    Query,
    batches,
    decode_queries,
    encode_prompts,
    iterate_probabilities,
    load_model,
)

OWN, EMPTY, OTHER, CLASS_NAME = "own", "empty", "other", "class_name"
SENTENCES = "sentences"
NEARLY_ALL = 0.9  # share of the image above which a mask covers nearly all of it


@dataclass(frozen=True)
class Trial:
    """One segmentation to be scored.

    Attributes:
        sample: whose image is segmented and whose mask is the truth.
        condition: where the prompt comes from: `own`, `empty`, `other` or `class_name`.
        prompt: the prompt.
        prompt_of: sample id of the prompt's owner, "" for the empty prompt.
        sentence: the own prompt's place among the sample's sentences, 0 where there is one.
    """

    sample: Sample
    condition: str
    prompt: str
    prompt_of: str
    sentence: int = 0


def evaluate(run: Run, data_dir: Path, train_dir: Path, out_dir: Path) -> None:
    """Score a trained run, or hand on the reason for which its data, weights or training are not there.

    Args:
        run: the resolved run.
        data_dir: the prepared dataset.
        train_dir: the run's checkpoint and status.
        out_dir: the folder to be written, complete or not at all.

    Raises:
        UserError: the splits have no samples, or data, weights or checkpoint are absent, damaged or do not fit.
    """
    forget(train_dir)
    reason = run.not_run or not_run_reason(data_dir) or not_run_reason(train_dir)
    with atomic_path(out_dir) as folder:
        folder.mkdir()
        if reason is None:
            _score_run(run, PreparedDataset.read(data_dir), train_dir, folder)
        write_status(folder, reason)


def _score_run(run: Run, dataset: PreparedDataset, train_dir: Path, folder: Path) -> None:
    if run.threads:
        torch.set_num_threads(run.threads)
    settings, splits = run.evaluate, chosen_splits(run, dataset)
    model = load_model(run, train_dir)
    pixels = PixelDataset(dataset, model.resize)
    scores, predictions, readings = [], [], {}
    for split, samples in splits.items():
        unit = distance_unit(samples, f"{run.dataset}, split {split}")
        readings[split] = Readings(model.read, own_prompts(samples, settings.prompts, run.seed))
        trials = plan_trials(samples, settings.prompts, run.seed, readings[split])
        maps = probability_maps(model, pixels, trials, settings.batch_size)
        with progress(len(trials), f"scoring {run.name}, {split}", "mask") as bar:
            pairs = zip(trials, maps, strict=True)
            for _, some in itertools.groupby(pairs, lambda pair: pair[0].sample.sample_id):
                truth = None
                for trial, probabilities in some:
                    truth = dataset.mask(trial.sample) if truth is None else truth
                    scores += score_rows(trial, probabilities, truth, settings, unit)
                    predictions.append(prediction_row(trial, probabilities > settings.threshold, settings))
                    bar.update()
    per_sample = long_table(scores)
    per_sample.to_parquet(folder / "per_sample.parquet", index=False)
    pd.DataFrame(predictions).to_parquet(folder / "predictions.parquet", index=False)
    parameters = list(model.parameters())
    summaries = {split: summarise(rows, settings.threshold, readings[split])
                 for split, rows in per_sample.groupby("split")}
    for split, summary in summaries.items():
        for sentence in losses(summary["prompts"]):
            print(f"{run.name}, split {split}: {sentence}", file=sys.stderr)
    write_json(folder / "metrics.json", {
        "run": run.name, "dataset": run.dataset, "prompts": settings.prompts, "threshold": settings.threshold,
        "grid": "original", "empty_masks": EMPTY_RULE, "referring_measures": referring.RULE,
        "targets": {split: count_targets(samples, pixels, settings.prompts, run.seed)
                    for split, samples in splits.items()},
        "splits": summaries,
        "trainable_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "total_parameters": sum(parameter.numel() for parameter in parameters)})
    if settings.reliance is not None:
        _measure_reliance(run, dataset, splits, model, folder)


def _measure_reliance(run: Run, dataset: PreparedDataset, splits: dict[str, list[Sample]], model: SegmentationModel,
                      folder: Path) -> None:
    from featherseg.reliance.measure import Settings, measure

    settings, chosen = run.evaluate, run.evaluate.reliance
    how = Settings(prompts=settings.prompts, threshold=settings.threshold, seed=run.seed, text=chosen.text,
                   image=chosen.image, limit=chosen.images, draws=chosen.draws)
    segment = functools.partial(iterate_probabilities, model, batch_size=settings.batch_size)
    measured = {split: measure(segment, dataset, samples, how, model=run.name, data=f"{run.dataset}, split {split}",
                               reader=model.read)
                for split, samples in splits.items()}
    trials = pd.concat([table for table, _ in measured.values()], ignore_index=True)
    trials.to_parquet(folder / "reliance.parquet", index=False)
    write_json(folder / "reliance.json", {split: record for split, (_, record) in measured.items()})


def chosen_splits(run: Run, dataset: PreparedDataset) -> dict[str, list[Sample]]:
    """The samples of each split that is to be scored, in the order of `evaluate.splits`.

    Data sets differ in their splits, so one of `splits.USUAL` that this one lacks is passed over, which is said.

    Raises:
        UserError: a split is none that is known, or none of them has samples.
    """
    wanted = run.evaluate.splits
    found = {split: samples for split in wanted if (samples := dataset.split(split))}
    lacking = [split for split in wanted if split not in found]
    has = ", ".join(sorted({sample.split for sample in dataset.samples})) or "(none)"
    said = f"dataset '{run.dataset}' has no samples in split {', '.join(map(repr, lacking))}"
    if missing_splits(wanted, found):
        raise UserError(f"{said}; set evaluate.splits to those that it has ({has}), or prepare it with such samples.")
    if lacking:
        print(f"{said}; scored are {', '.join(found)}, and its splits are {has}", file=sys.stderr)
    return found


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
    asked = [prompt_keys(sample.image, _own_prompts(sample, policy, seed)) for sample in samples]
    return {"n": len(samples), "alike": count_alike(asked), "vanishing": vanishing}


def distance_unit(samples: list[Sample], where: str) -> str:
    """The unit of HD95: millimetres where all samples know their pixels' spacing, else pixels."""
    unknown = sum(sample.spacing is None for sample in samples)
    if 0 < unknown < len(samples):
        print(f"{where}: {unknown} of {len(samples)} samples have no pixel_spacing, so HD95 is in pixels for all",
              file=sys.stderr)
    return PIXEL if unknown else MILLIMETRE


def score_rows(trial: Trial, probabilities: np.ndarray, truth: np.ndarray, settings: EvaluateConfig,
               unit: str = PIXEL) -> list[dict[str, Any]]:
    """What is known of one trial, a column for each metric: one row at the threshold of the settings, and, where
    sentences are scored, one with `iou`, `intersection` and `union` at each other threshold of `referring.py`."""
    rows, sentence = [], trial.condition == OWN and settings.prompts == SENTENCES
    spacing = trial.sample.spacing if unit == MILLIMETRE else PIXELS
    for threshold in dict.fromkeys((settings.threshold, *(referring.THRESHOLDS if sentence else ()))):
        prediction, chosen = probabilities > threshold, threshold == settings.threshold
        measured = score(prediction, truth, spacing) if chosen else overlap(prediction, truth)
        found, nearly_all = truth.any(), prediction.mean() > NEARLY_ALL >= truth.mean()
        rows.append(_known(trial, threshold) | {
            "target": trial.sample.target, "empty_truth": not found, "empty_prediction": not prediction.any(),
            "missed": bool(found and not prediction.any()), "flooded": bool(nearly_all),
            "hd95_unit": unit, **measured})
    return rows


def prediction_row(trial: Trial, prediction: np.ndarray, settings: EvaluateConfig) -> dict[str, Any]:
    """One trial's mask, as run lengths."""
    return _known(trial, settings.threshold) | {
        "height": trial.sample.height, "width": trial.sample.width, "rle": run_lengths(prediction)}


def _known(trial: Trial, threshold: float) -> dict[str, Any]:
    return {"dataset": trial.sample.dataset, "sample_id": trial.sample.sample_id, "split": trial.sample.split,
            "sentence": trial.sentence, "text_condition": trial.condition, "image_condition": OWN,
            "prompt": trial.prompt, "prompt_of": trial.prompt_of, "threshold": threshold, "grid": "original"}


def long_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows with a column for each metric as `per_sample.parquet`: columns `metric`, `value`, `unit`, in their order."""
    wide = pd.DataFrame(rows)
    known = [name for name in wide.columns if name not in METRICS]
    table = wide.melt(known, [name for name in METRICS if name in wide], var_name="metric", ignore_index=False)
    table = table.dropna(subset="value").sort_index(kind="stable").reset_index(drop=True)
    of_distances = table.pop("hd95_unit")
    return table.assign(unit=table.metric.map(UNITS).where(table.metric != "hd95", of_distances))


def plan_trials(samples: list[Sample], policy: str, seed: int, readings: Readings | None = None) -> list[Trial]:
    """The trials of some samples, image by image, those of one sample together: its own prompts (one, or each
    of its sentences under the policy `sentences`), the empty one, another sample's, and, where every sample has a
    class name (P1), that alone.

    The other prompt is one that the model reads as another one than the sample's own: that of another target of the
    same image where there is one, else that of any other sample. Where all samples share one prompt there is only
    that.

    Args:
        samples: those of the split, in any order.
        policy: level of the own prompt (`prompt_of`), or `sentences`.
        seed: decides, together with the sample's id, which other prompt, and which own one where the policy
            is `random`.
        readings: of the own prompts; None compares them as text.
    """
    own = {sample.sample_id: _own_prompts(sample, policy, seed) for sample in samples}
    readings = readings or Readings(as_text, itertools.chain(*own.values()))
    others = _Others(samples, {sample_id: [readings.same(prompt) for prompt in prompts]
                               for sample_id, prompts in own.items()})
    named = all("p1" in sample.prompts for sample in samples)
    trials = []
    for sample in sorted(samples, key=lambda sample: (sample.image, sample.sample_id)):
        other = others.draw(sample, random.Random(f"other/{seed}/{sample.sample_id}"))
        trials += [Trial(sample, OWN, prompt, sample.sample_id, number)
                   for number, prompt in enumerate(own[sample.sample_id])]
        trials += [Trial(sample, EMPTY, "", ""), Trial(sample, OTHER, own[other][0], other)]
        if named:
            trials.append(Trial(sample, CLASS_NAME, sample.prompts["p1"][0], sample.sample_id))
    return trials


def own_prompts(samples: list[Sample], policy: str, seed: int) -> list[str]:
    """The own prompts of all samples, as `plan_trials` takes them."""
    return [prompt for sample in samples for prompt in _own_prompts(sample, policy, seed)]


def _own_prompts(sample: Sample, policy: str, seed: int) -> list[str]:
    if policy == SENTENCES and SENTENCES in sample.prompts:
        return sample.prompts[SENTENCES]
    rng = random.Random(f"own/{seed}/{sample.sample_id}") if policy == "random" else None
    return [prompt_of(sample, policy, rng)]


class _Others:
    """Draws samples with another prompt, without looking at all samples each time.

    Args:
        samples: those to draw from.
        own: by sample id its prompts, each as `Readings.same` gives it; the first one is what another sample gets.
    """

    def __init__(self, samples: list[Sample], own: dict[str, list[str]]) -> None:
        self._own = own
        self._by_image: dict[str, list[str]] = defaultdict(list)
        for sample_id, image in sorted((sample.sample_id, sample.image) for sample in samples):
            self._by_image[image].append(sample_id)
        # equal prompts stand side by side, so the samples with another prompt are all but one stretch a prompt
        self._ids = sorted(own, key=lambda sample_id: (own[sample_id][0], sample_id))
        self._prompts = [own[sample_id][0] for sample_id in self._ids]

    def draw(self, sample: Sample, rng: random.Random) -> str:
        """Id of a sample with another prompt, of the same image if possible; its own id if there is none."""
        prompts = sorted(set(self._own[sample.sample_id]))
        nearby = [other for other in self._by_image[sample.image] if self._own[other][0] not in prompts]
        if nearby:
            return rng.choice(nearby)
        stretches = [(bisect.bisect_left(self._prompts, prompt), bisect.bisect_right(self._prompts, prompt))
                     for prompt in prompts]
        remaining = len(self._ids) - sum(last - first for first, last in stretches)
        if not remaining:
            return sample.sample_id
        place = rng.randrange(remaining)
        for first, last in stretches:
            place += last - first if place >= first else 0
        return self._ids[place]


@torch.inference_mode()
def probability_maps(model: SegmentationModel, pixels: PixelDataset, trials: list[Trial],
                     batch_size: int) -> Iterator[np.ndarray]:
    """Probability maps, float32 (H, W) at original resolution, of trials that stand image by image.

    Each prompt and each image is encoded once, however many trials share it, or each pair of them where the towers
    exchange on their way; what is encoded or decoded together depends on the trials alone.
    """
    row_of = {sample.image: row for sample, row in zip(pixels.samples, pixels.image_rows, strict=True)}
    prompts = [trial.prompt for trial in trials]
    bank = FeatureBank(model, pixels, [row_of[trial.sample.image] for trial in trials], prompts)
    if model.joint:
        for some in batches(trials, batch_size):
            features = bank.pairs([row_of[trial.sample.image] for trial in some], [trial.prompt for trial in some])
            sizes = [(trial.sample.height, trial.sample.width) for trial in some]
            yield from model.original_resolution(model.decode(*features), sizes)
        return
    text, text_of = encode_prompts(prompts, bank.texts, next(model.parameters()).device, batch_size,
                                   model.text.dim)
    images = [list(group) for _, group in itertools.groupby(trials, lambda trial: trial.sample.image)]
    for some_images in batches(images, batch_size):
        vision = bank.images([row_of[group[0].sample.image] for group in some_images])
        queries = [Query(place, text_of[trial.prompt], (trial.sample.height, trial.sample.width))
                   for place, group in enumerate(some_images) for trial in group]
        yield from decode_queries(model, vision, text, queries, batch_size)


def summarise(per_sample: pd.DataFrame, threshold: float, readings: Readings | None = None) -> dict[str, Any]:
    """Means of the rows of one split of `per_sample.parquet`.

    Args:
        per_sample: the rows.
        threshold: at which all metrics were measured; others enter the measures of `referring.py` only.
        readings: of the own prompts; None compares them as text.

    Returns:
        prompts: `Readings.count` of the own prompts.
        conditions: text condition -> {dsc, iou, hd95: {mean, std, unit}, n, n_empty_truth, n_empty_prediction,
        n_own_prompt, n_missed, n_flooded, targets: {target -> the same}, datasets: {data set -> the same}}; a pooled
        set's samples are its members'. std is that of the masks at hand, not an estimate for others; n counts masks, so
        each sentence where each was scored. Missed are empty predictions of what is there, flooded those that cover
        nearly all of an image whose truth does not. referring: `referring.summarise`, where sentences were scored.
    """
    rows = per_sample[per_sample.threshold == threshold]
    own_rows = rows[rows.text_condition == OWN]
    readings = readings or Readings(as_text, own_rows.prompt)
    asked = pd.MultiIndex.from_arrays([rows.sample_id, rows.prompt.map(readings.same)])
    rows = rows.assign(own_prompt=asked.isin(asked[(rows.text_condition == OWN).to_numpy()]))
    conditions = {condition: {**_means(part), "targets": _means_by("target", part),
                              "datasets": _means_by("dataset", part)}
                  for condition, part in rows.groupby("text_condition")}
    scored_sentences = set(referring.THRESHOLDS) <= set(per_sample.threshold)
    measures = {"referring": referring.summarise(per_sample)} if scored_sentences else {}
    return {"prompts": readings.count(own_rows.prompt), "conditions": conditions} | measures


def _means_by(column: str, rows: pd.DataFrame) -> dict[str, Any]:
    return {name: _means(part) for name, part in rows.groupby(column)}


def _means(rows: pd.DataFrame) -> dict[str, Any]:
    by_metric = {metric: rows[rows.metric == metric] for metric in AVERAGED}
    means = {metric: {"mean": float(part.value.mean()), "std": float(part.value.std(ddof=0)), "unit": part.unit.iloc[0]}
             for metric, part in by_metric.items()}
    masks = by_metric["dsc"]
    flags = ("empty_truth", "empty_prediction", "own_prompt", "missed", "flooded")
    return {**means, "n": len(masks), **{f"n_{flag}": int(masks[flag].sum()) for flag in flags}}


def run_lengths(mask: np.ndarray) -> str:
    """A bool mask (H, W) as COCO's compressed run lengths."""
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")
