"""EfficientNet-Lite0's tensors under timm's names, out of the names of the package efficientnet-lite-pytorch."""

from typing import TYPE_CHECKING

from featherseg.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

STAGE_LENGTHS = (1, 2, 2, 3, 3, 4, 1)  # blocks of its seven stages
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
LAYERS = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
          "_project_conv": "conv_pwl", "_bn2": "bn3"}
LAYERS_OF_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def under_timms_names(state: dict[str, "Tensor"], source: str) -> dict[str, "Tensor"]:
    """The same tensors, of which timm's first block alone has no expansion.

    Raises:
        UserError: a name is none of EfficientNet-Lite0's.
    """
    places = [f"{stage}.{block}" for stage, length in enumerate(STAGE_LENGTHS) for block in range(length)]
    try:
        return {_renamed(name, places): tensor for name, tensor in state.items()}
    except (KeyError, IndexError, ValueError):
        raise UserError(f"{source} does not hold EfficientNet-Lite0; get it again.") from None


def _renamed(name: str, places: list[str]) -> str:
    layer, rest = name.split(".", 1)
    if layer != "_blocks":
        return f"{OUTSIDE[layer]}.{rest}"
    number, layer, rest = rest.split(".", 2)
    layers = LAYERS if int(number) else LAYERS_OF_FIRST
    return f"blocks.{places[int(number)]}.{layers[layer]}.{rest}"
