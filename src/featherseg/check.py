"""Read every YAML and dataset and say what is wrong, without running anything."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featherseg.config import DataParams, read_params, study_params_path
from featherseg.core.errors import UserError
from featherseg.core.files import read_text
from featherseg.core.paths import PROCESSED
from featherseg.plan import idle_knob_notes, read_recipe, resolve_study
from featherseg.recipes import recipe_names
from featherseg.split_check import missing_note, split_faults

_MANY, _NAMED = 5, 3
_MARKS = ":,;."
# a quoted text, or neighbouring words with a slash, a dot inside or a digit: paths, file names, numbers
_NAMES = re.compile(r"""'[^']*'|(?:\S*(?:[/\\\d]|\.\w)\S*)(?: \S*(?:[/\\\d]|\.\w)\S*)*""")


def studies() -> list[str]:
    """The root study, and every folder of pipelines/ whose dvc.yaml plans one."""
    papers = [path.parent.name for path in Path("pipelines").glob("*/dvc.yaml")
              if "featherseg plan" in read_text(path)]
    return ["study", *sorted(papers)]


def check_project(only: list[str] | None = None, params_only: bool = False,
                  notes: list[str] | None = None) -> list[str]:
    """Faults of params, recipes, own folders and prepared datasets, one sentence each.

    Args:
        only: the studies to check; all where None.
        params_only: leave recipes of no study, and every dataset, out.
        notes: takes what to know of own folders' masks although nothing is wrong with them.
    """
    faults = [fault for study in only or studies() for fault in _faults_of(_check_study, study)]
    if params_only:
        return faults
    faults += [fault for study in only or studies() for fault in study_split_faults(study)]
    faults += [fault for recipe in recipe_names() for fault in _faults_of(read_recipe, recipe)]
    return one_of_a_kind([*faults, *_dataset_faults([] if notes is None else notes)])


def one_of_a_kind(sentences: list[str]) -> list[str]:
    """The sentences, of which many that differ in names and numbers alone are one, with a count and the next names."""
    kinds: dict[str, list[str]] = {}
    for sentence in dict.fromkeys(sentences):
        kinds.setdefault(_NAMES.sub("\0", sentence), []).append(sentence)
    lines = []
    for first, *others in kinds.values():
        if len(others) < _MANY:
            lines += [first, *others]
        else:
            names = ", ".join(_other_name(first, other) for other in others[:_NAMED])
            lines.append(f"{first} ({len(others)} more like it: {names}, ...)")
    return lines


def _other_name(sentence: str, alike: str) -> str:
    """The first name in which a sentence differs from another one of its kind."""
    pairs = zip(_NAMES.findall(sentence), _NAMES.findall(alike), strict=True)
    return next(name.strip(_MARKS) for known, name in pairs if known != name)


def _check_study(study: str) -> None:
    """Resolve a study, and where it sets a knob of models, see whether each of its models takes it.

    Raises:
        UserError: the first fault.
    """
    runs = resolve_study(study)
    if not read_params(study).model.knobs:
        return
    from featherseg.models import MODELS
    from featherseg.models.weights import RANDOM

    models = [run.model.model_copy(update={"weights": RANDOM}) if run.not_run else run.model for run in runs]
    for model in {model.model_dump_json(): model for model in models}.values():
        MODELS[model.name].check_sizes(model)


def study_split_faults(study: str, dataset: str | None = None) -> list[str]:
    """Why the splits of a study's datasets, or of one of them, do not suffice for its runs, one sentence each.

    Empty where the study cannot be resolved, which `check_project` reports.
    """
    try:
        if dataset and dataset not in read_params(study).study.datasets:
            return []
        runs = [run for run in resolve_study(study) if dataset in (None, run.dataset)]
        faults = split_faults(runs, read_params("study").data)
    except UserError:
        return []
    return [f"{study_params_path(study)}: {fault}" for fault in dict.fromkeys(faults.values())]


def split_notes(dataset: str) -> list[str]:
    """What a dataset lacks of the splits that its studies need, one sentence each, for when it is prepared; where none
    needs any, what an own folder lacks of train, val and test."""
    faults = [fault for study in studies() for fault in study_split_faults(study, dataset)]
    return faults or _folder_notes([dataset])


def _folder_notes(names: list[str]) -> list[str]:
    """What own folders lack of train, val and test; names of other datasets are passed over."""
    try:
        data = read_params("study").data
    except UserError:
        return []
    notes = (missing_note(name, data) for name in names if name in data.folders)
    return [note for note in notes if note]


def list_notes() -> list[str]:
    """What to know although nothing is wrong with the project: faults of the published lists that were downloaded, with
    what is done about each, and what is passed over in the own folders.

    Raises:
        UserError: a list that cannot be read.
    """
    from featherseg.data.folder.list_faults import downloaded_lists, list_faults
    from featherseg.data.folder.own_folder import folder_notes

    try:
        data = read_params("study").data
    except UserError:
        data = DataParams()
    published = [fault.sentence(data.keep_published_faults) for fault in list_faults(downloaded_lists())]
    return published + [f"data.folders.{name}: {note}" for name, folder in data.folders.items()
                        for note in folder_notes(folder.path, folder.class_name)]


def knob_notes(only: list[str] | None = None) -> list[str]:
    """Knobs that studies set and none of their runs has (`plan.idle_knob_notes`)."""
    return [note for study in only or studies() for note in _texts(idle_knob_notes, study)]


def data_notes() -> list[str]:
    """Missing splits of own folders of no study, and pictures and patients in several splits of any own folder or
    prepared dataset, one sentence each."""
    from featherseg.data.facts import read_facts
    from featherseg.data.folder.own_folder import folder_leaks

    try:
        folders = read_params("study").data.folders
    except UserError:
        folders = {}
    studied = {name for study in studies() for name in _texts(lambda of: read_params(of).study.datasets, study)}
    notes = _folder_notes([name for name in folders if name not in studied])
    for name, folder in folders.items():
        notes += [f"data.folders.{name}: {leak}" for leak in _texts(folder_leaks, folder.path)]
    for prepared in _prepared():
        if prepared.name not in folders:
            notes += [f"{prepared}: {leak}" for leak in _texts(lambda path: read_facts(path).leaks(), prepared)]
    return notes


def _texts(read: Callable[[Any], list[str]], place: Any) -> list[str]:
    """The texts that are read; none where they cannot be, which is a fault of its own."""
    try:
        return read(place)
    except UserError:
        return []


def _prepared() -> list[Path]:
    return sorted(path.parent for path in PROCESSED.glob("[!.]*/status.json"))


def _faults_of(read: Callable[[Any], object], place: Any) -> list[str]:
    try:
        read(place)
    except UserError as error:
        return [str(error)]
    return []


def _dataset_faults(notes: list[str]) -> list[str]:
    from featherseg.data.card import card_faults
    from featherseg.data.folder.own_folder import check_folder
    from featherseg.data.pool import pool_faults
    from featherseg.data.prepared import PreparedDataset

    try:
        data = read_params("study").data
    except UserError:
        data = DataParams()
    faults = []
    for name, folder in data.folders.items():
        known: list[str] = []
        faults += [f"data.folders.{name}: {fault}" for fault in check_folder(
            Path(folder.path), folder.class_name, folder.threshold, folder.field, folder.descriptions, known)]
        notes += [f"data.folders.{name}: {note}" for note in known]
    if data.mirror and not Path(data.mirror).is_dir():
        faults.append(f"data.mirror: the folder {data.mirror} does not exist; name an existing one or null.")
    for prepared in sorted(PROCESSED.glob("[!.]*/")):
        faults += _faults_of(PreparedDataset.read, prepared) or card_faults(prepared)
    # a member that cannot be read is a fault of its own, and not of every pool that it is in
    return faults + [fault for name, pool in data.pooled.items() for fault in pool_faults(name, pool)
                     if fault not in faults]
