"""VLSM-Adapter's dense adapters (DA; MICCAI 2024, arXiv 2405.06196)."""

from typing import Any

from torch import nn

from featherseg.adapters.base import METHODS, AdapterBlock, AdapterConfig, Method, Positions, attach, unfreeze_head
from featherseg.config import Positive
from featherseg.models.base import SegmentationModel, TextFeatures, TowerSpec


class DenseConfig(AdapterConfig):
    """Inner width of the blocks, positions (vision, language, condition), and the conditional block's width."""

    dim: Positive = 64
    positions: Positions = "VLC"
    cond_dim: Positive = 256

    def knobs(self) -> dict[str, Any]:
        """Without `cond_dim` where there is no conditional block."""
        return self.model_dump(mode="json", exclude=set() if "C" in self.positions else {"cond_dim"})


class ConditionalAdapter(nn.Module):
    """One block on the projected text embedding (C)."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.block = AdapterBlock(width, dim)

    def forward(self, text: TextFeatures) -> TextFeatures:
        """Features with the sentence (B, D) adapted."""
        return TextFeatures(self.block(text.sentence), text.taps)


@METHODS.register("vlsm_dense")
class VLSMDense(Method):
    """One block after attention and one after the MLP, before each residual sum, in all blocks before the last tap.

    The decoder stays frozen, unless the public weights come without a trained one (BiomedCLIPSeg).
    """

    Config = DenseConfig
    requires = frozenset({"text.blocks", "vision.blocks", "condition"})
    colours = {"V": "#8FC3E8", "VL": "#2F8AC9", "VLC": "#0B4F82"}

    def apply(self, model: SegmentationModel, config: DenseConfig) -> None:
        """Attach the blocks; everything else stays frozen."""
        self._adapt_tower(model, model.vision, config.dim)
        if "L" in config.positions:
            self._adapt_tower(model, model.text, config.dim)
        if "C" in config.positions:
            model.text_neck = ConditionalAdapter(model.sentence_dim, config.cond_dim)
        unfreeze_head(model, None)

    @staticmethod
    def _adapt_tower(model: SegmentationModel, tower: TowerSpec, dim: int) -> None:
        for name in tower.blocks[: tower.taps[-1]]:
            block = model.get_submodule(name)
            for part in tower.parts:
                attach(block.get_submodule(part), AdapterBlock(tower.dim, dim))
