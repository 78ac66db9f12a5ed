"""From params and recipes to resolved runs.

Precedence: code default < recipe < params file where not null. A knob reaches the runs whose method has it; one that
no declared run has changes nothing, which `plan` and `check` note, and one that no recipe at all has is an error.
"""

import itertools
import os
from collections import defaultdict
from collections.abc import Collection, Container, Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from featherseg.adapters import METHODS, check_pair, resolve
from featherseg.config import (
    DataParams,
    EvaluateConfig,
    ModelConfig,
    ModelParams,
    Params,
    PoolParams,
    Recipe,
    Run,
    Strict,
    TrainConfig,
    parse,
    read_params,
    sections_of,
    study_params_path,
    task_settings,
    write_recipes,
    write_run,
)
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, check_name, not_run_reason
from featherseg.core.paths import RUNS, WEIGHTS, plans, processed
from featherseg.core.provenance import git
from featherseg.core.registry import unknown
from featherseg.core.terminal import first_names
from featherseg.data.folder.privacy import is_public
from featherseg.data.raw.spec import DatasetSpec
from featherseg.data.raw.specs import SPECS
from featherseg.data.synthetic import NAMES
from featherseg.models import MODELS, check_knobs, having
from featherseg.models.knobs import ModelKnobs
from featherseg.models.weights import RANDOM, is_random, weights_sha256
from featherseg.recipes import declared, recipe_names, recipe_path
from featherseg.split_check import split_faults
from featherseg.tasks.base import TASKS


def read_recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UserError: unknown recipe, model, method or knob, a pair that does not fit, or a name that no recipe may have.
    """
    path, recipe = recipe_path(name), declared(name)
    if recipe.model not in MODELS:
        raise unknown(f"model in {path}", recipe.model, list(MODELS))
    _check_recipe_knobs(recipe, str(path))
    for section in ("train", "evaluate"):
        kind = task_settings(recipe.task, section)
        given = getattr(recipe, section) or {}
        for dataset in _datasets_named(given, sections_of(kind)):
            parse(kind, section_of(recipe, section, dataset), f"{path}: {section}")
    config = resolve(recipe.adapter, str(path))
    check_pair(recipe.model, config.name)
    method = METHODS[config.name]
    if recipe.train is not None and not method.trains:
        raise UserError(f"{path}: method '{config.name}' has nothing to train; set train: null.")
    if recipe.train is None and method.trains and not method.in_weights:
        raise UserError(f"{path}: method '{config.name}' needs a section train.")
    return recipe


def _check_recipe_knobs(recipe: Recipe, source: str) -> None:
    """Raises a `UserError` for a key that neither recipes nor the model have, or a value that the model refuses."""
    kind = MODELS[recipe.model].knobs
    for key in recipe.knobs:
        if not having(key):
            raise UserError(f"{source}: {unknown('key', key, [*Recipe.model_fields, *kind.model_fields])}")
    for dataset in _datasets_named(recipe.knobs):
        check_knobs(recipe.model, knobs_of(recipe, dataset), source)


def dataset_names() -> list[str]:
    """Every dataset that a study may name: the synthetic, own and official ones that params.yaml declares."""
    data = read_params("study").data
    _check_listed("synthetic", data.synthetic, NAMES)
    for section in ("official", "bundled", "referring"):
        _check_listed(section, getattr(data, section), SPECS)
    for name, official in data.as_published.items():
        if official not in data.official or not isinstance(SPECS[official], DatasetSpec):
            prepared = [name for name in data.official if isinstance(SPECS[name], DatasetSpec)]
            raise unknown(f"dataset in params.yaml: data.as_published.{name}", official, prepared)
    named = [*data.synthetic, *data.folders, *data.official, *data.bundled, *data.referring, *data.as_published]
    single = set(named)
    if twice := [name for name in named if named.count(name) > 1]:
        raise UserError(f"params.yaml: 'data' declares two datasets of the name {twice[0]!r}; rename your own, or name "
                        "it once.")
    for name, pool in data.pooled.items():
        if name in single:
            raise UserError(f"params.yaml: key 'data.pooled.{name}' is the name of another dataset; rename the pool.")
        for member in pool.members:
            if member not in single:
                raise unknown(f"dataset in params.yaml: data.pooled.{name}", member, sorted(single))
    return sorted({*single, *data.pooled})


def _check_listed(section: str, names: Iterable[str], valid: Collection[str]) -> None:
    for name in names:
        if name not in valid:
            raise unknown(f"dataset in params.yaml: data.{section}", name, list(valid))


def resolve_study(study: str) -> list[Run]:
    """The runs that a study declares, resolved, in the order recipe, dataset, seed.

    Raises:
        UserError: anything in the params or the recipes that cannot be run, before anything runs.
    """
    params = read_params(check_name("study", study))
    source = str(study_params_path(study))
    _check_names(study, params, source)
    recipes = {name: read_recipe(name) for name in params.study.recipes}
    adapters = {name: resolve_adapter(recipe, params, f"recipes/{name}.yaml with {source}")
                for name, recipe in recipes.items()}
    _check_knobs(params, source, recipes, adapters)
    pairs = list(itertools.product(params.study.recipes, params.study.datasets))
    models = {(name, dataset): resolve_model(recipes[name], params, source, dataset) for name, dataset in pairs}
    runs = []
    for (name, dataset), seed in itertools.product(pairs, params.study.seeds):
        recipe = recipes[name]
        model, not_run = models[name, dataset]
        where = f"recipes/{name}.yaml with {source}"
        train = None if recipe.train is None else _train_settings(recipe, params, dataset, where)
        evaluate = _evaluate_settings(recipe, params, dataset, where)
        runs.append(Run(task=recipe.task, study=study, recipe=name, dataset=dataset, seed=seed, model=model,
                        adapter=adapters[name], train=train, evaluate=evaluate, threads=params.threads,
                        not_run=not_run))
    return runs


def _train_settings(recipe: Recipe, params: Params, dataset: str, where: str) -> TrainConfig:
    """How a recipe trains on a dataset."""
    kind = TASKS[recipe.task].train_settings
    own = section_of(recipe, "train", dataset)
    settings = _merge(own, params.train, kind)
    if settings.get("schedule") != own.get("schedule") and params.train.get("milestones") is None:
        settings.pop("milestones", None)  # they belong to the recipe's own schedule
    return parse(kind, settings, f"{where}: train")


def _evaluate_settings(recipe: Recipe, params: Params, dataset: str, where: str) -> EvaluateConfig:
    """How a recipe is scored on a dataset."""
    kind = TASKS[recipe.task].evaluate_settings
    settings = _merge(section_of(recipe, "evaluate", dataset), params.evaluate, kind)
    return parse(kind, settings, f"{where}: evaluate")


def unlisted_run_notes(study: str, runs: list[Run]) -> list[str]:
    """What to do where trained runs are on disk that the study does not list."""
    trained = {path.parent.name for path in (RUNS / study / "train").glob("*/checkpoint.safetensors")}
    unlisted = sorted(trained - {run.name for run in runs})
    if not unlisted:
        return []
    return [f"trained runs that the study does not list: {len(unlisted)} ({first_names(unlisted)}); commit dvc.lock "
            "before dvc exp run or dvc checkout, which remove them from runs/"]


def uncommitted_lock_notes(study: str) -> list[str]:
    """What to do before an experiment where a study's dvc.lock has changes that no commit holds, such as new runs."""
    lock = study_params_path(study).with_name("dvc.lock")
    if "DVC_EXP_BASELINE_REV" in os.environ or not git("status", "--porcelain", "--", str(lock)):
        return []  # DVC sets the variable in an experiment, which it commits itself
    return [f"{lock} has changes that are not committed; commit it before dvc exp run, which removes trained runs that "
            "no committed dvc.lock names"]


def own_data_notes(study: str) -> list[str]:
    """Where the pictures of a study's sets stay that may not be published, and what of these sets git tracks."""
    data = read_params("study").data
    own = [name for name in read_params(study).study.datasets if not is_public(name, data)]
    if not own:
        return []
    return [f"pictures of {first_names(own)} stay in reports/{study}/pictures, which git ignores; scores and the names "
            "of structures go into pages and tables, which it tracks"]


def write_plan(study: str) -> list[Run]:
    """Resolve a study into `runs/<study>/plan/`, two small files a run, and what reports say of its recipes.

    Raises:
        UserError: as `resolve_study`, or a dataset that is known by now lacks a split that its runs need.
    """
    runs = resolve_study(study)
    faults = list(dict.fromkeys(split_faults(runs, read_params("study").data).values()))
    if faults:
        more = f" ({len(faults) - 1} more faults: `featherseg check` lists them.)" if len(faults) > 1 else ""
        raise UserError(f"{study_params_path(study)}: {faults[0]}{more}")
    with atomic_path(plans(study)) as folder:
        folder.mkdir()
        for run in runs:
            write_run(folder, run)
        names = dict.fromkeys(run.recipe for run in runs)
        write_recipes(folder, {name: read_recipe(name) for name in names})
    return runs


def lacking(runs: list[Run], data: DataParams) -> dict[str, str]:
    """Name of a run -> what it lacks (`missing`), or why its dataset's splits do not suffice for it."""
    reasons = {run.name: missing(run, data.pooled) for run in runs}
    return split_faults(runs, data) | {name: reason for name, reason in reasons.items() if reason}


def missing(run: Run, pools: dict[str, PoolParams]) -> str | None:
    """What a run lacks, as far as it can be seen without running anything; None where nothing is known to lack.

    A pooled set (one of `pools`) lacks what its members lack.
    """
    members = pools[run.dataset].members if run.dataset in pools else [run.dataset]
    lacks = dict.fromkeys(filter(None, (_lack(member) for member in members)))
    return "; ".join(filter(None, [run.not_run, *lacks])) or None


def _lack(dataset: str) -> str | None:
    folder = processed(dataset)
    if (folder / "status.json").is_file():
        return not_run_reason(folder)
    fetched = dataset in SPECS or dataset in read_params("study").data.as_published
    return f"{folder} is not prepared yet" if fetched else None


def _check_names(study: str, params: Params, source: str) -> None:
    if study != "study" and params.data != DataParams():
        raise UserError(f"{source}: key 'data' has no effect here; datasets are declared in params.yaml.")
    for key, given, valid in (("recipe", params.study.recipes, recipe_names()),
                              ("dataset", params.study.datasets, dataset_names())):
        for name in given:
            if name not in valid:
                raise unknown(f"{key} in {source}", name, valid)
    for key in ("recipes", "datasets", "seeds"):
        values = getattr(params.study, key)
        if not values:
            raise UserError(f"{source}: key 'study.{key}' is empty; name at least one.")
        if len(set(values)) < len(values):
            raise UserError(f"{source}: key 'study.{key}' names one value twice: {values}.")


def _check_knobs(params: Params, source: str, recipes: dict[str, Recipe], adapters: dict[str, dict]) -> None:
    """Refuse keys that nothing has, and set knobs that no recipe of the repository has."""
    fields = {knob for method in METHODS for knob in METHODS[method].Config.model_fields} - {"name"}
    for knob in params.adapter:
        if knob not in fields:
            raise unknown(f"key in {source}", f"adapter.{knob}", [f"adapter.{field}" for field in fields])
    for section in ("train", "evaluate"):
        _check_section(getattr(params, section), section, source)
    _check_model_knobs(params.model, source)
    idle = _idle_knobs(params, recipes, adapters)
    if foreign := [knob for knob in idle if not _in_some_recipe(knob)]:
        raise UserError(f"{source}: {_listed(idle, foreign)}, but no recipe has that knob; set it to null, or add a "
                        "recipe that has it.")
    for model in params.model.weights:
        if model not in MODELS:
            raise unknown(f"model in {source}: model.weights", model, list(MODELS))


def _check_model_knobs(params: ModelParams, source: str) -> None:
    """Refuse knobs that no model has, and values that none of those with the knob takes."""
    kinds = list(dict.fromkeys(MODELS[name].knobs for name in MODELS))
    fields = [*ModelParams.model_fields, *dict.fromkeys(knob for kind in kinds for knob in kind.model_fields)]
    for knob in params.model_extra or {}:
        if knob not in fields:
            raise unknown(f"key in {source}", f"model.{knob}", [f"model.{field}" for field in fields])
    for kind in kinds:
        parse(kind, {knob: value for knob, value in params.knobs.items() if knob in kind.model_fields}, source, "model")


def idle_knob_notes(study: str) -> list[str]:
    """Knobs that a study's params set although none of its recipes has them, in a sentence.

    Raises:
        UserError: the params or a recipe cannot be read.
    """
    params, source = read_params(study), str(study_params_path(study))
    recipes = {name: read_recipe(name) for name in params.study.recipes}
    adapters = {name: resolve_adapter(recipe, params, source) for name, recipe in recipes.items()}
    _check_knobs(params, source, recipes, adapters)
    idle = _idle_knobs(params, recipes, adapters)
    if not idle:
        return []
    return [f"{source}: {_listed(idle, idle)}, which changes nothing: no run of this study has that knob."]


def _idle_knobs(params: Params, recipes: dict[str, Recipe], adapters: dict[str, dict]) -> dict[str, Any]:
    """Knobs that the params set and no recipe has, with their values."""
    tasks = {recipe.task for recipe in recipes.values()}
    idle = {}
    for knob, value in params.adapter.items():
        if not any(knob in adapter for adapter in adapters.values()):
            idle[f"adapter.{knob}"] = value
    for knob, value in params.model.knobs.items():
        if not any(_has(recipe, knob) for recipe in recipes.values()):
            idle[f"model.{knob}"] = value
    for knob, value in _settings(params).items():
        if not any(_has_setting(task, knob) for task in tasks):
            idle[knob] = value
    return {knob: value for knob, value in idle.items() if value is not None}


def _settings(params: Params) -> dict[str, Any]:
    """What the params say of `train` and `evaluate`: `train.lr`, and of a section within them `train.loss.form`."""
    values: dict[str, Any] = {}
    for section in ("train", "evaluate"):
        inner = {key for task in TASKS for key in sections_of(task_settings(task, section))}
        for key, value in getattr(params, section).items():
            if key in inner and isinstance(value, dict) and value:
                values |= {f"{section}.{key}.{name}": part for name, part in value.items()}
            else:
                values[f"{section}.{key}"] = value
    return values


def _has_setting(task: str, knob: str) -> bool:
    """Whether a task's runs have a key of `_settings`."""
    section, key, *rest = knob.split(".")
    settings: type[BaseModel] = task_settings(task, section)
    if rest:
        settings, key = sections_of(settings).get(key, Strict), rest[0]
    return key in settings.model_fields


def _has(recipe: Recipe, knob: str) -> bool:
    """Whether a study's value of a knob reaches a recipe."""
    kind = MODELS[recipe.model].knobs
    return knob in recipe.knobs or knob in set(kind.model_fields) - kind.where_named


def _in_some_recipe(knob: str) -> bool:
    """Whether any recipe of the repository has a knob, `adapter.<name>`, `model.<name>`, or one of `_settings`."""
    section, name = knob.split(".", 1)
    recipes = map(read_recipe, recipe_names())
    if section in ("train", "evaluate"):
        return any(_has_setting(recipe.task, knob) for recipe in recipes)
    if section == "adapter":
        return any(name in METHODS[recipe.adapter["name"]].Config.model_fields for recipe in recipes)
    return any(_has(recipe, name) for recipe in recipes)


def _listed(values: dict[str, Any], knobs: Iterable[str]) -> str:
    return ", ".join(f"'{knob}' is {values[knob]!r}" for knob in knobs)


def _check_section(given: dict[str, Any], section: str, source: str) -> None:
    """Refuse keys of a section, or of a section within it, that no task has."""
    kinds = [task_settings(task, section) for task in TASKS]
    _check_keys(given, _fields(kinds), source, section)
    inner: dict[str, list[type[BaseModel]]] = defaultdict(list)
    for key, kind in itertools.chain.from_iterable(sections_of(kind).items() for kind in kinds):
        inner[key].append(kind)
    for key, models in inner.items():
        values = given.get(key) or {}
        if not isinstance(values, dict):
            raise UserError(f"{source}: key '{section}.{key}' should hold keys and values, but it is {values!r}.")
        _check_keys(values, _fields(models), source, f"{section}.{key}")


def _fields(kinds: Iterable[type[BaseModel]]) -> list[str]:
    """The keys that any of some settings has."""
    return list(dict.fromkeys(itertools.chain.from_iterable(kind.model_fields for kind in kinds)))


def _check_keys(given: dict[str, Any], valid: list[str], source: str, section: str) -> None:
    for key in given:
        if key not in valid:
            raise unknown(f"key in {source}", f"{section}.{key}", [f"{section}.{name}" for name in valid])


def resolve_adapter(recipe: Recipe, params: Params, source: str) -> dict[str, Any]:
    """The method's effective knobs: the recipe's, overridden by those of the params that are not null."""
    fields = METHODS[recipe.adapter["name"]].Config.model_fields
    given = {knob: value for knob, value in params.adapter.items() if value is not None and knob in fields}
    return resolve({**recipe.adapter, **given}, source).knobs()


def resolve_model(recipe: Recipe, params: Params, source: str,
                  dataset: str | None = None) -> tuple[ModelConfig, str | None]:
    """The model with its weights' hash, and the reason where the weights are missing.

    A knob of the params reaches the recipes that have it; of several word lengths it is the dataset's.
    """
    if recipe.model not in params.model.weights:
        raise UserError(f"{source}: 'model.weights' names no weights for model '{recipe.model}'; "
                        f"add {recipe.model}: <folder> or {recipe.model}: {RANDOM}.")
    weights = params.model.weights[recipe.model]
    reason = None if is_random(weights) else _why_absent(Path(weights))
    sha256 = None if is_random(weights) or reason else weights_sha256(weights)
    own = knobs_of(recipe, dataset)
    given = {knob: value for knob, value in params.model.knobs.items() if _has(recipe, knob)}
    knobs = check_knobs(recipe.model, own | given, source)
    plain = {knob: value for knob, value in knobs.model_dump(mode="json").items() if _is_stated(knob, knobs, own)}
    return ModelConfig(name=recipe.model, weights=weights, sha256=sha256, **plain), reason


def _is_stated(knob: str, knobs: ModelKnobs, own: Container[str]) -> bool:
    """Whether a plan states a knob: one that counts where it is named, or whose value is not the model's own."""
    if knob in own and knob in knobs.where_named:
        return True
    return getattr(knobs, knob) != type(knobs).model_fields[knob].default


def knobs_of(recipe: Recipe, dataset: str | None = None) -> dict[str, Any]:
    """The knobs that a recipe names, at their values for a dataset."""
    return {knob: of_dataset(value, dataset) for knob, value in recipe.knobs.items()}


def of_dataset(value: Any, dataset: str | None = None) -> Any:
    """A recipe's value for a dataset: the value, or out of several by dataset the one of this name or `default`."""
    return value.get(dataset, value["default"]) if isinstance(value, dict) else value


def section_of(recipe: Recipe, section: str, dataset: str | None = None) -> dict[str, Any]:
    """A recipe's section `train` or `evaluate` for a dataset."""
    given = getattr(recipe, section) or {}
    inner = sections_of(task_settings(recipe.task, section))
    return {key: value if key in inner else of_dataset(value, dataset) for key, value in given.items()}


def _datasets_named(given: dict[str, Any], inner: Container[str] = ()) -> list[str | None]:
    """The datasets for which a recipe's keys have values of their own, and None for all others.

    Args:
        inner: the keys that are sections, whose values are none by dataset.
    """
    by_dataset = [value for key, value in given.items() if isinstance(value, dict) and key not in inner]
    names = dict.fromkeys(itertools.chain.from_iterable(by_dataset))
    return [None, *(name for name in names if name != "default")]


def _why_absent(weights: Path) -> str | None:
    """The reason for which public weights are not in their folder; None where they are, and for all others."""
    if (weights / "status.json").is_file():
        return not_run_reason(weights)
    if weights.exists():
        return None
    from featherseg.models.public import PUBLIC

    return f"{weights} is not fetched yet" if weights.parent == WEIGHTS and weights.name in PUBLIC else None


def _merge(recipe: dict[str, Any], params: dict[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """The recipe's values, overridden by those of the params that are not null, sections key by key.

    Args:
        kind: the recipe's settings; keys that another task has do not reach it.
    """
    merged = dict(recipe)
    inner = sections_of(kind)
    for key, value in params.items():
        if key not in kind.model_fields:
            continue
        if key in inner and isinstance(value, dict) and isinstance(merged.get(key, {}), dict):
            merged[key] = _merge(merged.get(key, {}), value, inner[key])
        elif value is not None:
            merged[key] = value
    return merged
