"""The splits of a prepared dataset on which a run is trained, validated and scored."""

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from featherseg.config import Run
from featherseg.core.errors import UserError
from featherseg.data.prepared import PreparedDataset, Sample
from featherseg.data.splits import missing_splits

TRAIN = "train"
PREPARE = "prepare it with such samples"


@dataclass(frozen=True)
class Splits:
    """The splits of a dataset.

    Attributes:
        names: those that have samples.
        remedy: how the dataset gets another one.
    """

    names: Collection[str]
    remedy: str


def split_fault(run: Run, splits: Splits) -> str | None:
    """Why a dataset's splits do not suffice for a run, and what to do; None where they do."""
    present = ", ".join(sorted(splits.names)) or "(none)"

    def fault(missing: Iterable[str], purpose: str, knob: str | None) -> str:
        setting = f", or set {knob} to what it has" if knob else ""
        names = ", ".join(map(repr, missing))
        return (f"dataset '{run.dataset}' has no samples in split {names}, {purpose}; its splits are {present}; "
                f"{splits.remedy}{setting}.")

    if run.train is not None:
        if TRAIN not in splits.names:
            return fault([TRAIN], "which training needs", None)
        if run.train.val_split not in splits.names:
            return fault([run.train.val_split], "on which training chooses the best epoch", "train.val_split")
    if missing := missing_splits(run.evaluate.splits, splits.names):
        return fault(missing, "which evaluate.splits names", "evaluate.splits")
    return None


def require_splits(run: Run, dataset: PreparedDataset) -> None:
    """Refuse, before anything is trained, a dataset that lacks a split that the run needs, now or when it is scored.

    Raises:
        UserError: a split is missing.
    """
    names = {sample.split for sample in dataset.samples}
    if fault := split_fault(run, Splits(names, PREPARE)):
        raise UserError(fault)


def chosen_splits(run: Run, dataset: PreparedDataset) -> dict[str, list[Sample]]:
    """The samples of each split that is to be scored, in the order of `evaluate.splits`.

    Data sets differ in their splits, so one of `splits.USUAL` that this one lacks is left out, with a message.

    Raises:
        UserError: a split is unknown, or none of them has samples.
    """
    wanted = run.evaluate.splits
    chosen = {split: samples for split in wanted if (samples := dataset.split(split))}
    lacking = [split for split in wanted if split not in chosen]
    present = ", ".join(sorted({sample.split for sample in dataset.samples})) or "(none)"
    fault = f"dataset '{run.dataset}' has no samples in split {', '.join(map(repr, lacking))}"
    if missing_splits(wanted, chosen):
        raise UserError(f"{fault}; set evaluate.splits to those that it has ({present}), or prepare it with such "
                        "samples.")
    if lacking:
        print(f"{fault}; scored are {', '.join(chosen)}, and its splits are {present}", file=sys.stderr)
    return chosen
