"""Models by name. Naming one imports no torch; building one imports its library.

A family is a folder. Its `config.py` declares `MODELS` (the names, and what each model can) and `Knobs`, and says
without torch what a model takes (`check_sizes(config, knobs)`) and how it reads prompts (`reader(config, knobs)`). Its
`model.py` has `build(config, knobs)`. The folders are found, so that a new one needs no entry elsewhere.

What a model can, and a tuning method may require:

- `text`: the mask depends on a prompt.
- `text.blocks`, `vision.blocks`: that tower's features come from transformer blocks that may be tuned.
- `text.tokens`: learned tokens may stand beside the prompt's own.
- `condition`: the decoder reads a few states of the towers under one sentence vector, as CLIPSeg's does.
- `exchange.stages`: the towers may tell each other something after each of three stages.
- `exchange.words`: the vision tower may hear the words while it runs.
- `head.pretrained`: weights exist that hold a trained decoder.
"""

import contextlib
import functools
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from featherseg.config import ModelConfig, parse
from featherseg.core.errors import UserError
from featherseg.core.registry import unknown
from featherseg.core.terminal import shortened
from featherseg.models.knobs import ModelKnobs
from featherseg.models.readings import PromptReader
from featherseg.models.weights import RANDOM_SMALL, is_random, read_state, weights_sha256

if TYPE_CHECKING:
    from featherseg.models.base import SegmentationModel

MOST_ABSENT = 100_000_000  # parameters that base weights may lack, such as a head's


@dataclass(frozen=True)
class ModelSpec:
    """What a family's folder declares of one model.

    Attributes:
        name: the model's name in recipes.
        family: the folder.
        knobs: what a run may choose of it.
        can: what it can, in the words of this module's docstring.
    """

    name: str
    family: str
    knobs: type[ModelKnobs]
    can: frozenset[str]

    def __call__(self, config: ModelConfig) -> "SegmentationModel":
        """The model of this configuration, in random weights.

        Raises:
            UserError: a knob that the model lacks, or a size that does not fit it.
        """
        knobs = check_knobs(self.name, config.knobs)
        module = importlib.import_module(f"{__name__}.{self.family}.model")
        with _sizes_that_fit(self.name):
            model = module.build(config, knobs)
        model.way_back = knobs.way_back
        return model

    def check_sizes(self, config: ModelConfig) -> None:
        """Check without torch that the knobs of this configuration fit the model.

        Raises:
            UserError: a knob that the model lacks, a size that does not fit it, or weights that do not say what the
                model is.
        """
        knobs = check_knobs(self.name, config.knobs)
        with _sizes_that_fit(self.name):
            _declaration(self.family).check_sizes(config, knobs)

    def reader(self, config: ModelConfig) -> PromptReader:
        """How the model of this configuration reads prompts, without torch; errors are those of `check_sizes`."""
        self.check_sizes(config)
        knobs = check_knobs(self.name, config.knobs)
        reader: PromptReader = _declaration(self.family).reader(config, knobs)
        return reader


class Models(Mapping[str, ModelSpec]):
    """Every model of every family; looking one up imports the `config.py` of its own family where that shares its name.
    """

    def __getitem__(self, name: str) -> ModelSpec:
        for family in sorted(families(), key=lambda family: not name.startswith(family)):
            if name in declared_by(family):
                return declared_by(family)[name]
        raise unknown("model", name, list(self))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(name for family in families() for name in declared_by(family)))

    def __len__(self) -> int:
        return sum(len(declared_by(family)) for family in families())

    def __contains__(self, name: object) -> bool:
        return any(name in declared_by(family) for family in families())


MODELS = Models()


@functools.cache
def families() -> tuple[str, ...]:
    """The folders that declare models."""
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/config.py")))


@functools.cache
def declared_by(family: str) -> dict[str, ModelSpec]:
    """The models of a family, by name."""
    config = _declaration(family)
    return {name: ModelSpec(name, family, config.Knobs, frozenset(can)) for name, can in config.MODELS.items()}


def _declaration(family: str) -> ModuleType:
    """A family's `config.py`."""
    return importlib.import_module(f"{__name__}.{family}.config")


def having(knob: str) -> list[str]:
    """The models that have a knob."""
    return [name for name in MODELS if knob in MODELS[name].knobs.model_fields]


def check_knobs(model: str, given: Mapping[str, Any], source: str = "") -> ModelKnobs:
    """A model's knobs, those that are not given at their defaults.

    Args:
        model: the model's name.
        given: values by knob.
        source: where they stand, for messages.

    Raises:
        UserError: a knob that the model lacks, with the models that have it, or a value that it does not take.
    """
    kind, begin = MODELS[model].knobs, f"{source}: " if source else ""
    for knob in given:
        if knob not in kind.model_fields:
            others = having(knob)
            if not others:
                raise UserError(f"{begin}{unknown('key', knob, list(kind.model_fields))}")
            raise UserError(f"{begin}'{knob}' is set, but model '{model}' has no such knob; models that have it are "
                            f"{', '.join(others)}.")
    return parse(kind, dict(given), source or f"model '{model}'")


@contextlib.contextmanager
def _sizes_that_fit(name: str) -> Iterator[None]:
    """A size that a model refuses, as a `UserError` that names the model."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"model '{name}': {error}.") from None


def small_model(name: str, image_size: int, **knobs: Any) -> "SegmentationModel":
    """A model at the small widths of the embedded weights, in random weights.

    Raises:
        UserError: an unknown model, or a knob that it lacks.
    """
    return MODELS[name](ModelConfig(name=name, weights=RANDOM_SMALL, image_size=image_size, **knobs))


def _check_size(config: ModelConfig, weights: int) -> None:
    """Refuse a `config.json` that asks for much more memory than its weights fill, before any is taken."""
    import torch

    try:
        with torch.device("meta"):
            asked = sum(parameter.numel() for parameter in MODELS[config.name](config).parameters())
    except RuntimeError as error:  # a tensor of more values than can be counted
        raise UserError(f"the config.json beside {config.weights} describes no model that can be built "
                        f"({shortened(str(error), 100)}); put the one that belongs to the weights there.") from None
    if asked > MOST_ABSENT + 4 * weights:
        raise UserError(f"the config.json beside {config.weights} describes a model of {asked:,} parameters, but there "
                        f"are {weights:,} values in the weights; put the one that belongs to them there.")


def build(config: ModelConfig, seed: int = 0) -> "SegmentationModel":
    """The model with its base weights, in eval mode; `seed` decides random ones.

    Raises:
        UserError: an unknown model, a size or a knob that does not fit it, or weights that are absent, unreadable,
            of another model, or not those of `config.sha256`.
    """
    import torch

    check_knobs(config.name, config.knobs)
    state = None
    if not is_random(config.weights):
        sha256 = weights_sha256(config.weights)
        if config.sha256 not in (None, sha256):
            raise UserError(f"the weights in {config.weights} have sha256 {sha256[:12]}..., but the run was planned "
                            f"with {config.sha256[:12]}...; run the stage `plan` again.")
        state = read_state(config.weights)
        _check_size(config, sum(tensor.numel() for tensor in state.values()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[config.name](config)
    if state is not None:
        model.load_base(state, config.weights)
    return model.eval()
