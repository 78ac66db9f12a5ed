"""What a tuning method is: a name, a strict config, what it requires of a model, and `apply`.

One file a method. All checks run before the first parameter is touched.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from featherseg.config import Strict, parse
from featherseg.core.errors import UserError
from featherseg.core.registry import PackageRegistry, unknown
from featherseg.models import MODELS
from featherseg.models.base import SegmentationModel, TowerSpec, parameters_of
from featherseg.models.weights import check_keys

Positions = Literal["V", "VL", "VLC"]


class AdapterConfig(Strict):
    """Base of a method's configuration: its name; a method adds its knobs."""

    name: str

    def knobs(self) -> dict[str, Any]:
        """The fields that have an effect, name included: what a plan holds."""
        return self.model_dump(mode="json", exclude_none=True)


class HeadConfig(AdapterConfig):
    """Whether the decoder is trained beside what the method adds.

    `head: null` trains it where the public weights come without one (ETRIS, whose comparisons all share the
    trained head), and keeps it frozen where they hold a trained one (CLIPSeg, as in VLSM-Adapter).
    """

    head: bool | None = None


class TowerConfig(HeadConfig):
    """Which towers are tuned; `positions: null` tunes every tower that has transformer blocks."""

    positions: Literal["V", "L", "VL"] | None = None


class Method(ABC):
    """A way to tune a model in place.

    Attributes:
        Config: the method's configuration.
        requires: what a model must be able to do (the words of `featherseg.models`); the models that it fits follow.
        trains: False where there is nothing to train.
        in_weights: True where released weights may hold what the method adds, so that a recipe may score them
            as they are (`train: null`).
        colours: in charts, by the positions or the direction of an adapter ("" for a method without such).
    """

    Config: ClassVar[type[AdapterConfig]] = AdapterConfig
    requires: ClassVar[frozenset[str]] = frozenset()
    trains: ClassVar[bool] = True
    in_weights: ClassVar[bool] = False
    colours: ClassVar[dict[str, str]] = {}

    @abstractmethod
    def apply(self, model: SegmentationModel, config: Any) -> None:
        """Insert what the method adds and make exactly that trainable; `model` arrives wholly frozen."""


METHODS: PackageRegistry[type[Method]] = PackageRegistry("adapter", "featherseg.adapters", beside=("base",))


def resolve(adapter: dict[str, Any], source: str = "adapter") -> AdapterConfig:
    """The validated configuration of `{name: ..., knobs}`.

    Raises:
        UserError: an unknown method, knob or value; the message names `source`.
    """
    if "name" not in adapter:
        raise UserError(f"{source}: key 'adapter.name' is missing; valid values are {', '.join(METHODS)}.")
    if adapter["name"] not in METHODS:
        raise unknown(f"adapter in {source}", adapter["name"], list(METHODS))
    return parse(METHODS[adapter["name"]].Config, adapter, f"{source}: adapter")


def fitting_models(method: str) -> list[str]:
    """The models that can do what a method requires."""
    return [model for model in MODELS if METHODS[method].requires <= MODELS[model].can]


def fitting_methods(model: str) -> list[str]:
    """The methods that require no more than a model can do."""
    return [method for method in METHODS if METHODS[method].requires <= MODELS[model].can]


def check_pair(model: str, method: str) -> None:
    """Raises a `UserError` that says what the model lacks, and what fits, where `method` does not fit `model`."""
    lacking = METHODS[method].requires - MODELS[model].can
    if lacking:
        raise UserError(f"adapter '{method}' does not support model '{model}', which lacks "
                        f"{', '.join(sorted(lacking))}; it supports {', '.join(fitting_models(method))}, and model "
                        f"'{model}' takes {', '.join(fitting_methods(model))}.")


def apply(model: SegmentationModel, adapter: dict[str, Any], seed: int = 0) -> SegmentationModel:
    """Freeze the model, then apply a method to it in place; `seed` decides the method's initial weights.

    Raises:
        UserError: an unknown method or knob, a model that the method does not support, or base weights with an
            exchange that the method would leave out.
    """
    config = resolve(adapter)
    check_pair(model.name, config.name)
    if model.exchange_weights and not METHODS[config.name].in_weights:
        fitting = ", ".join(name for name in fitting_methods(model.name) if METHODS[name].in_weights)
        raise UserError(f"the base weights were trained with what the adapter {fitting} adds, which adapter "
                        f"'{config.name}' would leave out; use that adapter, or weights without it.")
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        METHODS[config.name]().apply(model, config)
    return model.train(model.training)  # what was added is in the model's mode


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def unfreeze(model: SegmentationModel, names: Iterable[str]) -> None:
    """Make parameters trainable, except those that never reach the mask."""
    unused = parameters_of(model, model.unused)
    for name, parameter in parameters_of(model, names).items():
        parameter.requires_grad_(name not in unused)


def tuned_towers(model: SegmentationModel, config: TowerConfig) -> list[TowerSpec]:
    """The towers at a method's positions.

    Raises:
        UserError: a tower is named that has no transformer blocks.
    """
    towers = {"V": ("vision", model.vision), "L": ("text", model.text)}
    for position in config.positions or "":
        name, tower = towers[position]
        if not tower.attn:
            fitting = "".join(key for key, (_, other) in towers.items() if other.attn)
            raise UserError(f"adapter '{config.name}' has positions: {config.positions}, but the {name} tower of model "
                            f"'{model.name}' has no transformer blocks; use positions: {fitting}.")
    return [tower for position, (_, tower) in towers.items()
            if tower.attn and position in (config.positions or "VL")]


def unfreeze_head(model: SegmentationModel, head: bool | None) -> None:
    """Make the decoder trainable, or leave it frozen; None follows the model, as `HeadConfig` says."""
    if model.trains_head if head is None else head:
        unfreeze(model, model.decoder_modules)


def set_exchange(model: SegmentationModel, exchange: nn.Module, said: str) -> None:
    """Set what the towers exchange by, with the base weights' tensors of one where they hold any.

    Raises:
        UserError: those tensors, called `said` in the message, are not of this exchange.
    """
    if model.exchange_weights:
        check_keys(model.exchange_weights, exchange.state_dict(), said)
        exchange.load_state_dict(model.exchange_weights)
    else:
        model.untrained = (*model.untrained, "exchange")
    model.exchange = exchange


class AdapterBlock(nn.Module):
    """VLSM-Adapter's block: x + ReLU(W2 ReLU(W1 x)), on the last axis of any tensor (..., width).

    The second activation makes the residual non-negative. Initialised to zero it would never get a gradient,
    so it keeps nn.Linear's own initialisation and is not the identity at the start.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, dim)
        self.up = nn.Linear(dim, width)

    def forward(self, states: Tensor) -> Tensor:
        """Adapted states, same shape."""
        return states + self.up(self.down(states).relu()).relu()


def attach(module: nn.Module, block: nn.Module) -> None:
    """Pass a module's output (a tensor, or the first of a tuple) through `block`.

    The block becomes the submodule `adapter`, so every name of the base weights stays what it was.
    """
    module.adapter = block
    module.register_forward_hook(_adapt)


def _adapt(module: nn.Module, inputs: tuple, output: Any) -> Any:
    adapter = module.get_submodule("adapter")
    if isinstance(output, tuple):
        return (adapter(output[0]), *output[1:])
    return adapter(output)
