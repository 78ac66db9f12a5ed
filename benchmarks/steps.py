"""Steps of training and inference, ours and the reference's in turn.

Each call belongs in a process of its own.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.reference import Reference
from featherseg import adapters
from featherseg.config import ModelConfig, parse, read_params
from featherseg.core.provenance import peak_memory_mib
from featherseg.core.seeds import rng_of
from featherseg.data.prepared import PreparedDataset, prompt_of
from featherseg.engine import make_optimizer
from featherseg.models import build
from featherseg.models.base import SegmentationModel
from featherseg.models.clipseg.model import CLIPSeg
from featherseg.plan import read_recipe, resolve_adapter
from featherseg.tasks.segmentation.config import SegmentationTrain
from featherseg.tasks.segmentation.features import FeatureBank
from featherseg.tasks.segmentation.objective import mask_losses
from featherseg.tasks.segmentation.pixels import PixelDataset
from featherseg.tasks.segmentation.predict import predict_probabilities

SEED = 0
EMBEDDED_WEIGHTS = "pipelines/pretrain/weights/clipseg-small"
IMPLEMENTATIONS = ("ours", "reference")
PROMPTS = 12
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        size: `full` (random weights at the model's own input size) or `embedded` (the project's own weights, 64 px).
        recipe: names the method.
        phase: a training step, or inference of a batch of new images.
        device: `cpu` in float32, or `cuda` in bf16.
        batch: images a step, each with a prompt of its own.
        rounds: how often ours and the reference are run in turn, after one round that is not counted.
        model: the recipe's model; only CLIPSeg has a reference and an embedded size.
    """

    size: Literal["full", "embedded"]
    recipe: str
    phase: Literal["train", "inference"]
    device: Literal["cpu", "cuda"]
    batch: int
    rounds: int
    model: str = "clipseg"


def model_config(size: str, model: str = "clipseg") -> ModelConfig:
    """Weights and input size of a case's size."""
    if size == "full":
        return ModelConfig(name=model, image_size=352 if model == "clipseg" else 416)
    return ModelConfig(name="clipseg", weights=EMBEDDED_WEIGHTS, image_size=64)


def adapter_config(size: str, recipe: str) -> dict[str, Any]:
    """The recipe's method, at the embedded size with the widths of the root params.yaml."""
    settings = read_recipe(recipe)
    if size == "full":
        return adapters.resolve(settings.adapter, recipe).knobs()
    return resolve_adapter(settings, read_params("study"), recipe)


class Bench:
    """A case's model and data, and its two ways to make a step.

    Args:
        case: what is measured.
        data_dir: a prepared dataset of at least one batch.
        implementations: those that will be run; features that cannot change are cached for `ours` only, in
            training only.

    Attributes:
        models: ours and, of CLIPSeg, the reference, which shares all weights.
        cached: whether ours trains on cached features.
    """

    def __init__(self, case: Case, data_dir: Path, implementations: Sequence[str] = IMPLEMENTATIONS) -> None:
        if case.device == "cpu":  # as the engine does
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False
        self.case, training = case, case.phase == "train"
        model = build(model_config(case.size, case.model), SEED)
        adapters.apply(model, adapter_config(case.size, case.recipe), SEED).to(case.device).train(training)
        self.models: dict[str, SegmentationModel] = {"ours": model}
        if isinstance(model, CLIPSeg):
            self.models["reference"] = Reference(model)
        self._config = parse(SegmentationTrain, read_recipe(case.recipe).train or {}, case.recipe)
        self.cached = training and model.tower_is_constant("vision")

        self._pixels = PixelDataset(PreparedDataset.read(data_dir), model.resize)
        samples = self._pixels.samples
        prompts = [prompt_of(sample, "random", rng_of(SEED, sample.sample_id)) for sample in samples]
        self._batches = [(range(first, first + case.batch), prompts[first : first + case.batch])
                         for first in range(0, len(samples) - case.batch + 1, case.batch)]
        self._banks = {}
        for name in implementations:
            with self._autocast(), torch.no_grad():
                self._banks[name] = FeatureBank(self.models[name], self._pixels, self._pixels.image_rows, prompts,
                                                cache=training and name == "ours")
        if training:
            self._learned = list(adapters.trainable(model).values())
            self._optimizer = make_optimizer(self._config, self._learned)

    def check_equal(self) -> None:
        """Compare our logits with the reference's on the first batch, in float32.

        Raises:
            AssertionError: they differ, so that times could not be compared.
        """
        indices, prompts = self._batches[0]
        pixels = self._pixels.images([self._pixels.image_rows[i] for i in indices]).to(self.case.device)
        with torch.no_grad():
            ours, reference = (model(model.normalise(pixels), model.tokenize(prompts).to(self.case.device))
                               for model in self.models.values())
        torch.testing.assert_close(ours, reference, rtol=TOLERANCE, atol=TOLERANCE)

    def step(self, implementation: str, number: int) -> None:
        """One training step, or the inference of one batch; `number` chooses the batch."""
        model = self.models[implementation]
        indices, prompts = self._batches[number % len(self._batches)]
        rows = [self._pixels.image_rows[i] for i in indices]
        if self.case.phase == "inference":
            with self._autocast(), torch.inference_mode():
                model.to_input(model.decode(*self._banks[implementation].pairs(rows, prompts)))
            return
        with self._autocast():
            logits = model.decode(*self._banks[implementation].pairs(rows, prompts))
            losses = mask_losses(model, logits, self._pixels.targets(indices), self._config.loss)
        losses.mean().backward()
        if self._config.clip_norm:
            nn.utils.clip_grad_norm_(self._learned, self._config.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.case.device == "cuda")


def time_steps(case: Case, data_dir: Path) -> dict[str, Any]:
    """Check that the logits are equal, then time ours, reference, ours, reference, ...

    Returns:
        `seconds`: for each implementation those of every round; `cached`: whether ours trained on cached
        features; `flops`: of one step of ours, on an accelerator.
    """
    bench = Bench(case, data_dir)
    bench.check_equal()
    seconds: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
    for number in range(1 + case.rounds):
        for name in IMPLEMENTATIONS:
            taken = stopwatch(lambda name=name, number=number: bench.step(name, number), case.device)
            if number:
                seconds[name].append(taken)
    return {"seconds": seconds, "cached": bench.cached, "flops": _flops(bench)}


def time_alone(case: Case, data_dir: Path) -> dict[str, Any]:
    """Time steps of a model that has no reference, and their peak memory.

    Returns:
        `seconds` of every round after the first, `cached` and `flops` as `time_steps` gives them, and `peak` and
        `before` as `peak_memory` gives them.
    """
    before = peak_memory_mib()["process"]
    bench = Bench(case, data_dir, ("ours",))
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = [stopwatch(lambda number=number: bench.step("ours", number), case.device)
               for number in range(1 + case.rounds)]
    peak = peak_memory_mib()["accelerator" if case.device == "cuda" else "process"]
    return {"seconds": seconds[1:], "cached": bench.cached, "flops": _flops(bench), "peak": peak, "before": before}


def _flops(bench: Bench) -> int | None:
    """Operations of one step of ours, counted on an accelerator only."""
    if bench.case.device != "cuda":
        return None
    with FlopCounterMode(display=False) as counter:
        bench.step("ours", 0)
    return counter.get_total_flops()


def peak_memory(case: Case, data_dir: Path, implementation: str) -> dict[str, int]:
    """Highest memory in MiB during two training steps or one of inference.

    Returns:
        `peak`: of the process with its libraries and model, or of the accelerator; `before`: of the process
        before the model was built.
    """
    before = peak_memory_mib()["process"]
    bench = Bench(case, data_dir, (implementation,))
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for number in range(2 if case.phase == "train" else 1):
        bench.step(implementation, number)
    peaks = peak_memory_mib()
    return {"peak": peaks["accelerator" if case.device == "cuda" else "process"], "before": before}


def time_prompts(case: Case, data_dir: Path) -> dict[str, list[float]]:
    """Time twelve prompts on one image.

    Returns:
        Seconds of every round: `at once` in one call, `one by one` in twelve, and so with the `reference`.
    """
    models, dataset = Bench(case, data_dir, ()).models, PreparedDataset.read(data_dir)
    image = dataset.image(dataset.samples[0])
    rng, drawn = rng_of(SEED, "prompts"), {}
    while len(drawn) < PROMPTS:  # as training draws them, each once
        drawn[prompt_of(rng.choice(dataset.samples), "random", rng)] = None
    prompts = list(drawn)

    def one_by_one(model: SegmentationModel) -> None:
        for prompt in prompts:
            predict_probabilities(model, [image], [prompt])

    ways: dict[str, Callable[[], object]] = {
        "at once": lambda: predict_probabilities(models["ours"], [image] * PROMPTS, prompts),
        "one by one": lambda: one_by_one(models["ours"]),
        "reference": lambda: one_by_one(models["reference"])}
    predict_probabilities(models["ours"], [image], prompts[:1])
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(case.rounds):
        for way, run in ways.items():
            seconds[way].append(stopwatch(run, case.device))
    return seconds


def stopwatch(run: Callable[[], object], device: str) -> float:
    """Seconds that a call takes, the accelerator's work included."""
    synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - start
