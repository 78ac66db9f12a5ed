"""LoRA (Hu et al., 2022) on the attention of the towers, through peft."""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field
from torch import nn

from featherseg.adapters.base import METHODS, Method, TowerConfig, tuned_towers, unfreeze_head
from featherseg.config import Positive, Several
from featherseg.core.errors import UserError
from featherseg.models.base import SegmentationModel, TowerSpec

Projection = Literal["q_proj", "k_proj", "v_proj", "out_proj"]
SEPARATE = ("q_proj", "v_proj")


class LoRAConfig(TowerConfig):
    """Rank, scaling alpha / rank, which towers and projections are tuned, and whether the decoder is trained.

    `targets: null` is queries and values where the projections are layers of their own (CLIPSeg, BERT). Where one
    matrix holds them (ETRIS, timm's ViT) they are tuned together, the output's too.
    """

    rank: Positive = 16
    alpha: Positive = 32
    targets: Annotated[Several[Projection], Field(min_length=1)] | None = None


@METHODS.register("lora")
class LoRA(Method):
    """Low-rank updates of the attention projections in every block that reaches the mask."""

    Config = LoRAConfig
    requires = frozenset({"text.blocks"})
    colours = {"": "#CC79A7", "VL": "#CC79A7", "V": "#E3B1CC", "L": "#EFD3E2"}

    def apply(self, model: SegmentationModel, config: LoRAConfig) -> None:
        """Inject the layers by full name, so that nothing else can match.

        Raises:
            UserError: a tower without transformer blocks is named, or projections that are not apart.
        """
        names = [name for tower in tuned_towers(model, config) for name in _target_names(model, tower, config)]
        inject_lora(model, names, config.rank, config.alpha)
        unfreeze_head(model, config.head)


def inject_lora(model: nn.Module, names: Sequence[str], rank: int, alpha: int) -> None:
    """Give the modules of these full names (nn.Linear or nn.MultiheadAttention) low-rank updates, in place."""
    from peft import LoraConfig
    from peft.functional import inject_adapter_in_model

    from featherseg.adapters._lora_attention import LoRAAttention

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(names))
    config._register_custom_module({nn.MultiheadAttention: LoRAAttention})
    inject_adapter_in_model(config, model)


def _target_names(model: SegmentationModel, tower: TowerSpec, config: LoRAConfig) -> list[str]:
    layers = tower.projections
    if not layers and tower.attn:
        joint = isinstance(model.get_submodule(f"{tower.blocks[0]}.{tower.attn}"), nn.MultiheadAttention)
        layers = {"joint": tower.attn} if joint else {key: f"{tower.attn}.{key}" for key in get_args(Projection)}
    separate = set(SEPARATE) <= layers.keys()
    if config.targets and not separate:
        raise UserError(f"adapter 'lora' has targets: {', '.join(config.targets)}, but model '{model.name}' keeps its "
                        "attention's projections in one matrix, which is tuned as a whole; set targets: null.")
    chosen = (config.targets or SEPARATE) if separate else layers
    return [f"{block}.{layers[target]}" for block in tower.blocks for target in chosen]
