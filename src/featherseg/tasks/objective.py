"""What a training minimises: the seam between the engine and a task."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from torch import Tensor, nn

from featherseg.config import TrainConfig
from featherseg.core.seeds import rng_of


class Item(Protocol):
    """One thing to learn from, or to be validated on."""

    @property
    def sample_id(self) -> str:
        """Names it in messages."""


ItemT = TypeVar("ItemT", bound=Item)


@dataclass(frozen=True)
class Choice:
    """Which validation scores decide what.

    Attributes:
        selects: the score that chooses the epoch that is kept, and stops early; higher is better.
        keeps: the `first` or the `last` of equally good epochs.
        plateau: the score that the plateau schedule waits for.
        plateau_mode: whether it waits for a higher (`max`) or a lower one (`min`).
    """

    selects: str
    plateau: str
    keeps: Literal["first", "last"] = "first"
    plateau_mode: Literal["max", "min"] = "max"


class Objective(nn.Module, ABC, Generic[ItemT]):
    """What is minimised, and how it is validated. The engine owns all else: steps, schedule, processes, epochs.

    Attributes:
        held_out: the items of validation.
        choice: which validation scores decide what.
    """

    held_out: Sequence[ItemT]
    choice: Choice

    def facts(self) -> dict[str, int]:
        """What the record of a training says of its data, by name."""
        return {}

    @abstractmethod
    def per_epoch(self, size: int) -> int:
        """How many items the batches of an epoch hold, which may leave out a short last one."""

    @abstractmethod
    def batches(self, epoch: int, size: int) -> Iterator[Sequence[ItemT]]:
        """The batches of an epoch. The task owns order, prompts and negatives; all of it is a function of the run's
        seed, the epoch and the sample alone, so that neither processes nor a kill change it."""

    def fetch(self, batch: Sequence[ItemT]) -> Any:
        """What `forward` needs for a batch, on the model's device; the batch itself where there is nothing to fetch.

        On an accelerator it is called one batch ahead, so that reading and copying go on while the device computes.
        """
        return batch

    @abstractmethod
    def forward(self, fetched: Any) -> Tensor:
        """Losses (B,) of what was fetched; the engine averages them, over processes too.

        On an accelerator nothing here makes the host wait for the device; `train.compile` compiles it.
        """

    @abstractmethod
    def measure(self, batch: Sequence[ItemT]) -> Tensor:
        """What validation sums over items, float64 (quantities, B); NaN where an answer is not finite."""

    @abstractmethod
    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        """Validation scores by name, the main one first, from the sums of `measure` over all of `held_out`."""


def parts(items: Sequence, size: int) -> Iterator[Sequence]:
    """Consecutive parts of at most `size` items."""
    return (items[first : first + size] for first in range(0, len(items), size))


def shuffled(indices: Sequence[int], seed: int, epoch: int) -> list[int]:
    """The order of an epoch."""
    order = list(indices)
    rng_of(seed, epoch, "order").shuffle(order)
    return order


def trained_per_epoch(samples: int, config: TrainConfig) -> int:
    """How many of so many samples an epoch trains on: all, or as published those of whole batches."""
    return samples - samples % config.batch_size if config.last_batch == "published_dropped" else samples
