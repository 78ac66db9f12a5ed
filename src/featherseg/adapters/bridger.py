"""ETRIS's Bridger (Xu et al., ICCV 2023, arXiv 2307.11545): the towers attend to each other after each stage."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from featherseg.adapters.base import METHODS, AdapterConfig, Method, set_exchange, unfreeze
from featherseg.config import Positive
from featherseg.core.errors import UserError
from featherseg.models.base import SegmentationModel
from featherseg.models.etris.config import STAGES
from featherseg.models.etris.head import GatedAttention, convolution

if TYPE_CHECKING:
    from featherseg.models.etris.model import ETRIS
    from featherseg.models.towers.clip import ExchangeSpec

Direction = Literal["both", "text_to_vision", "vision_to_text"]
State = tuple[Tensor, Tensor] | None


class BridgerConfig(AdapterConfig):
    """Inner width, attention heads, how many of the last stages, who listens, and whether positions are trained.

    `heads: null` is the paper's: 4 on ResNets, 8 on a ViT. `positional_embeddings` trains every positional
    embedding of both towers along, as the released code does.
    """

    dim: Positive = 64
    heads: Positive | None = None
    stages: Literal[1, 2, 3] = 3
    direction: Direction = "both"
    positional_embeddings: bool = True


class Interactor(nn.Module):
    """Self-attention, cross-attention to a memory and an MLP, each added and then normalised (ResNets)."""

    def __init__(self, width: int, heads: int, mlp: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, mlp), nn.Linear(mlp, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, memory: Tensor) -> Tensor:
        """States (B, N, width) that have seen a memory (B, M, width)."""
        states = self.norm1(states + self.dropout(self.self_attn(states, states, states, need_weights=False)[0]))
        states = self.norm2(states + self.dropout(self.multihead_attn(states, memory, memory, need_weights=False)[0]))
        return self.norm3(states + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(states))))))


class Bridger(nn.Module):
    """An exchange between the towers: both go down to `dim`, attend to each other, and are added back.

    What is carried to the next stage is what the attention was given, not what it returned. Padding is seen, and
    words see what comes after them. Modules are named as in the released checkpoints, by stage.

    Args:
        spec: what the towers have after each stage.
        config: its knobs.

    Raises:
        UserError: the heads do not divide `dim`.
    """

    def __init__(self, spec: "ExchangeSpec", config: BridgerConfig) -> None:
        super().__init__()
        dim, heads = config.dim, config.heads or (4 if spec.resnet else 8)
        if dim % heads:
            raise UserError(f"adapter 'bridger' has dim: {dim}, which its {heads} attention heads do not divide; set "
                            "adapter.dim to a multiple of them, or adapter.heads.")
        self.first = STAGES - config.stages
        stages = range(self.first, STAGES)
        fusion = Interactor if spec.resnet else GatedAttention

        def each(make: Any) -> nn.ModuleDict:
            return nn.ModuleDict({str(stage): make(stage) for stage in stages})

        self.zoom_in = each(lambda stage: _zoom(spec, stage, spec.widths[stage], dim, enlarge=stage == STAGES - 1))
        self.linear1 = each(lambda stage: nn.Linear(spec.text_width, dim))
        # a norm belongs to the step from one stage to the next, and is named by the former
        self.ln_v = _norms(dim, stages[:-1])
        self.ln_t = _norms(dim, stages[:-1])
        self.fusion_v, self.zoom_out = nn.ModuleDict(), nn.ModuleDict()
        self.fusion_t, self.linear2 = nn.ModuleDict(), nn.ModuleDict()
        if config.direction != "vision_to_text":
            self.fusion_v = each(lambda stage: fusion(dim, heads))
            self.zoom_out = each(lambda stage: _zoom(spec, stage, dim, spec.widths[stage], enlarge=stage < STAGES - 1))
        if config.direction != "text_to_vision":
            self.fusion_t = each(lambda stage: fusion(dim, heads))
            self.linear2 = each(lambda stage: nn.Linear(dim, spec.text_width))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, stage: int, vision: Tensor, text: Tensor, carry: State) -> tuple[Tensor, Tensor, State]:
        """A vision map (B, C, h, w) and words (B, L, width), each having seen the other, and what is carried on."""
        if stage < self.first:
            return vision, text, carry
        key = str(stage)
        small = self.zoom_in[key](vision)
        places, words = small.flatten(2).transpose(1, 2), self.linear1[key](text)
        if carry is not None:
            former = str(stage - 1)
            places = self.ln_v[former](places + carry[0])
            words = self.ln_t[former](words + carry[1])
        if self.fusion_v:
            heard = self.fusion_v[key](places, words).transpose(1, 2).unflatten(2, small.shape[2:])
            vision = vision + self.zoom_out[key](heard)
        if self.fusion_t:
            text = text + self.linear2[key](self.fusion_t[key](words, places))
        return vision, text, (places, words)


def _norms(dim: int, stages: Sequence[int]) -> nn.ModuleDict:
    return nn.ModuleDict({str(stage): nn.LayerNorm(dim) for stage in stages})


def _zoom(spec: "ExchangeSpec", stage: int, inputs: int, outputs: int, enlarge: bool) -> nn.Module:
    """A convolution between a stage's grid and the common one; on a ViT with BatchNorm and ReLU."""
    stride = spec.strides[stage]
    if not spec.resnet:
        return convolution(inputs, outputs, stride, stride, transposed=enlarge)
    return (nn.ConvTranspose2d if enlarge else nn.Conv2d)(inputs, outputs, stride, stride, bias=False)


@METHODS.register("bridger")
class BridgerMethod(Method):
    """The Bridger and ETRIS's head are trained, and CLIP's positional embeddings; the rest of CLIP is frozen."""

    Config = BridgerConfig
    requires = frozenset({"exchange.stages"})
    in_weights = True
    colours = {"": "#5B3FA0", "both": "#5B3FA0", "text_to_vision": "#9480CF", "vision_to_text": "#C6BAE6"}

    def apply(self, model: SegmentationModel, config: BridgerConfig) -> None:
        """Set the exchange, with the base weights' Bridger where they hold one.

        Raises:
            UserError: `dim` is not a multiple of `heads`, or the base weights' Bridger is one of other knobs.
        """
        model = cast("ETRIS", model)  # whose towers alone exchange after stages
        set_exchange(model, Bridger(model.exchange_spec, config), "the Bridger in the base weights")
        unfreeze(model, model.decoder_modules)
        if config.positional_embeddings:
            for name, parameter in model.backbone.named_parameters():
                if "positional_embedding" in name:
                    parameter.requires_grad_(True)
