"""Bottleneck adapters (Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019)."""

from torch import Tensor, nn
from torch.nn import functional as F

from featherseg.adapters.base import METHODS, Method, TowerConfig, attach, tuned_towers, unfreeze_head
from featherseg.config import Positive
from featherseg.models.base import SegmentationModel


class HoulsbyConfig(TowerConfig):
    """Inner width of the bottlenecks, which towers they are in, and whether the decoder is trained."""

    dim: Positive = 64


class Bottleneck(nn.Module):
    """x + W2 GELU(W1 x), on the last axis of any tensor (..., width), nearly the identity at the start.

    Weights are drawn from a normal distribution of deviation 0.01, cut at two deviations, and biases are 0.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, dim), nn.Linear(dim, width)
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, states: Tensor) -> Tensor:
        """Adapted states, same shape."""
        return states + self.up(F.gelu(self.down(states)))


@METHODS.register("houlsby")
class Houlsby(Method):
    """A bottleneck after attention and one after the MLP, before each residual sum, in every block that reaches
    the mask. The blocks' layer norms, which the paper trains too, stay frozen."""

    Config = HoulsbyConfig
    requires = frozenset({"text.blocks"})
    colours = {"": "#8C564B", "VL": "#8C564B", "V": "#B98A7E", "L": "#DCC3BB"}

    def apply(self, model: SegmentationModel, config: HoulsbyConfig) -> None:
        """Attach the bottlenecks.

        Raises:
            UserError: a tower without transformer blocks is named.
        """
        for tower in tuned_towers(model, config):
            for name in tower.blocks:
                block = model.get_submodule(name)
                for part in tower.parts:
                    attach(block.get_submodule(part), Bottleneck(tower.dim, config.dim))
        unfreeze_head(model, config.head)
