"""Models by name. Building one imports its library; naming one does not."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

from featherseg.config import HeadPart, ModelConfig, Recipe, Strict, parse
from featherseg.core.errors import UserError
from featherseg.core.files import read_object
from featherseg.core.registry import Registry
from featherseg.core.terminal import shortened
from featherseg.models.biomedclipseg import config as biomedclipseg_config
from featherseg.models.clipseg.config import ClipsegFile
from featherseg.models.cnn import config as cnn_config
from featherseg.models.cris import config as cris_config
from featherseg.models.detris import config as detris_config
from featherseg.models.etris import config as etris_config
from featherseg.models.san import config as san_config
from featherseg.models.weights import (
    OWN_FILE,
    RANDOM_SMALL,
    config_file,
    is_random,
    read_state,
    weights_file,
    weights_sha256,
)

if TYPE_CHECKING:
    from featherseg.models.base import SegmentationModel

Factory = Callable[[ModelConfig], "SegmentationModel"]
MODELS: Registry[Factory] = Registry("model")
MOST_ABSENT = 100_000_000  # parameters that base weights may lack, such as a head's
SMALL_SIZE = 64
ETRIS, DETRIS = tuple(etris_config.FULL), tuple(detris_config.FULL)
WITH_ETRIS_HEAD = (*ETRIS, *DETRIS)
# knobs that only some models have: a study's value reaches each run of theirs, or those whose recipe names the knob
ALL = ("clipseg", *biomedclipseg_config.NAMES, "cris", *WITH_ETRIS_HEAD, "san", *cnn_config.NAMES)
HAVING = {"head_parts": WITH_ETRIS_HEAD, "upsampling": (*WITH_ETRIS_HEAD, "cris"), "way_back": ALL}
NAMED = {"word_length": (*WITH_ETRIS_HEAD, "cris"), "frozen_batchnorm": (*ETRIS, "cris", *cnn_config.NAMES),
         "resize": (*WITH_ETRIS_HEAD, "cris"), "text_padding": ("cris",), "decoder_dropout": ("cris",),
         "tap_offset": biomedclipseg_config.NAMES, "text_dropout": biomedclipseg_config.NAMES,
         "side_fusion": ("san",), "recognition": ("san",)}
# by knob and model
DEFAULTS = {"head_parts": dict.fromkeys(WITH_ETRIS_HEAD, get_args(HeadPart)),
            "upsampling": dict.fromkeys(WITH_ETRIS_HEAD, "bilinear") | {"cris": "bicubic"},
            "way_back": dict.fromkeys(ALL, "bilinear"), "resize": dict.fromkeys(WITH_ETRIS_HEAD, "letterbox")}
ArchitectureT = TypeVar("ArchitectureT", bound=Strict)


@MODELS.register("clipseg")
def _clipseg(config: ModelConfig) -> "SegmentationModel":
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.clipseg.configuration_clipseg import CLIPSegConfig

    from featherseg.models.clipseg.model import CLIPSeg, full_config
    from featherseg.models.clipseg.model import small_config as small_clipseg

    if config.weights == RANDOM_SMALL:
        size = config.image_size or SMALL_SIZE
        return CLIPSeg(small_clipseg(image_size=size), size)
    architecture = full_config()
    if not is_random(config.weights):
        file = config_file(config.weights)
        given = read_object(file)
        parse(ClipsegFile, given, str(file))
        try:
            architecture = CLIPSegConfig.from_dict(given)
        except (TypeError, AttributeError, StrictDataclassError) as error:
            raise UserError(f"{file} is not that of a CLIPSeg ({' '.join(str(error).split())}).") from None
    with _sizes_that_fit(config):
        return CLIPSeg(architecture, config.image_size or 352)


def _etris(config: ModelConfig) -> "SegmentationModel":
    from featherseg.models.etris.model import build_etris

    architecture = _architecture(config, etris_config.Architecture, etris_config.FULL[config.name])
    if (config.name == "etris_vit") == (architecture.patch_size is None):
        kind = "ResNet" if architecture.patch_size is None else "ViT"
        raise UserError(f"{config.weights}/config.json says that the vision tower is a {kind}, which is not that of "
                        f"model '{config.name}'; set model.weights to weights of that model.")
    if config.weights == RANDOM_SMALL:
        small = etris_config.small_config if architecture.patch_size else etris_config.small_resnet_config
        architecture = small(image_size=config.image_size or SMALL_SIZE)
    with _sizes_that_fit(config):
        return build_etris(config.name, architecture, config.image_size, config.word_length, config.head_parts)


for _name in ETRIS:
    MODELS.register(_name)(_etris)


def _detris(config: ModelConfig) -> "SegmentationModel":
    from featherseg.models.detris.model import DETRIS as Model

    architecture = _architecture(config, detris_config.Architecture, detris_config.FULL[config.name])
    if config.weights == RANDOM_SMALL:
        architecture = detris_config.small_config(image_size=config.image_size or SMALL_SIZE)
    with _sizes_that_fit(config):
        return Model(config.name, architecture, config.image_size, config.word_length, config.head_parts)


for _name in DETRIS:
    MODELS.register(_name)(_detris)


def _biomedclipseg(config: ModelConfig) -> "SegmentationModel":
    from featherseg.models.biomedclipseg.model import BiomedCLIPSeg

    architecture, vocabulary = _architecture(config, biomedclipseg_config.Architecture, biomedclipseg_config.FULL), None
    if config.weights == RANDOM_SMALL:
        architecture = biomedclipseg_config.small_config(image_size=config.image_size or SMALL_SIZE)
    elif not is_random(config.weights):
        vocabulary = biomedclipseg_config.vocabulary_beside(weights_file(config.weights), architecture)
    with _sizes_that_fit(config):
        return BiomedCLIPSeg(config.name, architecture, config.image_size, vocabulary,
                             config.tap_offset or 0, config.text_dropout or 0.0)


for _name in biomedclipseg_config.NAMES:
    MODELS.register(_name)(_biomedclipseg)


@MODELS.register("cris")
def _cris(config: ModelConfig) -> "SegmentationModel":
    from featherseg.models.cris.model import CRIS

    architecture = _architecture(config, cris_config.Architecture, cris_config.FULL[config.name])
    if config.weights == RANDOM_SMALL:
        architecture = cris_config.small_config(image_size=config.image_size or SMALL_SIZE)
    if config.decoder_dropout is not None:
        architecture = architecture.model_copy(update={"dropout": config.decoder_dropout})
    with _sizes_that_fit(config):
        return CRIS(config.name, architecture, config.image_size, config.word_length, config.text_padding or "masked",
                    config.resize or "squash")


def _cnn(config: ModelConfig) -> "SegmentationModel":
    from featherseg.models.cnn.model import CNN

    architecture = cnn_config.FULL[config.name]
    if config.weights == RANDOM_SMALL:
        architecture = cnn_config.small_config(config.name)
    elif (Path(config.weights) / "config.json").is_file():  # ImageNet's weights of the encoder come without
        architecture = _architecture(config, cnn_config.Architecture, architecture)
    with _sizes_that_fit(config):
        return CNN(config.name, architecture, config.image_size)


for _name in cnn_config.NAMES:
    MODELS.register(_name)(_cnn)


@MODELS.register("san")
def _san(config: ModelConfig) -> "SegmentationModel":
    from featherseg.models.san.model import SAN

    architecture = _architecture(config, san_config.Architecture, san_config.FULL)
    if config.weights == RANDOM_SMALL:
        architecture = san_config.small_config(config.image_size or SMALL_SIZE)
    with _sizes_that_fit(config):
        return SAN(architecture, config.image_size, swapped=config.side_fusion == "published_swapped",
                   learns_to_recognise=config.recognition != "published_without_gradient")


@contextlib.contextmanager
def _sizes_that_fit(config: ModelConfig) -> Iterator[None]:
    """A size that a model refuses, as a `UserError` that names the model."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"model '{config.name}': {error}.") from None


def _architecture(config: ModelConfig, kind: type[ArchitectureT], full: ArchitectureT) -> ArchitectureT:
    """What `config.json` beside the package's own weights says; `full` for all other weights."""
    if is_random(config.weights) or weights_file(config.weights).name != OWN_FILE:
        return full
    file = config_file(config.weights)
    return parse(kind, read_object(file), str(file))


def small_model(name: str, image_size: int) -> "SegmentationModel":
    """A model at the small widths of the embedded weights, in random weights.

    Raises:
        UserError: an unknown model.
    """
    return MODELS[name](ModelConfig(name=name, weights=RANDOM_SMALL, image_size=image_size))


def _check_size(config: ModelConfig, factory: Factory, weights: int) -> None:
    """Refuse a `config.json` that asks for much more memory than its weights fill, before any is taken."""
    import torch

    try:
        with torch.device("meta"):
            asked = sum(parameter.numel() for parameter in factory(config).parameters())
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

    from featherseg.data.transforms import resize_of

    factory = MODELS[config.name]
    check_knobs(config.name, config)
    state = None
    if not is_random(config.weights):
        found = weights_sha256(config.weights)
        if config.sha256 not in (None, found):
            raise UserError(f"the weights in {config.weights} have sha256 {found[:12]}..., but the run was planned "
                            f"with {config.sha256[:12]}...; run the stage `plan` again.")
        state = read_state(config.weights)
        _check_size(config, factory, sum(tensor.numel() for tensor in state.values()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = factory(config)
    if state is not None:
        model.load_base(state, config.weights)
    model.frozen_batchnorm_moves = config.frozen_batchnorm == "published_moving"
    model.upsampling = config.upsampling or model.upsampling
    model.way_back = config.way_back or model.way_back
    if config.resize:
        model.resize = resize_of(config.resize, model.image_size, model.fill)
    return model.eval()


def check_knobs(model: str, config: ModelConfig | Recipe, source: str = "") -> None:
    """Raises a `UserError` for a knob that is set but that the model lacks; it names `source` and who has it."""
    for knob, having in (HAVING | NAMED).items():
        if getattr(config, knob) is not None and model not in having:
            raise UserError(f"{source}'{knob}' is set, but model '{model}' has no such knob; models that have it are "
                            f"{', '.join(having)}.")
