"""The reliance suite on a run, or on a model of the user's own: files, a page, and a table on the terminal."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from featherseg.config import FolderParams, read_params, study_params_path
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, make_folder, write_json
from featherseg.core.paths import processed
from featherseg.data.folder.privacy import is_public, keep_out_of_git
from featherseg.data.prepare import prepare_own_folder
from featherseg.data.prepared import PreparedDataset, Sample
from featherseg.models.readings import Reader, as_text
from featherseg.reliance.measure import Settings, measure
from featherseg.reliance.predictor import load
from featherseg.reliance.record import Record
from featherseg.reliance.suite import Segment
from featherseg.reliance.verdict import LEAST_DROP, LEVEL, is_drop, is_gain, remarks, tested, title

if TYPE_CHECKING:
    from featherseg.models.base import SegmentationModel

EVERY_SPLIT = "all"


def examine(predictor: str | None, run: str | None, data: Path | None, split: str, limit: int | None,
            out: Path) -> Record:
    """Examine a predictor or a run; write `reliance.parquet`, `reliance.json` and `reliance.html` into `out`.

    Args:
        predictor: `module:function`; None where a run is given.
        run: a planned run, as `<run>` or `<study>/<run>`.
        data: a prepared dataset, a folder with images/ and masks/, or a name that `data.folders` declares; None for
            the run's own.
        split: its name, or `all`.
        limit: at most so many images, of as many patients as can be.
        out: the folder, made where it is absent.

    Returns:
        The record (`reliance.measure`).

    Raises:
        UserError: something that is named cannot be had or used; nothing is written then.
    """
    if (predictor is None) == (run is None):
        raise UserError("name either a predictor (--predictor module:function) or a run (--run).")
    if limit is not None and limit < 1:
        raise UserError(f"the limit is {limit}; give at least 1 image.")
    if out.is_file():
        raise UserError(f"{out} is a file; name a folder.")
    segment: Segment
    reader: Reader
    if predictor is not None:
        if data is None:
            raise UserError("name the data of the predictor: --data <folder>.")
        segment, reader, settings, model = load(predictor), as_text, Settings(limit=limit), predictor
        folder = data
    elif run is not None:
        segment, reader, settings, own_data = _run(run, limit)
        model, folder = run, data or own_data
    with open_data(folder) as (name, dataset):
        samples = _samples(dataset, split, folder)
        where = f"{name}, split {split}" if split != EVERY_SPLIT else name
        trials, record = measure(segment, dataset, samples, settings, model=model, data=where, reader=reader)
        from featherseg.reliance.page import report

        page = report(record, trials, dataset)
    make_folder(out)
    if not _is_public(name):
        keep_out_of_git(out)
    with atomic_path(out / "reliance.parquet") as path:
        trials.to_parquet(path, index=False)
    write_json(out / "reliance.json", record)
    with atomic_path(out / "reliance.html") as path:
        path.write_text(page, encoding="utf-8")
    print(terminal_table(record), f"\n{record['paragraph']}\n\nThe report: {out / 'reliance.html'}", sep="\n")
    return record


@contextlib.contextmanager
def open_data(folder: Path) -> Iterator[tuple[str, PreparedDataset]]:
    """Name and content of a prepared dataset, or of a folder with images/ and masks/, prepared for as long as needed.

    Raises:
        UserError: the folder is neither, or was not prepared for a reason that it states.
    """
    if (folder / "status.json").is_file():
        dataset = PreparedDataset.read(folder)
        if dataset.status["status"] == "not_run":
            raise UserError(f"{folder} was not prepared: {dataset.status['reason']}")
        yield folder.resolve().name, dataset
        return
    name, own = declaration(folder)
    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary) / "prepared"
        prepare_own_folder(name, own, prepared)
        yield name, PreparedDataset.read(prepared)


def declaration(folder: Path) -> tuple[str, FolderParams]:
    """Name and settings of a folder: as `data.folders` of params.yaml declares them, by its path or its name.

    A folder that is not declared is taken with the default settings under its own name.

    Raises:
        UserError: several names declare the path, and `folder` is none of them; or params.yaml cannot be read.
    """
    params = study_params_path("study")
    folders = read_params("study").data.folders if params.is_file() else {}
    of_path = [name for name, own in folders.items() if Path(own.path).resolve() == folder.resolve()]
    if str(folder) in folders and (str(folder) in of_path or not folder.exists()):
        of_path = [str(folder)]
    if len(of_path) > 1:
        raise UserError(f"{params}: 'data.folders' declares {folder} as {' and as '.join(of_path)}; name one of these "
                        "instead of the path.")
    if not of_path:
        return folder.resolve().name, FolderParams(path=str(folder))
    (name,) = of_path
    given = ", ".join(f"{key} {value!r}" for key, value in folders[name].model_dump(exclude_defaults=True).items()
                      if key != "path")
    print(f"{folder} is prepared as {params} declares it: {given or 'with the default settings'}", file=sys.stderr)
    return name, folders[name]


def _is_public(dataset: str) -> bool:
    return study_params_path("study").is_file() and is_public(dataset, read_params("study").data)


def terminal_table(record: Record) -> str:
    """One line an intervention: DSC, change with its interval, corrected p-value and change of the mask."""
    head = f"{'':<28}{'n':>5}{'DSC %':>8}{'change':>9}{'95 % interval':>18}{'p (Holm)':>10}{'mask changed %':>16}"
    own = record["own"]
    lines = [head, f"{'own image, own prompt':<28}{record['n_samples']:>5}{100 * own['value']:>8.1f}"]
    for one in tested(record):
        low, high = one["low"], one["high"]
        interval = "–" if low is None or high is None else f"{_points(high)} to {_points(low)}"
        mark = " *" if is_drop(one) else " +" if is_gain(one) else ""
        lines.append(f"{title(one['condition']):<28}{one['n']:>5}{100 * one['dsc']:>8.1f}{_points(one['drop']):>9}"
                     f"{interval:>18}{one['p_holm']:>10.4f}{100 * one['changed']['value']:>16.1f}{mark}")
    marks = f"* a significant loss, + a significant gain (p < {LEVEL}), of {100 * LEAST_DROP:g} points of DSC or more"
    return "\n".join([*lines, marks, *remarks(record)])


def _points(drop: float) -> str:
    return f"{round(-100 * drop, 1) + 0.0:+.1f}"


def _run(name: str, limit: int | None) -> tuple[Segment, Reader, Settings, Path]:
    """A trained run as a `Segment`, what it reads of prompts, its settings, and its prepared dataset."""
    from featherseg.checkpoint import load_model
    from featherseg.tasks.segmentation.config import scoring_of
    from featherseg.tasks.segmentation.predict import find_run, iterate_probabilities

    run, train_dir = find_run(name)
    model, scoring = cast("SegmentationModel", load_model(run, train_dir)), scoring_of(run)
    segment = partial(iterate_probabilities, model, batch_size=scoring.batch_size)
    settings = Settings(prompts=scoring.prompts, threshold=scoring.threshold, seed=run.seed, limit=limit)
    return segment, model.read, settings, processed(run.dataset)


def _samples(dataset: PreparedDataset, split: str, folder: Path) -> list[Sample]:
    """The samples of a split; a message says how many images of a folder that has just been prepared these are."""
    samples = dataset.samples if split == EVERY_SPLIT else dataset.split(split)
    if not samples:
        has = ", ".join(sorted({sample.split for sample in dataset.samples})) or "(none)"
        raise UserError(f"{folder} has no samples in split '{split}'; its splits are {has}, and --split "
                        f"{EVERY_SPLIT} takes every one.")
    taken = len({sample.image for sample in samples})
    there = len({sample.image for sample in dataset.samples})
    if taken < there and dataset.path != folder:
        print(f"split {split} has {taken} of the {there} images of {folder}; --split {EVERY_SPLIT} takes every one",
              file=sys.stderr)
    return samples
