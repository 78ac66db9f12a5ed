"""Read every YAML and dataset and say what is wrong, without running anything."""

from pathlib import Path

from featherseg.config import DataParams, read_params, study_params_path
from featherseg.errors import UserError
from featherseg.plan import read_recipe, recipe_names, resolve_study
from featherseg.split_check import split_faults


def studies() -> list[str]:
    """The root study, and every folder of pipelines/ whose dvc.yaml plans one."""
    papers = [path.parent.name for path in Path("pipelines").glob("*/dvc.yaml")
              if "featherseg plan" in path.read_text(encoding="utf-8")]
    return ["study", *sorted(papers)]


def check_project(only: list[str] | None = None, params_only: bool = False) -> list[str]:
    """Faults of params, recipes, own folders and prepared datasets, one sentence each.

    Args:
        only: the studies to check; all where None.
        params_only: leave recipes of no study, and every dataset, out.
    """
    faults = [fault for study in only or studies() for fault in _faults_of(_check_study, study)]
    if params_only:
        return faults
    faults += [fault for study in only or studies() for fault in study_split_faults(study)]
    faults += [fault for recipe in recipe_names() for fault in _faults_of(read_recipe, recipe)]
    return list(dict.fromkeys(faults)) + _dataset_faults()


def _check_study(study: str) -> None:
    """Resolve a study, and build each of its models, without allocating it, where the study sets a size of theirs.

    Raises:
        UserError: the first fault.
    """
    runs, knobs = resolve_study(study), read_params(study).model
    if knobs.image_size is None and knobs.word_length is None:
        return
    import torch

    from featherseg.models import MODELS
    from featherseg.models.weights import RANDOM

    models = [run.model.model_copy(update={"weights": RANDOM}) if run.not_run else run.model for run in runs]
    for model in {model.model_dump_json(): model for model in models}.values():
        with torch.device("meta"):
            MODELS[model.name](model)


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
    """What the studies lack of a dataset's splits, one sentence each, for the moment at which it is prepared."""
    return [fault for study in studies() for fault in study_split_faults(study, dataset)]


def list_notes() -> list[str]:
    """Faults of the published lists that were downloaded, and what is done about each: no fault of this project.

    Raises:
        UserError: a list that cannot be read.
    """
    from featherseg.data.list_faults import downloaded_lists, list_faults

    try:
        keep = read_params("study").data.keep_published_faults
    except UserError:
        keep = False
    return [fault.sentence(keep) for fault in list_faults(downloaded_lists())]


def _faults_of(read, name: str) -> list[str]:
    try:
        read(name)
    except UserError as error:
        return [str(error)]
    return []


def _dataset_faults() -> list[str]:
    from featherseg.data.card import card_faults
    from featherseg.data.folder import check_folder
    from featherseg.data.pool import pool_faults
    from featherseg.data.prepared import PreparedDataset

    try:
        data = read_params("study").data
    except UserError:
        data = DataParams()
    faults = [f"data.folders.{name}: {fault}" for name, folder in data.folders.items()
              for fault in check_folder(Path(folder.path), folder.class_name, folder.threshold, folder.field,
                                        folder.descriptions)]
    if data.mirror and not Path(data.mirror).is_dir():
        faults.append(f"data.mirror: the folder {data.mirror} does not exist; name an existing one or null.")
    for folder in sorted(Path("data/processed").glob("[!.]*/")):
        faults += _faults_of(PreparedDataset.read, folder) or card_faults(folder)
    # a member that cannot be read is a fault of its own, and not of every pool that it is in
    return faults + [fault for name, pool in data.pooled.items() for fault in pool_faults(name, pool)
                     if fault not in faults]
