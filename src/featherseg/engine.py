"""Training of one run: from its plan and data to a checkpoint, a curve and a status.

Every random choice is a function of the run's seed, the epoch and the sample, so that neither the number of
processes nor a kill in between changes the result.
"""

import csv
import math
import os
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from tqdm import tqdm

from featherseg import adapters, checkpoint
from featherseg.config import LossConfig, Run, TrainConfig
from featherseg.core.errors import UserError
from featherseg.core.files import write_status
from featherseg.core.progress import progress
from featherseg.core.provenance import peak_memory_mib, provenance
from featherseg.data.prepared import PreparedDataset, prompt_of
from featherseg.models import build
from featherseg.models.base import SegmentationModel, parameters_of
from featherseg.resume import Attempt, run_key
from featherseg.split_check import require_splits
from featherseg.tasks.segmentation.features import FeatureBank, batches
from featherseg.tasks.segmentation.losses import per_sample_dice, per_sample_loss
from featherseg.tasks.segmentation.metrics import iou
from featherseg.tasks.segmentation.pixels import PixelDataset

HISTORY = ("epoch", "loss", "val_dsc", "lr")
POSITIONS = "positional_embedding"  # in the names of CLIP's and CRIS's parameters


def train(run: Run, data_dir: Path, out_dir: Path, info_path: Path) -> None:
    """Train a run, or record why there is nothing to train.

    Writes, beside and renamed, `out_dir` with `checkpoint.safetensors` (the epoch of the best validation DSC),
    `history.csv` (epoch, mean training loss, validation DSC at input size, learning rate, and what else
    `validation_scores` names) and `status.json`; and `info_path` (times, hardware, versions, commit, images/s, peak
    memory). Zero-shot runs and runs that cannot be made here have only a status. A training that was killed goes on
    after its last finished epoch, with the number of threads that it began with, so that it ends in the same
    digits. With several processes (`accelerate launch`, `torchrun`) each batch of the plan is divided over them.

    Raises:
        UserError: no samples to train, validate or score on, a loss or gradient that is not finite, an output folder
            that a later process has taken over, a full disk.
    """
    started = time.time(), time.monotonic()
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    dataset = PreparedDataset.read(data_dir)
    not_run = run.not_run or dataset.status["reason"]
    idle = bool(not_run) or run.train is None
    if not idle:
        require_splits(run, dataset)
    key = run_key(run, "" if idle else dataset.fingerprint())
    with Attempt(key, out_dir, info_path, rank, ranks) as attempt:
        if idle:
            attempt.publish(lambda folder: write_status(folder, not_run), provenance() | _times(started))
            return
        # without `cpu`, processes without an accelerator would not find each other
        accelerator = Accelerator(cpu=not torch.accelerator.is_available(),
                                  mixed_precision=precision_here(run.train.precision))
        accelerator.wait_for_everyone()
        if attempt.finished():
            return
        if accelerator.device.type == "cpu":
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False

        state = attempt.load()
        if threads := run.threads or (state or {}).get("threads"):
            torch.set_num_threads(threads)
        trainer = Trainer(run, dataset, accelerator)
        if state is not None and not trainer.fits(state):
            attempt.refuse("of a model with other tensors")
            state = None
        trainer.load_state(state)
        done_before, images = len(trainer.history), trained_per_epoch(len(trainer.train_set), run.train)
        if done_before and attempt.main:
            print(f"{run.name}: going on after epoch {done_before}", file=sys.stderr)
        total, before = run.train.epochs * images, done_before * images
        with progress(total, run.name, "img", before, disable=not attempt.main) as bar:
            while not trainer.finished():
                trainer.run_epoch(bar)
                attempt.save(trainer.state())

        trained = (len(trainer.history) - done_before) * images
        attempt.publish(trainer.write, {
            **provenance(), **_times(started), "processes": accelerator.num_processes,
            "precision": accelerator.mixed_precision, "epochs": len(trainer.history),
            "resumed_after_epoch": done_before, "peak_memory_mib": peak_memory_mib(),
            "images_per_second": round(trained / trainer.seconds, 2) if trainer.seconds else None})
        accelerator.end_training()


class Trainer:
    """A run in training: model, data, optimiser, and the history so far.

    Attributes:
        train_set, val_set: indices of their samples in the dataset.
        history: one row (`HISTORY`) for each finished epoch.
        seconds: spent on training steps by this process.
    """

    def __init__(self, run: Run, dataset: PreparedDataset, accelerator: Accelerator) -> None:
        self.run, self.config, self.samples, self.accelerator = run, run.train, dataset.samples, accelerator
        self.train_set, self.val_set = _members(dataset, "train"), _members(dataset, self.config.val_split)
        self.model = adapters.apply(build(run.model, run.seed), run.adapter, run.seed).to(accelerator.device)
        pixels = PixelDataset(dataset, self.model.resize)
        self.val_prompts = {i: self._prompt(i, self.config.val_prompts, "val") for i in self.val_set}
        rows = [pixels.image_rows[i] for i in (*self.train_set, *self.val_set)]
        texts = {text for i in self.train_set for level in self.samples[i].prompts.values() for text in level}
        with accelerator.autocast():
            bank = FeatureBank(self.model, pixels, rows, texts.union(self.val_prompts.values()),
                               self.config.cache_features)
        self.objective = Objective(self.model, bank, pixels, self.config.loss)
        self.learned = list(adapters.trainable(self.model).values())
        self.optimizer = make_optimizer(self.config, self.learned, tower_parameters(self.model, self.config))
        self.schedule = make_schedule(self.config, self.optimizer)
        self.wrapped_objective, self.wrapped_optimizer = accelerator.prepare(self.objective, self.optimizer)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.seconds = 0.0

    def finished(self) -> bool:
        """Whether all epochs are done, or enough of them without progress."""
        return len(self.history) == self.config.epochs or should_stop(
            [row[chosen_by(self.config)] for row in self.history], self.config)

    def run_epoch(self, bar: tqdm) -> None:
        """Train for one epoch, validate, step the schedule, and keep the weights where they are the best."""
        epoch = len(self.history) + 1
        lr = self.optimizer.param_groups[0]["lr"]
        loss = self._train(epoch, bar)
        scores = self._validate(epoch)
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(scores["val_loss" if self.config.plateau_on == "published_loss" else "val_dsc"])
        elif self.schedule:
            self.schedule.step()
        slow_towers(self.config, self.optimizer, epoch + 1)
        chosen = chosen_by(self.config)
        if is_best(scores[chosen], [row[chosen] for row in self.history], self.config):
            self.best = changing_tensors(self.model)
        self.history.append({"epoch": epoch, "loss": loss, "lr": lr} | scores)

    def _train(self, epoch: int, bar: tqdm) -> float:
        """One pass over the training samples; returns their mean loss."""
        begun, rank, ranks = time.monotonic(), self.accelerator.process_index, self.accelerator.num_processes
        torch.manual_seed(rng_of(self.run.seed, epoch, rank).getrandbits(63))
        self.wrapped_objective.train()
        summed = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        order = self._order(epoch)
        for number, batch in enumerate(batches(order, self.config.batch_size), 1):
            # a process without a share of a short last batch takes part with weight 0
            share = batch[rank::ranks]
            mine = share or batch[:1]
            losses = self.wrapped_objective(mine, [self._prompt(i, self.config.prompts, epoch) for i in mine])
            self._check_finite(losses, mine, f"epoch {epoch}, batch {number}")
            total = losses.sum() * bool(share)
            self.accelerator.backward(total * ranks / len(batch))
            norm = self.accelerator.clip_grad_norm_(self.learned, self.config.clip_norm or math.inf)
            if self.accelerator.scaler is None:  # fp16's scaler leaves such a step out and goes on at a smaller scale
                self._check_finite(norm.expand(len(batch)), batch, f"epoch {epoch}, batch {number}", "gradient")
            self.wrapped_optimizer.step()
            self.wrapped_optimizer.zero_grad()
            summed += total.detach()
            bar.set_postfix(epoch=epoch, loss=f"{losses.mean().item():.3f}", refresh=False,
                            dsc=f"{self.history[-1]['val_dsc']:.3f}" if self.history else "-")
            bar.update(len(batch))
        self.seconds += time.monotonic() - begun
        return self.accelerator.reduce(summed).item() / len(order)

    def _order(self, epoch: int) -> list[int]:
        """The training samples in the order of an epoch, without those of a short last batch where it is dropped."""
        order = shuffled(self.train_set, self.run.seed, epoch)
        trained = trained_per_epoch(len(order), self.config)
        if not trained:
            raise UserError(f"{self.run.name}: {len(order)} training samples are less than one batch of "
                            f"{self.config.batch_size}, and train.last_batch drops it; lower train.batch_size, or set "
                            "train.last_batch: kept.")
        return order[:trained]

    def _validate(self, epoch: int) -> dict[str, float]:
        """Means over the validation samples of each of `validation_scores`."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        self.wrapped_objective.eval()
        names = validation_scores(self.config)
        summed = torch.zeros(len(names), dtype=torch.float64, device=self.accelerator.device)
        for batch in batches(self.val_set[rank::ranks], self.config.batch_size):
            with self.accelerator.autocast():
                scores = self.objective.scores(batch, [self.val_prompts[i] for i in batch], names,
                                               self.config.val_threshold)
            self._check_finite(scores.sum(dim=0), batch, f"validation after epoch {epoch}")
            summed += torch.stack([row.sum() for row in scores])
        means = self.accelerator.reduce(summed) / len(self.val_set)
        return dict(zip(names, means.tolist(), strict=True))

    def _prompt(self, index: int, policy: str, when: int | str) -> str:
        """A sample's prompt, drawn by its policy from the seed, the epoch (or "val") and the sample alone.

        Where a level has several wordings, validation takes the first, as evaluation does.
        """
        sample = self.samples[index]
        drawn = when != "val" or policy == "random"
        return prompt_of(sample, policy, rng_of(self.run.seed, when, sample.sample_id) if drawn else None)

    def _check_finite(self, values: Tensor, indices: Sequence[int], where: str, what: str = "loss") -> None:
        if values.isfinite().all():
            return
        wrong = [self.samples[i].sample_id
                 for i, finite in zip(indices, values.isfinite().tolist(), strict=True) if not finite]
        raise UserError(f"{self.run.name}: the {what} is not finite in {where}, for {', '.join(wrong)}; "
                        "lower train.lr, or look at these samples.")

    def state(self) -> dict[str, Any]:
        """Everything that the following epochs depend on."""
        scaler = self.accelerator.scaler
        return {"history": self.history, "best": self.best, "changing": changing_tensors(self.model),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict() if self.schedule else None,
                "scaler": scaler.state_dict() if scaler else None, "threads": torch.get_num_threads()}

    def fits(self, state: dict[str, Any]) -> bool:
        """Whether a state has what `state` has, its tensors by name and shape."""
        own = self.state()
        return state.keys() == own.keys() and all(
            _shapes(state[part]) == _shapes(own["changing"]) for part in ("changing", "best"))

    def load_state(self, state: dict[str, Any] | None) -> None:
        """Go on from a state; None starts at the beginning."""
        if state is None:
            return
        self.history, self.best = state["history"], state["best"]
        self.model.load_state_dict(state["changing"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def write(self, folder: Path) -> None:
        """Write the best epoch's checkpoint, the history and the status."""
        self.model.load_state_dict(self.best, strict=False)
        checkpoint.save(folder / "checkpoint.safetensors", self.model, self.run)
        with open(folder / "history.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            names = (*HISTORY, *(name for name in validation_scores(self.config) if name not in HISTORY))
            writer.writerow(names)
            writer.writerows([row["epoch"], *(f"{row[name]:.8g}" for name in names[1:])]
                             for row in self.history)
        write_status(folder)


class Objective(nn.Module):
    """What is minimised: sample indices and prompts in, one loss a sample out."""

    def __init__(self, model: SegmentationModel, bank: FeatureBank, pixels: PixelDataset,
                 loss: LossConfig) -> None:
        super().__init__()
        self.model, self.bank, self.pixels, self.loss = model, bank, pixels, loss

    def logits(self, indices: Sequence[int], prompts: Sequence[str]) -> Tensor:
        """Logits (B, h, w) on the head's own grid."""
        rows = [self.pixels.image_rows[i] for i in indices]
        return self.model.decode(*self.bank.pairs(rows, prompts))

    def forward(self, indices: Sequence[int], prompts: Sequence[str]) -> Tensor:
        """Losses (B,), on the grid that the loss config names."""
        return self._losses(self.logits(indices, prompts), indices)

    @torch.no_grad()
    def scores(self, indices: Sequence[int], prompts: Sequence[str], names: Sequence[str] = ("val_dsc",),
               threshold: float = 0.5) -> Tensor:
        """Scores (len(names), B), float64; NaN where a logit is not finite.

        `val_dsc` at input size and `val_iou` at original size, both of what is above the probability `threshold`;
        `val_loss` is the training loss.
        """
        logits = self.logits(indices, prompts)
        at_input = self.model.to_input(logits)
        measures = {"val_loss": lambda: self._losses(logits, indices),
                    "val_dsc": lambda: per_sample_dice(at_input > math.log(threshold / (1 - threshold)),
                                                       self.pixels.masks(indices).to(logits.device)),
                    "val_iou": lambda: self._original_iou(logits, indices, threshold)}
        scores = torch.stack([measures[name]().double() for name in names])
        return scores.masked_fill(~at_input.isfinite().all(dim=(1, 2, 3)), math.nan)

    def _losses(self, logits: Tensor, indices: Sequence[int]) -> Tensor:
        targets = self.pixels.targets(indices).to(logits.device, non_blocking=True)
        if self.loss.grid == "input":
            return per_sample_loss(self.model.to_input(logits), targets, self.loss)
        return per_sample_loss(logits.unsqueeze(1), shrunk(targets, logits.shape[-2:], self.loss), self.loss)

    def _original_iou(self, logits: Tensor, indices: Sequence[int], threshold: float) -> Tensor:
        samples = [self.pixels.samples[i] for i in indices]
        maps = self.model.original_resolution(logits, [(sample.height, sample.width) for sample in samples])
        values = [iou(probabilities > threshold, self.pixels.original_mask(i))
                  for probabilities, i in zip(maps, indices, strict=True)]
        return torch.tensor(values, device=logits.device)


def trained_per_epoch(samples: int, config: TrainConfig) -> int:
    """How many of so many samples an epoch trains on: all, or as published those of whole batches."""
    return samples - samples % config.batch_size if config.last_batch == "published_dropped" else samples


def shrunk(targets: Tensor, size: Sequence[int], config: LossConfig) -> Tensor:
    """Targets (B, 1, H, W) on the head's grid of this size, as `config.shrink` says."""
    mode = "nearest" if config.shrink == "published_nearest" else "nearest-exact"
    return F.interpolate(targets, size=tuple(size), mode=mode)


def validation_scores(config: TrainConfig) -> tuple[str, ...]:
    """What is measured after each epoch: the DSC, and what the schedule or the choice of the epoch needs besides."""
    loss = ("val_loss",) if config.schedule == "plateau" and config.plateau_on == "published_loss" else ()
    return ("val_dsc", *loss, *(("val_iou",) if config.selection == "published_iou" else ()))


def chosen_by(config: TrainConfig) -> str:
    """The one of `validation_scores` that chooses the epoch that is kept; higher is better."""
    return "val_iou" if config.selection == "published_iou" else "val_dsc"


def is_best(score: float, former: Sequence[float], config: TrainConfig) -> bool:
    """Whether an epoch's score is the best so far: of equal ones the first is, in released code the last."""
    if config.selection == "published_iou":
        return all(score >= other for other in former)
    return all(score > other for other in former)


def tower_parameters(model: SegmentationModel, config: TrainConfig) -> list[nn.Parameter]:
    """The parameters that train at the towers' rate: theirs, positional embeddings apart where those train at the
    head's.
    """
    towers = parameters_of(model, (*model.vision.modules, *model.text.modules))
    apart = config.tower_positions == "published_full_rate"
    return [parameter for name, parameter in towers.items() if not (apart and POSITIONS in name)]


def make_optimizer(config: TrainConfig, parameters: Sequence[nn.Parameter],
                   towers: Iterable[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """Adam or AdamW over all trainable parameters: in one group, or those of the `towers` in a second one, where
    their rate is another.
    """
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    slow = {id(parameter) for parameter in towers if config.tower_lr_factor != 1}
    groups = [{"params": [parameter for parameter in parameters if (id(parameter) in slow) == among], "towers": among}
              for among in (False, True)]
    if config.tower_lr_from == 1:
        groups[1]["lr"] = config.lr * config.tower_lr_factor
    return kind([group for group in groups if group["params"]], lr=config.lr, weight_decay=config.weight_decay)


def slow_towers(config: TrainConfig, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Before a later epoch than the first: give the towers their own rate if it holds from this epoch on."""
    if epoch == config.tower_lr_from:
        for group in optimizer.param_groups:
            group["lr"] *= config.tower_lr_factor if group["towers"] else 1


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler | None:
    """The learning rate's schedule, stepped once an epoch; None for a constant rate.

    `plateau` multiplies by `factor` after more than `patience` epochs without a better validation DSC, or a lower
    validation loss, `multistep` after each of the milestones' epochs; `cosine` falls from `lr` to 0 along all epochs.
    """
    if config.schedule == "plateau":
        better = "min" if config.plateau_on == "published_loss" else "max"
        return lr_scheduler.ReduceLROnPlateau(optimizer, better, config.factor, config.patience)
    if config.schedule == "multistep":
        return lr_scheduler.MultiStepLR(optimizer, list(config.milestones), gamma=config.factor)
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    return None


def should_stop(scores: Sequence[float], config: TrainConfig) -> bool:
    """Early stopping: at least `min_epochs` are done, and for `early_stop_patience` epochs no score was above
    the best one by more than `early_stop_min_delta`.

    Args:
        scores: what chooses the epoch (`chosen_by`), of the epochs so far.
    """
    if config.early_stop_patience is None or len(scores) < config.min_epochs:
        return False
    best, waited = -math.inf, 0
    for score in scores:
        best, waited = (score, 0) if score > best + config.early_stop_min_delta else (best, waited + 1)
    return waited >= config.early_stop_patience


def precision_here(wanted: str) -> str:
    """The precision to compute in: `auto` is bf16 on an accelerator that has it, else full precision.

    fp16 needs an accelerator; without one it is full precision, which is said.
    """
    if wanted == "auto":
        capable = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if capable else "no"
    if wanted == "fp16" and not torch.cuda.is_available():
        print("precision fp16 needs a GPU; this run is computed in full precision", file=sys.stderr)
        return "no"
    return wanted


def rng_of(*names: object) -> random.Random:
    """A generator of its own for each sequence of names, the same in every process and on every machine."""
    return random.Random("/".join(map(str, names)))


def shuffled(indices: Sequence[int], seed: int, epoch: int) -> list[int]:
    """The order of an epoch."""
    order = list(indices)
    rng_of(seed, epoch, "order").shuffle(order)
    return order


def changing_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies, on the CPU, of all tensors that training can change: trainable parameters and buffers."""
    names = {*adapters.trainable(model), *(name for name, _ in model.named_buffers())}
    return {name: tensor.detach().to("cpu", copy=True)
            for name, tensor in model.state_dict().items() if name in names}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _members(dataset: PreparedDataset, split: str) -> list[int]:
    """Indices of a split's samples.

    Raises:
        UserError: the split is empty.
    """
    members = [i for i, sample in enumerate(dataset.samples) if sample.split == split]
    if not members:
        found = sorted({sample.split for sample in dataset.samples})
        raise UserError(f"{dataset.path} has no samples in split '{split}', which training needs; "
                        f"its splits are {', '.join(found) or '(none)'}.")
    return members


def _times(started: tuple[float, float]) -> dict[str, Any]:
    """When a training started, by the clock and by the counter that nobody sets back, and how long it took."""
    clock, counter = started
    return {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock)),
            "seconds": round(time.monotonic() - counter, 2)}
