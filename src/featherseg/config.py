"""Strict models of params, recipes and resolved runs: the only reader of YAML.

A key that is not declared here, a wrong type or a value out of range is a `UserError` that names the file
and the key.
"""

import copy
import functools
import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypedDict, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.tokens import FlowMappingEndToken, FlowMappingStartToken, FlowSequenceEndToken, FlowSequenceStartToken

from featherseg.core.errors import UserError
from featherseg.core.files import DEEPEST, atomic_path, check_name, check_nesting, read_text, write_json
from featherseg.core.paths import plans
from featherseg.core.registry import unknown
from featherseg.core.terminal import shortened

LONGEST_YAML = 1 << 20  # bytes; a second or two for the parser per 100,000 of them
MOST_YAML_VALUES = 1_000_000  # counted as often as an alias repeats them
DEFAULT_TASK = "segmentation"
RECIPES_FILE = "recipes.json"  # in a study's plan folder
ResizeKind = Literal["squash", "letterbox", "published_warp"]
Positive = Annotated[int, Field(gt=0, le=2**31 - 1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Depth = Annotated[int, Field(gt=0, le=256)]  # blocks of a tower
Side = Annotated[int, Field(gt=0, le=8192)]  # of a square in pixels
InputSide = Annotated[int, Field(gt=0, le=2048)]  # of a model's input; the published ones have 640 at most
Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


def _as_name(name: str) -> str:
    try:
        return check_name("name", name)
    except UserError as error:
        raise ValueError(str(error)) from None


Name = Annotated[str, AfterValidator(_as_name)]
Split = Annotated[str, Field(pattern=r"^\S+( \S+)*$")]
Item = TypeVar("Item")
Several = Annotated[tuple[Item, ...], Field(strict=False)]  # YAML knows lists only


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a split is named twice")
    return names


class Strict(BaseModel):
    """Base of all configuration: undeclared keys and other types are refused, and instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class WithKnobs(Strict):
    """Configuration whose further keys are knobs of a model, which `featherseg.models` checks.

    A knob that is absent or null has the model's own value.
    """

    model_config = ConfigDict(extra="allow")

    @property
    def knobs(self) -> dict[str, Any]:
        """The knobs that are given, by name."""
        return {name: value for name, value in (self.model_extra or {}).items() if value is not None}


class ModelConfig(WithKnobs):
    """Which model, with which weights and knobs.

    `weights` is a local folder (`config.json` and `model.safetensors`), `random`, or `random-small`, random ones of
    the small architecture; `sha256` is that of the weights file, filled in by `plan`. `image_size` is the side of the
    square input in pixels.
    """

    name: str
    weights: str = "random"
    sha256: str | None = None
    image_size: InputSide | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value is not None}

    @property
    def knobs(self) -> dict[str, Any]:
        """The knobs that are given, by name, the input's size among them."""
        size = {} if self.image_size is None else {"image_size": self.image_size}
        return size | super().knobs


class TrainConfig(Strict):
    """Optimisation of one run; the defaults are VLSM-Adapter's (published/hyperparameters.csv).

    Every task has these keys; a task adds its own (`Task.train_settings`). `val_split` is the split that the best
    epoch is chosen on. `patience` and `factor` belong to the plateau schedule, `milestones` and `factor` to multistep.
    `early_stop_patience: null` trains for all epochs. `tower_lr_factor` times the rate is that of what is trained
    inside the towers, from the epoch `tower_lr_from` on: the first one, or the second one as in CRIS's released code,
    which sets it too late for the first. `tower_positions` says whether the towers' positional embeddings have that
    rate too, or the head's (`published_full_rate`: CRIS). A short last batch of an epoch is `kept`, or dropped
    (`published_dropped`: CRIS, ETRIS, DETRIS). `compile` turns the training step into kernels with torch.compile, which
    pays on an accelerator in long trainings.
    """

    epochs: Positive = 200
    min_epochs: Annotated[int, Field(ge=0)] = 10
    batch_size: Positive = 32
    last_batch: Literal["kept", "published_dropped"] = "kept"
    lr: Rate = 1e-3
    tower_lr_factor: Rate = 1.0
    tower_lr_from: Literal[1, 2] = 1
    tower_positions: Literal["tower_rate", "published_full_rate"] = "tower_rate"
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    optimizer: Literal["adamw", "adam"] = "adamw"
    schedule: Literal["plateau", "cosine", "multistep", "constant"] = "plateau"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.3
    patience: Annotated[int, Field(ge=0)] = 5
    milestones: Several[Positive] = ()
    clip_norm: Rate | None = 0.5
    early_stop_patience: Positive | None = 20
    early_stop_min_delta: Annotated[float, Field(ge=0)] = 1e-4
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    compile: bool = False
    val_split: Split = "val"

    def knobs(self) -> dict[str, Any]:
        """The fields that have an effect: those of another schedule, or of what is not done, stay out."""
        return self.model_dump(mode="json", exclude=self.idle())

    def idle(self) -> set[str]:
        """Names of the fields that have no effect beside the others."""
        schedules = {"plateau": {"milestones"}, "multistep": {"patience"}}
        idle = schedules.get(self.schedule, {"factor", "patience", "milestones"})
        if self.early_stop_patience is None:
            idle = idle | {"min_epochs", "early_stop_min_delta"}
        if self.tower_lr_factor == 1:
            idle = idle | {"tower_lr_factor", "tower_lr_from", "tower_positions"}
        return idle if self.compile else idle | {"compile"}

    @model_validator(mode="after")
    def _milestones_belong_to_multistep(self) -> Self:
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError("milestones are given exactly where schedule is multistep")
        return self


class EvaluateConfig(Strict):
    """Which splits are scored, and how many samples at once; a task adds its own keys (`Task.evaluate_settings`)."""

    splits: Annotated[Several[Split], Field(min_length=1), AfterValidator(_each_once)] = ("test",)
    batch_size: Positive = 32


def task_settings(task: str, section: str) -> type[Strict]:
    """The keys of the section `train` or `evaluate` of a task's runs.

    Raises:
        UserError: there is no such task.
    """
    from featherseg.tasks.base import TASKS  # a name leads to it: configuration knows no task

    declared = TASKS[task]
    return declared.train_settings if section == "train" else declared.evaluate_settings


@functools.cache
def sections_of(settings: type[BaseModel]) -> Mapping[str, type[BaseModel]]:
    """The keys of some settings that hold keys of their own, each with the model of these."""
    models = {key: _model_in(field.annotation) for key, field in settings.model_fields.items()}
    return MappingProxyType({key: model for key, model in models.items() if model is not None})


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds: itself, one that may be None, or one by name."""
    for kind in (annotation, *get_args(annotation)):
        if hasattr(kind, "model_fields"):
            return kind
    return None


def _as_settings(value: Any, info: ValidationInfo) -> Any:
    """A section of a run as the settings of the run's task."""
    if "task" not in info.data or (value is None and info.field_name == "train"):
        return value
    kind = task_settings(info.data["task"], str(info.field_name))
    return value if isinstance(value, kind) else kind.model_validate({} if value is None else value)


class Run(Strict):
    """Everything that decides one run's numbers, and nothing else.

    On disk it is two files, so that another threshold retrains nothing: `runs/<study>/plan/<run>.yaml`, and
    the section `evaluate` in `runs/<study>/plan/<run>.evaluate.yaml`. `train` and `evaluate` are the settings of the
    run's `task`. `adapter` holds the method's name and the
    knobs that it has; `train` is None where nothing is trained; `threads` is the number of the processor's threads,
    which changes the last digits, None for as many as the machine has; `not_run` is the reason for which the run
    cannot be made here.
    """

    task: str = DEFAULT_TASK
    study: str
    recipe: str
    dataset: str
    seed: Seed = 0
    model: ModelConfig
    adapter: dict[str, Any]
    train: Annotated[SerializeAsAny[TrainConfig] | None, BeforeValidator(_as_settings)] = None
    evaluate: Annotated[SerializeAsAny[EvaluateConfig], BeforeValidator(_as_settings)] = Field(
        default=None, validate_default=True)
    threads: Positive | None = None
    not_run: str | None = None

    @property
    def name(self) -> str:
        """`<recipe>-<dataset>-<seed>`."""
        return f"{self.recipe}-{self.dataset}-{self.seed}"

    @property
    def training(self) -> TrainConfig:
        """The settings of its training.

        Raises:
            ValueError: nothing is trained.
        """
        if self.train is None:
            raise ValueError(f"run '{self.name}' trains nothing")
        return self.train


class Recipe(WithKnobs):
    """One row of a table: a model, a method, and the settings that differ from the defaults.

    Each knob of the model, and each value of `train` and `evaluate`, is one value, or one by dataset beside a
    `default`. `published` names, for a recipe that follows released code, each difference from what is correct.
    """

    title: str
    task: str = DEFAULT_TASK
    model: str
    adapter: dict[str, Any]
    train: dict[str, Any] | None = {}
    evaluate: dict[str, Any] = {}
    published: dict[str, str] = {}

    @model_validator(mode="after")
    def _values_by_dataset_have_a_default(self) -> Self:
        values = self.knobs
        for section in ("train", "evaluate"):
            inner = sections_of(task_settings(self.task, section))
            given = getattr(self, section) or {}
            values |= {f"{section}.{key}": value for key, value in given.items() if key not in inner}
        for key, value in values.items():
            if isinstance(value, dict) and "default" not in value:
                raise ValueError(f"{key} by dataset needs the key 'default'")
        return self


class RecipeNote(TypedDict):
    """What reports say of a recipe: its title, and the fields in which it follows released code."""

    title: str
    published: list[str]


class StudyParams(Strict):
    """The grid of a study: every recipe on every dataset with every seed."""

    datasets: list[Name]
    recipes: list[Name]
    seeds: list[Seed]


class ModelParams(WithKnobs):
    """Weights by model name (a folder, a file or `random`) and knobs; null keeps the recipe's own."""

    weights: dict[str, str] = {}


class SyntheticParams(Strict):
    """How many images of a synthetic set are drawn, at which side in pixels, from which seed."""

    images: Positive
    size: Annotated[Side, Field(ge=32)]
    seed: Seed = 0


class FolderParams(Strict):
    """A user's folder of images and masks; `threshold` turns grey masks into two values, and `public` says that its
    pictures may be published, so that reports hold them.

    Where the folder has no prompts of its own they are made, in the words of `field` (general, endoscopy, skin,
    ultrasound or street) and with `descriptions`: by class what it is, to follow "which is" in P7 to P9.
    """

    path: str
    class_name: str | None = None
    threshold: Annotated[float, Field(ge=0, le=65535)] | None = None
    field: str = "general"
    descriptions: dict[str, list[str]] = {}
    public: bool = False


class PoolParams(Strict):
    """A pooled set: train and val are those of the sets in `train`, every other split that of the sets in `test`."""

    train: Annotated[list[Name], Field(min_length=1)]
    test: Annotated[list[Name], Field(min_length=1)]

    @property
    def members(self) -> list[str]:
        """Every set that the pool takes something from, those of `train` first."""
        return list(dict.fromkeys([*self.train, *self.test]))


class DataParams(Strict):
    """Where data comes from: synthetic sets, own folders, official sets, and a local mirror of their archives.

    The sets of `bundled` are official ones that share PraNet's test bundle, those of `referring` COCO's images; those
    of `pooled` are made of the others. `as_published` names official sets a second time, to be prepared as the papers'
    released code read them: rows of the lists with their faults, and every level of a mask above 0 as target.
    """

    mirror: str | None = None
    keep_published_faults: bool = False
    synthetic: dict[Name, SyntheticParams] = {}
    folders: dict[Name, FolderParams] = {}
    official: list[Name] = []
    bundled: list[Name] = []
    referring: list[Name] = []
    as_published: dict[Name, Name] = {}
    pooled: dict[Name, PoolParams] = {}


class Params(Strict):
    """A params.yaml. Knobs of `adapter`, `train` and `evaluate` are null where the recipe decides."""

    study: StudyParams
    model: ModelParams = ModelParams()
    adapter: dict[str, Any] = {}
    train: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}
    data: DataParams = DataParams()
    launch: str = "python -m"
    threads: Positive | None = None


class PretrainParams(Strict):
    """How one model's embedded weights are made (`pipelines/pretrain/params.yaml`)."""

    model: str
    images: Positive
    size: Positive
    epochs: Positive
    batch_size: Positive
    lr: Rate
    weight_decay: Annotated[float, Field(ge=0)]


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def read_yaml(path: Path | str) -> Any:
    """Content of a YAML 1.2 file (as DVC reads it, so `1e-3` is a number).

    Raises:
        UserError: the file cannot be read, is not YAML, or refers to itself until it is too large or too deep.
    """
    text = read_text(path, LONGEST_YAML)
    try:
        value = _parsed(text)
    except RecursionError:
        raise UserError(f"{path} is nested too deep to be read; correct the file.") from None
    except Exception as error:  # of its own kinds, and whatever its constructors meet in odd values
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    check_nesting(value, path, MOST_YAML_VALUES)
    return copy.deepcopy(value)


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """The value of a YAML text; not parsed again where several studies read one recipe."""
    _check_brackets(text)
    return YAML(typ="safe", pure=True).load(text)


def _check_brackets(text: str) -> None:
    """Raise RecursionError where brackets are open that deep in one another that the parser would take minutes.

    Those in comments and in quotes are none.
    """
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth = 0
    for token in YAML(typ="safe", pure=True).scan(text):
        depth += isinstance(token, (FlowSequenceStartToken, FlowMappingStartToken))
        depth -= isinstance(token, (FlowSequenceEndToken, FlowMappingEndToken))
        if depth > DEEPEST:
            raise RecursionError


def write_yaml(path: Path | str, value: dict[str, Any]) -> None:
    """Write plain values as YAML, beside and renamed; equal values give equal bytes."""
    with atomic_path(path) as partial:
        partial.write_text(_dumped(json.dumps(value)), encoding="utf-8")


@functools.lru_cache(maxsize=1024)
def _dumped(value: str) -> str:
    """A value, given as JSON, in YAML; not dumped again where many runs share it."""
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style = False
    yaml.dump(json.loads(value), text)
    return text.getvalue()


def parse(kind: type[ConfigT], value: Any, source: str, section: str = "") -> ConfigT:
    """Validate `value` as `kind`; the `UserError` names `source`, the key, the fault and the valid keys.

    Args:
        section: key of `source` under which the value stands, where it is not the whole.
    """
    if not isinstance(value, dict):
        raise UserError(f"{source} should hold keys and values, but holds {type(value).__name__}.")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{source}: {_sentence(kind, error, section)}") from None
    except UserError as error:  # an unknown task
        raise UserError(f"{source}: {error}") from None


def _sentence(kind: type[BaseModel], error: ValidationError, section: str = "") -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in (*filter(None, [section]), *fault["loc"]))
    more = f" (and {error.error_count() - 1} more faults)" if error.error_count() > 1 else ""
    if fault["type"] == "extra_forbidden":
        return f"{unknown('key', key, _keys(kind, fault['loc'][:-1]))}{more}"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if fault["type"] == "value_error" and isinstance(fault["input"], dict):  # of several keys, which it names
        return f"{f'section {key!r}: ' if key else ''}{message}.{more}"
    given = "" if fault["type"] == "missing" else f", but it is {shortened(repr(fault['input']), 200)}"
    return f"key '{key}': {message}{given}.{more}"


def _keys(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Full names of the keys that `kind` declares at a nested location, optional models and maps of models too."""
    for part in location:
        if part in kind.model_fields:
            kind = _model_in(kind.model_fields[part].annotation) or kind
    place = list(map(str, location))
    return [".".join([*place, name]) for name in kind.model_fields]


def plan_path(study: str, run: str) -> Path:
    """The plan file of a run, relative to the project root."""
    return plans(study) / f"{run}.yaml"


def write_run(folder: Path | str, run: Run) -> None:
    """Write a resolved run's two plan files into `folder`."""
    path = Path(folder) / f"{run.name}.yaml"
    idle = {"threads"} if run.threads is None else set()
    plan = run.model_dump(mode="json", exclude={"evaluate", "train", "model", *idle})
    write_yaml(path, plan | {"model": run.model.model_dump(mode="json", exclude_none=True),
                             "train": run.train.knobs() if run.train else None})
    write_yaml(path.with_suffix(".evaluate.yaml"), run.evaluate.model_dump(mode="json"))


def write_recipes(folder: Path | str, recipes: Mapping[str, Recipe]) -> None:
    """Write what reports say of a plan's recipes into `folder`: their titles, and the fields in which they follow
    released code. It stands apart from the runs' plan files, since it decides no number."""
    labels: dict[str, RecipeNote] = {
        name: {"title": recipe.title, "published": list(recipe.published)} for name, recipe in recipes.items()}
    write_json(Path(folder) / RECIPES_FILE, labels)


def read_run(path: Path | str) -> Run:
    """The resolved run of a plan file, `<run>.yaml`, and the evaluation settings beside it.

    Raises:
        UserError: a file is absent or does not hold a run.
    """
    path = Path(path)
    if not path.is_file():
        names = [p.stem for p in path.parent.glob("*.yaml") if not p.stem.endswith(".evaluate")]
        raise unknown("run", path.stem, names)
    plan, evaluate = read_yaml(path), read_yaml(path.with_suffix(".evaluate.yaml"))
    return parse(Run, plan | {"evaluate": evaluate} if isinstance(plan, dict) else plan, str(path))


def study_params_path(study: str) -> Path:
    """The params file of a study: the root one for `study`, else `pipelines/<study>/params.yaml`."""
    return Path("params.yaml") if study == "study" else Path("pipelines") / study / "params.yaml"


def read_params(study: str) -> Params:
    """The params of a study."""
    path = study_params_path(study)
    return parse(Params, read_yaml(path), str(path))
