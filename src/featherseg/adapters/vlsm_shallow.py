"""VLSM-Adapter's shallow adapters (SA; MICCAI 2024, arXiv 2405.06196)."""

from typing import Any

from torch import nn

from featherseg.adapters.base import METHODS, AdapterBlock, AdapterConfig, Method, Positions, unfreeze_head
from featherseg.config import Positive
from featherseg.core.errors import UserError
from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures


class ShallowConfig(AdapterConfig):
    """Inner width of the blocks, positions (vision, language, condition), and the conditional block's width."""

    dim: Positive = 512
    positions: Positions = "VLC"
    cond_dim: Positive = 256

    def knobs(self) -> dict[str, Any]:
        """Without `cond_dim` where there is no conditional block."""
        return self.model_dump(mode="json", exclude=set() if "C" in self.positions else {"cond_dim"})


class ImageNeck(nn.Module):
    """One block on each of the vision taps."""

    def __init__(self, width: int, dim: int, taps: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AdapterBlock(width, dim) for _ in range(taps))

    def forward(self, image: ImageFeatures) -> ImageFeatures:
        """Features with every tap (B, N, C) adapted."""
        return ImageFeatures(tuple(block(tap) for block, tap in zip(self.blocks, image.taps, strict=True)))


class TextNeck(nn.Module):
    """The sentence through its own block (C), plus the end-of-text states of the taps through theirs (L)."""

    def __init__(self, width: int, dim: int, taps: int, cond_dim: int | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AdapterBlock(width, dim) for _ in range(taps))
        self.condition = AdapterBlock(width, cond_dim) if cond_dim else nn.Identity()

    def forward(self, text: TextFeatures) -> TextFeatures:
        """Features with the sentence (B, D) conditioned."""
        sentence = self.condition(text.sentence)
        for block, tap in zip(self.blocks, text.taps, strict=True):
            sentence = sentence + block(tap)
        return TextFeatures(sentence, text.taps)


@METHODS.register("vlsm_shallow")
class VLSMShallow(Method):
    """Blocks on what leaves the towers, so that their features can be computed once.

    The decoder stays frozen, unless the public weights come without a trained one (BiomedCLIPSeg).
    """

    Config = ShallowConfig
    requires = frozenset({"condition"})
    colours = {"V": "#8AD3BC", "VL": "#1FA27C", "VLC": "#00634A"}

    def apply(self, model: SegmentationModel, config: ShallowConfig) -> None:
        """Put the blocks into the model's necks.

        Raises:
            UserError: the language side is asked for and the text tower is not as wide as the condition.
        """
        if "L" in config.positions and model.text.dim != model.sentence_dim:
            raise UserError(f"adapter 'vlsm_shallow' adds text states of width {model.text.dim} to a condition of "
                            f"width {model.sentence_dim} in model '{model.name}'; use positions: V.")
        model.image_neck = ImageNeck(model.vision.dim, config.dim, len(model.vision.taps))
        if "L" in config.positions:
            cond_dim = config.cond_dim if "C" in config.positions else None
            model.text_neck = TextNeck(model.text.dim, config.dim, len(model.text.taps), cond_dim)
        unfreeze_head(model, None)
