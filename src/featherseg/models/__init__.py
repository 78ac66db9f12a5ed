"""Models by name. Building one imports its library; naming one does not."""

from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

from featherseg.config import HeadPart, ModelConfig, Recipe, parse
from featherseg.errors import UserError
from featherseg.models.clipseg_config import ClipsegFile
from featherseg.models.etris_config import FULL, Architecture, small_config
from featherseg.models.weights import OWN_FILE, RANDOM, read_config, read_state, weights_file, weights_sha256
from featherseg.registry import Registry, unknown

if TYPE_CHECKING:
    from featherseg.models.base import SegmentationModel

MODELS: Registry[Callable[[ModelConfig], "SegmentationModel"]] = Registry("model")
HAVING = {"head_parts": tuple(FULL), "upsampling": tuple(FULL)}  # knobs that only some models have
DEFAULTS = {"head_parts": get_args(HeadPart), "upsampling": "bilinear"}


@MODELS.register("clipseg")
def _clipseg(config: ModelConfig) -> "SegmentationModel":
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.clipseg.configuration_clipseg import CLIPSegConfig

    from featherseg.models.clipseg import CLIPSeg, full_config

    architecture = full_config()
    if config.weights != RANDOM:
        file, given = f"{config.weights}/config.json", read_config(config.weights)
        parse(ClipsegFile, given, file)
        try:
            architecture = CLIPSegConfig.from_dict(given)
        except (TypeError, AttributeError, StrictDataclassError) as error:
            raise UserError(f"{file} is not that of a CLIPSeg ({' '.join(str(error).split())}).") from None
    try:
        return CLIPSeg(architecture, config.image_size or 352)
    except ValueError as error:
        raise UserError(f"model '{config.name}': {error}.") from None


def _etris(config: ModelConfig) -> "SegmentationModel":
    from featherseg.models.etris import build_etris

    architecture = FULL[config.name]
    file = None if config.weights == RANDOM else weights_file(config.weights)
    if file is not None and file.name == OWN_FILE:
        architecture = parse(Architecture, read_config(file.parent), str(file.parent / "config.json"))
    if (config.name == "etris_vit") == (architecture.patch_size is None):
        kind = "ResNet" if architecture.patch_size is None else "ViT"
        raise UserError(f"{config.weights}/config.json says that the vision tower is a {kind}, which is not that of "
                        f"model '{config.name}'; set model.weights to weights of that model.")
    try:
        return build_etris(config.name, architecture, config.image_size, config.word_length, config.head_parts)
    except ValueError as error:
        raise UserError(f"model '{config.name}': {error}.") from None


for _name in FULL:
    MODELS.register(_name)(_etris)


def small_model(name: str, image_size: int) -> "SegmentationModel":
    """A model at the small widths of the embedded weights, in random weights.

    Raises:
        UserError: an unknown model, or one of which there is no small architecture.
    """
    if name == "clipseg":
        from featherseg.models.clipseg import CLIPSeg
        from featherseg.models.clipseg import small_config as small_clipseg

        return CLIPSeg(small_clipseg(image_size=image_size), image_size)
    if name == "etris_vit":
        from featherseg.models.etris import build_etris

        return build_etris(name, small_config(image_size=image_size))
    raise unknown("small model", name, ["clipseg", "etris_vit"])


def build(config: ModelConfig, seed: int = 0) -> "SegmentationModel":
    """The model with its base weights, in eval mode; `seed` decides random ones.

    Raises:
        UserError: an unknown model, a size or a knob that does not fit it, or weights that are absent, unreadable,
            of another model, or not those of `config.sha256`.
    """
    import torch

    factory = MODELS[config.name]
    check_knobs(config.name, config)
    state = None
    if config.weights != RANDOM:
        found = weights_sha256(config.weights)
        if config.sha256 not in (None, found):
            raise UserError(f"the weights in {config.weights} have sha256 {found[:12]}..., but the run was planned "
                            f"with {config.sha256[:12]}...; run the stage `plan` again.")
        state = read_state(config.weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = factory(config)
    if state is not None:
        model.load_base(state, config.weights)
    model.frozen_batchnorm_moves = config.frozen_batchnorm == "published_moving"
    model.upsampling = config.upsampling or "bilinear"
    return model.eval()


def check_knobs(model: str, config: ModelConfig | Recipe, source: str = "") -> None:
    """Raises a `UserError` for a knob that is set but that the model lacks; it names `source` and who has it."""
    for knob, having in HAVING.items():
        if getattr(config, knob) is not None and model not in having:
            raise UserError(f"{source}'{knob}' is set, but model '{model}' has no such knob; models that have it are "
                            f"{', '.join(having)}.")
