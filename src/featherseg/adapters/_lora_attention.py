"""peft's LoRA of `nn.MultiheadAttention` without its side effect on the frozen weights."""

from typing import Any

from peft.tuners.lora.layer import MultiheadAttention
from torch import Tensor, nn
from torch.func import functional_call


class LoRAAttention(MultiheadAttention):
    """Attention with W + scaling B A in place of its input and output projections.

    peft's own forward (0.21) adds the update to the frozen weights and subtracts it again afterwards, so that each
    step moves them by its rounding, and it adds the output projection's update twice. Here the updated weights are
    handed to the call and nothing frozen is written.
    """

    base_layer: nn.MultiheadAttention

    # peft's says that a tensor comes back
    def forward(self, query: Tensor, *args: Any,  # type: ignore[override]
                **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """What `nn.MultiheadAttention` returns, with the updated projections."""
        out: Any = self.base_layer.out_proj
        (name,) = self.active_adapters
        weights = {"in_proj_weight": self.base_layer.in_proj_weight + self.get_delta_weight(name),
                   "out_proj.base_layer.weight": out.base_layer.weight + out.get_delta_weight(name)}
        return functional_call(self.base_layer, weights, (query, *args), kwargs)

    def _restore_weights(self) -> None:
        """Nothing to restore."""
