"""DETRIS's adapters (Huang et al., AAAI 2025, arXiv 2501.08580), densely connected convolutions beside MLPs.

Dense Aligners are in the vision tower and attend to the words, Text Adapters in the text tower. Modules are named as in
the released checkpoints, so that those load by name.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from featherseg.adapters.base import METHODS, AdapterConfig, Method, set_exchange, unfreeze
from featherseg.config import Positive
from featherseg.core.errors import UserError
from featherseg.models.base import SegmentationModel

if TYPE_CHECKING:
    from featherseg.models.detris.model import DETRIS

SCALE = 0.2
DEVIATION = 0.02  # of DINOv2's linear layers at the start
ATTENTION_WIDTH, ATTENTION_HEADS = 128, 8
LEAST = 16  # the narrowest convolution has a sixteenth of an adapter's width


class DenseAlignerConfig(AdapterConfig):
    """Inner widths in the vision and the text tower, and how many blocks of each tower have an adapter, evenly spread.
    """

    dim: Positive = 128
    text_dim: Positive = 64
    blocks: Positive = 6


class Convolution(nn.Module):
    """Convolution that keeps the size, BatchNorm, ReLU, on a line or on a grid.

    The convolution's bias, which BatchNorm takes away again, is there as in the released code: it is counted, and gets
    no gradient but rounding.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, axes: int) -> None:
        super().__init__()
        convolution, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))[axes - 1]
        self.conv = convolution(inputs, outputs, kernel, padding=kernel // 2)
        self.bn = norm(outputs, eps=1e-3)

    def forward(self, features: Tensor) -> Tensor:
        """(B, outputs, ...) of (B, inputs, ...)."""
        return self.bn(self.conv(features)).relu()


class DenseAdapter(nn.Module):
    """Down to `dim`, a dense mixture of convolutions, and up; added, times 0.2, to what a block's MLP returns.

    Three branches, of kernels 1, 3 and 5, each see what the ones before found; together they have the inner width.

    Args:
        width: of the tower's states.
        dim: inner width.
        axes: 1 where tokens lie on a line, 2 on a grid.
    """

    def __init__(self, width: int, dim: int, axes: int) -> None:
        super().__init__()
        first, narrow, other = dim // 2, dim // LEAST, dim // 4
        self.dense_branch1 = Convolution(dim, first, 1, axes)
        self.dense_branch2 = nn.Sequential(Convolution(dim + first, narrow, 1, axes),
                                           Convolution(narrow, other, 3, axes))
        self.dense_branch3 = nn.Sequential(Convolution(dim + first + other, narrow, 1, axes),
                                           Convolution(narrow, other, 5, axes))
        self.D_fc1, self.D_fc2 = nn.Linear(width, dim), nn.Linear(dim, width)
        self._taken: Tensor | None = None

    def mixed(self, features: Tensor) -> Tensor:
        """The branches' channels together, (B, dim, ...) of the same shape."""
        scales = [features]
        for branch in (self.dense_branch1, self.dense_branch2, self.dense_branch3):
            scales.append(branch(torch.cat(scales, dim=1)))
        return torch.cat(scales[1:], dim=1)

    def attach(self, source: nn.Module, mlp: nn.Module) -> None:
        """Read what is given to `source`, and add to what `mlp`, which runs later or is the same, returns."""
        source.register_forward_pre_hook(self._take)
        mlp.register_forward_hook(self._add)

    def _take(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._taken = inputs[0]

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        states, self._taken = self._taken, None
        return output + SCALE * self(states)


class TextAdapter(DenseAdapter):
    """A dense adapter over a sentence's tokens, the start token apart. Words see what comes after them, padding too."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(width, dim, axes=1)

    def forward(self, states: Tensor) -> Tensor:
        """(B, L, width) of the same shape."""
        inner = self.D_fc1(states).relu()
        start, words = inner[:, :1], inner[:, 1:]
        mixed = self.mixed(words.transpose(1, 2)).transpose(1, 2)
        return self.D_fc2(inner + torch.cat([start, mixed], dim=1))


class CrossAttention(nn.Module):
    """Places attend to words; projections lead to the attention's width and back."""

    def __init__(self, width: int, text_width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(ATTENTION_WIDTH, ATTENTION_HEADS, dropout, batch_first=True)
        self.image_proj = nn.Linear(width, ATTENTION_WIDTH)
        self.text_proj = nn.Linear(text_width, ATTENTION_WIDTH)
        self.back_proj = nn.Linear(ATTENTION_WIDTH, width)

    def forward(self, places: Tensor, words: Tensor) -> Tensor:
        """(B, N, width) of places of that shape and words (B, L, text width)."""
        memory = self.text_proj(words)
        return self.back_proj(self.multihead_attn(self.image_proj(places), memory, memory, need_weights=False)[0])


class DenseAligner(DenseAdapter):
    """A dense adapter over a map's places that then attend to the words, other tokens apart. Padding is seen.

    Args:
        width, text_width: of the towers' states.
        dim: inner width.
        prefix: tokens before those of the patches.
    """

    def __init__(self, width: int, text_width: int, dim: int, prefix: int) -> None:
        super().__init__(width, dim, axes=2)
        self.cross = CrossAttention(dim, text_width)
        self.prefix = prefix
        self.words: Tensor | None = None
        self._initialise()

    def _initialise(self) -> None:
        """Convolutions as He et al. (2015) draw them, linear layers as DINOv2's tower, which they are part of.

        Larger linear layers would drown the pretrained tower in noise from the first step on.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=DEVIATION)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, states: Tensor) -> Tensor:
        """(B, prefix + side * side, width) of the same shape."""
        inner = self.D_fc1(states).relu()
        others, places = inner[:, : self.prefix], inner[:, self.prefix :].transpose(1, 2)
        side = math.isqrt(places.shape[2])
        mixed = places + self.mixed(places.unflatten(2, (side, side))).flatten(2)
        return self.D_fc2(inner + torch.cat([others, self.cross(mixed.transpose(1, 2), self.words)], dim=1))


class DenseAligners(nn.Module):
    """The adapters of both towers, by block; the vision tower's hear the words while it runs.

    Raises:
        UserError: a width that the branches cannot share.
    """

    def __init__(self, model: "DETRIS", config: DenseAlignerConfig) -> None:
        super().__init__()
        for knob, dim in (("dim", config.dim), ("text_dim", config.text_dim)):
            if dim % LEAST:
                raise UserError(f"adapter 'dense_aligner' has {knob}: {dim}, which its branches cannot share; set "
                                f"adapter.{knob} to a multiple of {LEAST}.")
        vision, text = model.vision, model.text
        self.vision = nn.ModuleDict({
            str(block): DenseAligner(vision.dim, text.dim, config.dim, model.prefix)
            for block in _spread(config.blocks, vision.blocks)})
        self.text = nn.ModuleDict({
            str(block): TextAdapter(text.dim, config.text_dim) for block in _spread(config.blocks, text.blocks)})

    def attach(self, model: "DETRIS") -> None:
        """Attach every adapter to its block: Text Adapters read what the MLP adds to, before any norm."""
        for adapters, tower in ((self.vision, model.vision), (self.text, model.text)):
            mlp = cast(str, tower.mlp)
            source = tower.before_mlp or mlp
            for block, adapter in adapters.items():
                module = model.get_submodule(tower.blocks[int(block)])
                cast(DenseAdapter, adapter).attach(module.get_submodule(source), module.get_submodule(mlp))

    @contextlib.contextmanager
    def hearing(self, words: Tensor) -> Iterator[None]:
        """A context in which the vision tower hears these words (B, L, text width)."""
        self._tell(words)
        try:
            yield
        finally:
            self._tell(None)

    def _tell(self, words: Tensor | None) -> None:
        for adapter in self.vision.values():
            cast(DenseAligner, adapter).words = words


def _spread(count: int, blocks: Sequence[str]) -> list[int]:
    """Numbers of `count` blocks, or of all where there are fewer, each in the middle of an equal share of a tower."""
    count = min(count, len(blocks))
    return [(2 * k + 1) * len(blocks) // (2 * count) for k in range(count)]


@METHODS.register("dense_aligner")
class DenseAlignerMethod(Method):
    """Dense Aligners, Text Adapters and the head are trained; both towers are frozen."""

    Config = DenseAlignerConfig
    requires = frozenset({"exchange.words"})
    in_weights = True
    colours = {"": "#8E0F6E"}

    def apply(self, model: SegmentationModel, config: DenseAlignerConfig) -> None:
        """Set the exchange, with the base weights' adapters where they hold any.

        Raises:
            UserError: a width that does not fit, or the base weights' adapters are those of other knobs.
        """
        model = cast("DETRIS", model)  # whose vision tower alone hears words
        exchange = DenseAligners(model, config)
        set_exchange(model, exchange, "what the base weights hold of DETRIS's adapters")
        exchange.attach(model)
        unfreeze(model, model.decoder_modules)
