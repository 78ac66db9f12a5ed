"""Training of one run: from its plan and data to a checkpoint, a curve and a status.

Every random choice is a function of the run's seed, the epoch and the sample, so that neither the number of
processes nor a kill in between changes the result.
"""

import csv
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import lr_scheduler
from tqdm import tqdm

from featherseg import adapters, checkpoint
from featherseg.config import Run, TrainConfig
from featherseg.core.errors import UserError
from featherseg.core.files import write_status
from featherseg.core.progress import progress
from featherseg.core.provenance import peak_memory_mib, provenance
from featherseg.core.seeds import rng_of
from featherseg.data.prepared import PreparedDataset
from featherseg.models.base import parameters_of
from featherseg.resume import Attempt, run_key
from featherseg.run_splits import require_splits
from featherseg.tasks.base import TASKS
from featherseg.tasks.objective import Item, parts

KNOWN = ("epoch", "loss", "lr")  # of every history, beside the task's validation scores
READ_EVERY = 50  # steps, on an accelerator
POSITIONS = "positional_embedding"  # in the names of CLIP's and CRIS's parameters


class Times(TypedDict):
    """When a training started (UTC), and how long it took."""

    started: str
    seconds: float


class State(TypedDict):
    """Everything that the following epochs of a training depend on; `changing` are all tensors that it can change."""

    history: list[dict[str, float]]
    best: dict[str, Tensor]
    changing: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any] | None
    scaler: dict[str, Any] | None
    threads: int


def train(run: Run, data_dir: Path, out_dir: Path, info_path: Path) -> None:
    """Train a run, or record why there is nothing to train.

    Writes, beside and renamed, `out_dir` with `checkpoint.safetensors` (the best epoch), `history.csv` (epoch, mean
    training loss, the main validation score, learning rate, further scores) and `status.json`; and `info_path` (times,
    hardware, versions, commit, images/s, peak memory). Zero-shot runs and runs that cannot be made here have only a
    status. A training that was killed goes on after its last finished epoch, with the number of threads that it began
    with, so that it ends in the same digits. With several processes (`accelerate launch`, `torchrun`) each batch of the
    plan is divided over them.

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
            attempt.publish(lambda folder: write_status(folder, not_run),
                            {**provenance(), **_times(started)})
            return
        # without `cpu`, processes without an accelerator would not find each other
        accelerator = Accelerator(cpu=not torch.accelerator.is_available(),
                                  mixed_precision=precision_here(run.training.precision))
        accelerator.wait_for_everyone()
        if attempt.finished():
            return
        if accelerator.device.type == "cpu":
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

        state: Any = attempt.load()
        if threads := run.threads or (state or {}).get("threads"):
            torch.set_num_threads(threads)
        trainer = Trainer(run, dataset, accelerator)
        if state is not None and not trainer.fits(state):
            attempt.refuse("of a model with other tensors")
            state = None
        trainer.load_state(state)
        done_before, images = len(trainer.history), trainer.objective.per_epoch(run.training.batch_size)
        if done_before and attempt.main:
            print(f"{run.name}: going on after epoch {done_before}", file=sys.stderr)
        total, before = run.training.epochs * images, done_before * images
        with progress(total, run.name, "img", before, disable=not attempt.main) as bar:
            while not trainer.finished():
                trainer.run_epoch(bar)
                attempt.save(trainer.state())

        trained = (len(trainer.history) - done_before) * images
        attempt.publish(trainer.write, {
            **provenance(), **_times(started), "processes": accelerator.num_processes,
            "precision": accelerator.mixed_precision, "epochs": len(trainer.history),
            "resumed_after_epoch": done_before, **trainer.objective.facts(), "peak_memory_mib": peak_memory_mib(),
            "images_per_second": round(trained / trainer.seconds, 2) if trainer.seconds else None})
        accelerator.end_training()


class Gathered(NamedTuple):
    """Values (B,) of a batch, such as its losses, and where they belong."""

    what: str
    values: Tensor
    batch: Sequence[Item]
    where: str


class FiniteWatch:
    """Gathers losses and gradients, and stops the run where one is not finite.

    Reading a value makes the host wait for an accelerator, so many are read at once.

    Args:
        run: the run's name.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._gathered: list[Gathered] = []

    def see(self, what: str, values: Tensor, batch: Sequence[Item], where: str) -> None:
        """Gather values without reading them."""
        self._gathered.append(Gathered(what, values.detach(), batch, where))

    def read(self) -> None:
        """Read what was gathered since the last time.

        Raises:
            UserError: a value is not finite; the message names the first such batch and its samples.
        """
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        finite = torch.stack([seen.values.isfinite().all() for seen in gathered]).tolist()
        if all(finite):
            return
        first = gathered[finite.index(False)]
        wrong = [item.sample_id for item, right in zip(first.batch, first.values.isfinite().tolist(), strict=True)
                 if not right]
        raise UserError(f"{self._run}: the {first.what} is not finite in {first.where}, for {', '.join(wrong)}; "
                        "lower train.lr, or look at these samples.")


class Trainer:
    """A run in training: model, objective, optimiser, and the history so far.

    Attributes:
        objective: the task's; what is trained and validated, and what chooses the best epoch.
        history: one row for each finished epoch: `KNOWN` and the validation scores, the main one first among them.
        seconds: spent on training steps by this process.
        read_every: how many steps lie between two reads of what was computed; each makes the host wait.
        batches_ahead: how many batches are fetched before the one whose step is computed.
    """

    def __init__(self, run: Run, dataset: PreparedDataset, accelerator: Accelerator) -> None:
        self.run, self.config, self.accelerator = run, run.training, accelerator
        task = TASKS[run.task]()
        self.model = task.build(run).to(accelerator.device)
        with accelerator.autocast():  # what is computed ahead is computed as in training
            self.objective = task.objective(run, self.model, dataset)
        self.learned = list(adapters.trainable(self.model).values())
        towers = tower_parameters(self.model, self.config) if self.config.tower_lr_factor != 1 else []
        self.optimizer = make_optimizer(self.config, self.learned, towers)
        self.schedule = make_schedule(self.config, self.optimizer, self.objective.choice.plateau_mode)
        if self.config.compile:
            self.objective.compile()
        self.wrapped_objective, self.wrapped_optimizer = accelerator.prepare(self.objective, self.optimizer)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.seconds = 0.0
        on_host = accelerator.device.type == "cpu"
        self.read_every, self.batches_ahead = (1, 0) if on_host else (READ_EVERY, 1)

    def finished(self) -> bool:
        """Whether all epochs are done, or enough of them without progress."""
        return len(self.history) == self.config.epochs or should_stop(self._selecting(), self.config)

    def run_epoch(self, bar: tqdm) -> None:
        """Train for one epoch, validate, step the schedule, and keep the weights where they are the best."""
        epoch, choice = len(self.history) + 1, self.objective.choice
        lr = self.optimizer.param_groups[0]["lr"]
        loss = self._train(epoch, bar)
        scores = self._validate(epoch)
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(scores[choice.plateau])
        elif self.schedule:
            self.schedule.step()
        slow_towers(self.config, self.optimizer, epoch + 1)
        if is_best(scores[choice.selects], self._selecting(), choice.keeps):
            self.best = changing_tensors(self.model)
        self.history.append({"epoch": epoch, "loss": loss, "lr": lr} | scores)

    def _selecting(self) -> list[float]:
        """The score that chooses the best epoch, of each epoch so far."""
        return [row[self.objective.choice.selects] for row in self.history]

    def _train(self, epoch: int, bar: tqdm) -> float:
        """One pass over the training items; returns their mean loss."""
        begun, rank, ranks = time.monotonic(), self.accelerator.process_index, self.accelerator.num_processes
        torch.manual_seed(rng_of(self.run.seed, epoch, rank).getrandbits(63))
        self.wrapped_objective.train()
        summed = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        watch = FiniteWatch(self.run.name)
        for number, (batch, fetched) in enumerate(self._fetched(epoch), 1):
            where, reads = f"epoch {epoch}, batch {number}", number % self.read_every == 0
            share = batch[rank::ranks]
            losses = self.wrapped_objective(fetched)
            watch.see("loss", losses, share or batch[:1], where)
            total = losses.sum() * bool(share)
            self.accelerator.backward(total * ranks / len(batch))
            norm = self.accelerator.clip_grad_norm_(self.learned, self.config.clip_norm or math.inf)
            if self.accelerator.scaler is None:  # fp16's scaler leaves such a step out and goes on at a smaller scale
                watch.see("gradient", norm.expand(len(batch)), batch, where)
            if reads:
                watch.read()
                bar.set_postfix(epoch=epoch, loss=f"{losses.mean().item():.3f}", refresh=False, **self._latest())
            self.wrapped_optimizer.step()
            self.wrapped_optimizer.zero_grad()
            summed += total.detach()
            bar.update(len(batch))
        watch.read()
        self.seconds += time.monotonic() - begun
        return self.accelerator.reduce(summed).item() / self.objective.per_epoch(self.config.batch_size)

    def _fetched(self, epoch: int) -> Iterator[tuple[Sequence[Item], Any]]:
        """The batches of an epoch, each with what this process needs for its share of it.

        On an accelerator the next batch is fetched before the step of this one is queued.
        """
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        waiting: deque[tuple[Sequence[Item], Any]] = deque()
        for batch in self.objective.batches(epoch, self.config.batch_size):
            # a process without a share of a short last batch takes part with weight 0
            waiting.append((batch, self.objective.fetch(batch[rank::ranks] or batch[:1])))
            if len(waiting) > self.batches_ahead:
                yield waiting.popleft()
        yield from waiting

    def _validate(self, epoch: int) -> dict[str, float]:
        """Validation scores by name, the main one first."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        self.wrapped_objective.eval()
        held_out, summed = self.objective.held_out, torch.zeros((), dtype=torch.float64)
        share, watch = held_out[rank::ranks], FiniteWatch(self.run.name)
        for batch in parts(share or held_out[:1], self.config.batch_size):
            with self.accelerator.autocast():
                measured = self.objective.measure(batch)
            watch.see("loss", measured.sum(dim=0), batch, f"validation after epoch {epoch}")
            summed = summed.to(measured) + torch.stack([row.sum() for row in measured]) * bool(share)
        watch.read()
        return self.objective.scores(self.accelerator.reduce(summed).tolist())

    def _latest(self) -> dict[str, str]:
        """The main validation score of the epoch before, for the progress bar."""
        if not self.history:
            return {}
        main = score_names(self.history)[0]
        return {main: f"{self.history[-1][main]:.3f}"}

    def state(self) -> State:
        """Everything that the following epochs depend on."""
        scaler = self.accelerator.scaler
        return {"history": self.history, "best": self.best, "changing": changing_tensors(self.model),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict() if self.schedule else None,
                "scaler": scaler.state_dict() if scaler else None, "threads": torch.get_num_threads()}

    def fits(self, state: State) -> bool:
        """Whether a state has what `state` has, its tensors by name and shape."""
        own = self.state()
        return state.keys() == own.keys() and all(
            _shapes(tensors) == _shapes(own["changing"]) for tensors in (state["changing"], state["best"]))

    def load_state(self, state: State | None) -> None:
        """Go on from a state; None starts at the beginning."""
        if state is None:
            return
        self.history, self.best = state["history"], state["best"]
        self.model.load_state_dict(state["changing"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule and state["schedule"]:
            self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def write(self, folder: Path) -> None:
        """Write the best epoch's checkpoint, the history and the status."""
        self.model.load_state_dict(self.best, strict=False)
        checkpoint.save(folder / "checkpoint.safetensors", self.model, self.run)
        with open(folder / "history.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            main, *others = score_names(self.history)
            names = ("epoch", "loss", main, "lr", *others)
            writer.writerow(names)
            for row in self.history:
                writer.writerow([row["epoch"], *(f"{row[name]:.8g}" for name in names[1:])])
        write_status(folder)


def score_names(history: Sequence[dict[str, float]]) -> list[str]:
    """Names of the validation scores in a history, the main one first."""
    return [name for name in history[0] if name not in KNOWN]


def is_best(score: float, former: Sequence[float], keeps: str = "first") -> bool:
    """Whether an epoch's score is the best so far, of equal ones the `first` or the `last`."""
    if keeps == "last":
        return all(score >= other for other in former)
    return all(score > other for other in former)


def tower_parameters(model: nn.Module, config: TrainConfig) -> list[nn.Parameter]:
    """The parameters that train at the towers' rate: theirs, positional embeddings apart where those train at the
    head's.
    """
    modules = [name for tower in ("vision", "text") for name in getattr(model, tower).modules]
    towers = parameters_of(model, modules)
    apart = config.tower_positions == "published_full_rate"
    return [parameter for name, parameter in towers.items() if not (apart and POSITIONS in name)]


def make_optimizer(config: TrainConfig, parameters: Sequence[nn.Parameter],
                   towers: Iterable[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """Adam or AdamW over all trainable parameters: in one group, or those of the `towers` in a second one, where
    their rate is another.
    """
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    slow = {id(parameter) for parameter in towers if config.tower_lr_factor != 1}
    of_head = [parameter for parameter in parameters if id(parameter) not in slow]
    of_towers = [parameter for parameter in parameters if id(parameter) in slow]
    groups: list[dict[str, Any]] = [{"params": of_head, "towers": False}, {"params": of_towers, "towers": True}]
    if config.tower_lr_from == 1:
        groups[1]["lr"] = config.lr * config.tower_lr_factor
    # one kernel a step; a CPU keeps the arithmetic of its earlier results
    fused = True if any(parameter.device.type != "cpu" for parameter in parameters) else None
    return kind([group for group in groups if group["params"]], lr=config.lr, weight_decay=config.weight_decay,
                fused=fused)


def slow_towers(config: TrainConfig, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Before a later epoch than the first: give the towers their own rate if it holds from this epoch on."""
    if epoch == config.tower_lr_from:
        for group in optimizer.param_groups:
            group["lr"] *= config.tower_lr_factor if group["towers"] else 1


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer,
                  plateau_mode: Literal["max", "min"] = "max") -> lr_scheduler.LRScheduler | None:
    """The learning rate's schedule, stepped once an epoch; None for a constant rate.

    `plateau` multiplies by `factor` after more than `patience` epochs without a higher score (`plateau_mode` max), or
    a lower one (min), `multistep` after each of the milestones' epochs; `cosine` falls from `lr` to 0 along all epochs.
    """
    if config.schedule == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, plateau_mode, config.factor, config.patience)
    if config.schedule == "multistep":
        return lr_scheduler.MultiStepLR(optimizer, list(config.milestones), gamma=config.factor)
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    return None


def should_stop(scores: Sequence[float], config: TrainConfig) -> bool:
    """Early stopping: at least `min_epochs` are done, and for `early_stop_patience` epochs no score was above
    the best one by more than `early_stop_min_delta`.

    Args:
        scores: what chooses the epoch, of the epochs so far.
    """
    if config.early_stop_patience is None or len(scores) < config.min_epochs:
        return False
    best, waited = -math.inf, 0
    for score in scores:
        best, waited = (score, 0) if score > best + config.early_stop_min_delta else (best, waited + 1)
    return waited >= config.early_stop_patience


def precision_here(wanted: str) -> str:
    """The precision to compute in: `auto` is bf16 on an accelerator that has it, else full precision.

    fp16 needs an accelerator; without one a message is printed and it is full precision.
    """
    if wanted == "auto":
        capable = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if capable else "no"
    if wanted == "fp16" and not torch.cuda.is_available():
        print("precision fp16 needs a GPU; this run is computed in full precision", file=sys.stderr)
        return "no"
    return wanted


def changing_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies, on the CPU, of all tensors that training can change: trainable parameters and buffers."""
    names = {*adapters.trainable(model), *(name for name, _ in model.named_buffers())}
    return {name: tensor.detach().to("cpu", copy=True)
            for name, tensor in model.state_dict().items() if name in names}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _times(started: tuple[float, float]) -> Times:
    """When a training started, by the clock and by the counter that nobody sets back, and how long it took."""
    clock, counter = started
    return {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock)),
            "seconds": round(time.monotonic() - counter, 2)}
