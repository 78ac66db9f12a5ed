"""LoRA (Hu et al., 2022) on the attention of both towers, through peft."""

from typing import Literal

from featherseg.adapters.base import METHODS, AdapterConfig, Method
from featherseg.config import Positive, Several
from featherseg.models.base import SegmentationModel


class LoRAConfig(AdapterConfig):
    """Rank, scaling alpha / rank, and which towers and projections are tuned."""

    rank: Positive = 16
    alpha: Positive = 32
    positions: Literal["V", "VL"] = "VL"
    targets: Several[Literal["q_proj", "k_proj", "v_proj", "out_proj"]] = ("q_proj", "v_proj")


@METHODS.register("lora")
class LoRA(Method):
    """Low-rank updates of the attention projections in every block that reaches the mask; the rest is frozen."""

    Config = LoRAConfig

    def apply(self, model: SegmentationModel, config: LoRAConfig) -> None:
        """Inject the layers by full name, so that nothing else can match."""
        from peft import LoraConfig
        from peft.functional import inject_adapter_in_model

        towers = (model.vision, model.text) if "L" in config.positions else (model.vision,)
        names = [f"{block}.{tower.attn}.{target}"
                 for tower in towers for block in tower.blocks for target in config.targets]
        inject_adapter_in_model(LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=names), model)
