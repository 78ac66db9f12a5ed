"""Whether the runs of a study find the splits that they are trained, validated and scored on, before any is trained."""

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from featherseg.config import DataParams, Run
from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason
from featherseg.data.pool import TRAINING
from featherseg.data.prepared import PreparedDataset, Sample, read_splits
from featherseg.data.splits import missing_splits

PROCESSED = Path("data/processed")
TRAIN = "train"
_PREPARE = "prepare it with such samples"


@dataclass(frozen=True)
class Splits:
    """The splits of a dataset.

    Attributes:
        names: those that have samples.
        remedy: how the dataset gets another one.
    """

    names: Collection[str]
    remedy: str


def dataset_splits(name: str, data: DataParams) -> Splits | None:
    """The splits that a dataset has, or will have once it is prepared; None where that cannot be seen yet.

    An own folder and a synthetic set are judged by their declaration, since a prepared copy may be older.
    """
    if name in data.folders:
        return _folder_splits(name, data)
    if name in data.synthetic:
        return _synthetic_splits(name, data)
    if name in data.pooled:
        return _pooled_splits(name, data)
    folder = PROCESSED / name
    if not (folder / "status.json").is_file() or not_run_reason(folder):
        return None
    return Splits(read_splits(folder), _PREPARE)


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
    if fault := split_fault(run, Splits(names, _PREPARE)):
        raise UserError(fault)


def split_faults(runs: Iterable[Run], data: DataParams) -> dict[str, str]:
    """Name of a run -> why its dataset's splits do not suffice for it; runs without a fault are not in it."""
    datasets: dict[str, Splits | None] = {}
    faults = {}
    for run in runs:
        if run.dataset not in datasets:
            datasets[run.dataset] = dataset_splits(run.dataset, data)
        splits = datasets[run.dataset]
        if splits and (fault := split_fault(run, splits)):
            faults[run.name] = fault
    return faults


def missing_note(name: str, data: DataParams) -> str | None:
    """Which of train, val and test a dataset lacks, and what follows; None where it has them, or is not known yet."""
    splits = dataset_splits(name, data)
    missing = [split for split in (*TRAINING, "test") if splits and split not in splits.names]
    if not missing:
        return None
    return (f"dataset '{name}' has no samples in split {', '.join(map(repr, missing))}; its splits are "
            f"{', '.join(sorted(splits.names))}; {splits.remedy}, or set train.val_split and evaluate.splits in what "
            "runs on it.")


def _folder_splits(name: str, data: DataParams) -> Splits | None:
    from featherseg.data.folder.own_folder import folder_splits

    path = data.folders[name].path
    try:
        counts, listed = folder_splits(path)
    except UserError:  # which `check` and `prepare` print
        return None
    if listed:
        remedy = f"name rows of it in the list of {path}, or leave its split column out for 60/20/20"
    else:
        remedy = (f"{path} has fewer than three groups (patients where a list names them, else images), too few to be "
                  "divided: add images, or name the split of each row in a list")
    return Splits(counts, remedy)


def _synthetic_splits(name: str, data: DataParams) -> Splits:
    from featherseg.data.synthetic import synthetic_splits

    settings = data.synthetic[name]
    names: set[str] = set()
    for split in synthetic_splits(name, settings.images, settings.seed):
        names.add(split)
        if names >= {*TRAINING, "test"}:
            break
    return Splits(names, f"raise data.synthetic.{name}.images, which is {settings.images}")


def _pooled_splits(name: str, data: DataParams) -> Splits | None:
    pool = data.pooled[name]
    members = {member: dataset_splits(member, data) for member in pool.members}
    if None in members.values():
        return None
    trained = {split for member in pool.train for split in members[member].names if split in TRAINING}
    tested = {split for member in pool.test for split in members[member].names if split not in TRAINING}
    return Splits(trained | tested, f"add a member that has it to data.pooled.{name}")


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
