"""Whether the runs of a study find the splits that they are trained, validated and scored on, before any is trained."""

import functools
from collections.abc import Iterable

from featherseg.config import DataParams, Run
from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason
from featherseg.core.paths import processed
from featherseg.data.pool import TRAINING
from featherseg.data.prepared import read_splits
from featherseg.run_splits import PREPARE, Splits, split_fault


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
    folder = processed(name)
    if not (folder / "status.json").is_file() or not_run_reason(folder):
        return None
    return Splits(read_splits(folder), PREPARE)


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
    if splits is None:
        return None
    missing = [split for split in (*TRAINING, "test") if split not in splits.names]
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
    settings = data.synthetic[name]
    names = _drawn_splits(name, settings.images, settings.seed)
    return Splits(names, f"raise data.synthetic.{name}.images, which is {settings.images}")


@functools.cache
def _drawn_splits(name: str, images: int, seed: int) -> frozenset[str]:
    """The splits that the images of a synthetic set fall into; several studies ask for those of one set."""
    from featherseg.data.synthetic import synthetic_splits

    names: set[str] = set()
    for split in synthetic_splits(name, images, seed):
        names.add(split)
        if names >= {*TRAINING, "test"}:
            break
    return frozenset(names)


def _pooled_splits(name: str, data: DataParams) -> Splits | None:
    pool = data.pooled[name]
    members: dict[str, Splits] = {}
    for member in pool.members:
        splits = dataset_splits(member, data)
        if splits is None:
            return None
        members[member] = splits
    trained = {split for member in pool.train for split in members[member].names if split in TRAINING}
    tested = {split for member in pool.test for split in members[member].names if split not in TRAINING}
    return Splits(trained | tested, f"add a member that has it to data.pooled.{name}")
