"""DETRIS (Huang et al., AAAI 2025, arXiv 2501.08580): DINOv2's vision tower beside CLIP's text tower, ETRIS's head.

DINOv2 with registers (Darcet et al., ICLR 2024, arXiv 2309.16588) is timm's ViT and stands where CLIP's vision tower
does.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import torch
from open_clip.model import CLIP
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from featherseg.config import ModelConfig
from featherseg.models.base import ImageFeatures, TextFeatures, TowerSpec
from featherseg.models.detris.config import Architecture, Knobs, architecture_of
from featherseg.models.etris.config import HeadPart
from featherseg.models.etris.model import ETRIS, with_ways
from featherseg.models.towers.bert import (
    ATTENTION,
    BEFORE_MLP,
    MLP,
    PROJECTIONS,
    build_bert,
    mean_of_words,
    walk_bert,
)
from featherseg.models.towers.clip import BACKBONE, VISUAL, ExchangeSpec, ViTTowers, walk
from featherseg.models.towers.dinov2 import MEAN, STD, build_dinov2, on_grid
from featherseg.models.towers.word_pieces import SPELLING, vocabulary_of, word_piece_reader

PLACES = "backbone.visual.pos_embed"
CLASS, REGISTERS = "backbone.visual.cls_token", "backbone.visual.reg_token"
META_REGISTERS, MASKED_PATCH = "backbone.visual.register_tokens", "backbone.visual.mask_token"
RELEASED = {"dinov2": ("backbone.visual", "exchange.vision"), "txt_backbone": ("backbone", "exchange.text")}


class Hearing(Protocol):
    """An exchange by which the vision tower hears the words while it runs: DETRIS's adapters."""

    def hearing(self, words: Tensor) -> AbstractContextManager[None]:
        """A context in which the vision tower hears these words (B, L, text width)."""


class DINOv2Towers(ViTTowers):
    """DINOv2 and CLIP's text tower; a map is read after each of three vision blocks, the last one normalised.

    An exchange is told the words before the first vision block: its `hearing(words)` is a context in which the vision
    tower runs.
    """

    config: Architecture

    def encode(self, pixels: Tensor, tokens: Tensor) -> tuple[ImageFeatures, TextFeatures]:
        """Features of normalised pixels (B, 3, H, W) and token ids (B, L), vision hearing the words where it does."""
        if self.exchange is None:
            return self.encode_image(pixels), self.encode_text(tokens)
        text = self._walk_text(tokens)
        with cast(Hearing, self.exchange).hearing(text.taps[0]):
            return self._walk_image(pixels), text

    @property
    def prefix(self) -> int:
        """Tokens before those of the patches: class, registers, and learned ones."""
        return super().prefix + self.config.registers

    def _build_backbone(self) -> CLIP:
        config = self.config
        width, depth = config.vision_width, config.vision_stages[-1]
        blocks = tuple(f"{VISUAL}.blocks.{k}" for k in range(depth))
        taps = tuple(end - 1 for end in config.vision_stages)
        projections = {"qkv": "attn.qkv", "out": "attn.proj"}
        self.vision = TowerSpec(blocks, "attn", "mlp", width, taps, (VISUAL,), projections)
        self.exchange_spec = ExchangeSpec((width,) * 3, config.text_width, (1, 1, 1), resnet=False)
        clip = self._build_clip({"layers": 1, "patch_size": config.patch_size, "image_size": config.patch_size})
        clip.visual = VisionTransformer(
            img_size=self.image_size, patch_size=self.patch_size, embed_dim=width, depth=depth,
            num_heads=width // config.vision_head_width, num_classes=0, init_values=1.0,
            reg_tokens=config.registers, no_embed_class=True)
        return clip

    def _vision_input(self, pixels: Tensor) -> Tensor:
        visual = self.backbone.visual
        return self.vision_prompt.insert(visual._pos_embed(visual.patch_embed(pixels)))

    def _vision_stage(self, stage: int, states: Tensor) -> Tensor:
        return walk(self.backbone.visual.blocks, self.config.vision_stages, stage, states)

    def _vision_output(self, states: Tensor) -> Tensor:
        return self._as_map(self.backbone.visual.norm(states))


class DETRIS(ETRIS, DINOv2Towers):
    """ETRIS's head on DINOv2's maps; arguments and errors are those of `ETRIS`."""

    sums_neck = True

    def base_tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a weights file under the names that they have in this model.

        Two layouts are known: this package's, with a head or without one, and the released checkpoints, whose vision
        tower has Meta's names. Positions are interpolated to this model's grid as in the released code.
        """
        state = self._fitted({_own_name(name): tensor for name, tensor in state.items()})
        return super().base_tensors(state)

    def _fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under timm's names, positions on this model's grid."""
        state = _with_timms_names(state)
        if PLACES not in state:
            return state
        side = self.image_size // self.patch_size
        return state | {PLACES: interpolate_places(state[PLACES], side)}

    def _last_width(self) -> int:
        return self.config.vision_width


class BertDETRIS(DETRIS):
    """DETRIS whose text tower is a BERT and whose vision tower has no registers: MiniLM and DINOv2 ViT-S/14.

    Words attend to all words, not to those before them, and not to padding, which the released towers' words do. The
    sentence is the mean of its words, and nothing projects it.

    Args:
        vocabulary: the text tower's word pieces; None spells words out in letters. The others are those of `ETRIS`.
    """

    vocabulary: Sequence[str]
    mean, std = MEAN, STD
    unused = ()
    sentence_parts = ()

    def __init__(self, name: str, architecture: Architecture, image_size: int | None = None,
                 word_length: int | None = None, head_parts: Sequence[HeadPart] | None = None,
                 vocabulary: Sequence[str] | None = None) -> None:
        self.vocabulary = tuple(vocabulary or SPELLING)
        super().__init__(name, architecture, image_size, word_length, head_parts)
        self.reader = word_piece_reader(self.vocabulary, self.word_length)

    def _build_backbone(self) -> Any:
        config, text = self.config, f"{BACKBONE}.text"
        width, depth, end = config.vision_width, config.vision_stages[-1], config.stages[-1]
        blocks = tuple(f"{VISUAL}.blocks.{k}" for k in range(depth))
        taps = tuple(end - 1 for end in config.vision_stages)
        self.vision = TowerSpec(blocks, "attn", "mlp", width, taps, (VISUAL,), {"qkv": "attn.qkv", "out": "attn.proj"})
        self.text = TowerSpec(tuple(f"{text}.encoder.layer.{k}" for k in range(end)), ATTENTION, MLP,
                              config.text_width, (end - 1,), (text,), PROJECTIONS, BEFORE_MLP)
        self.exchange_spec = ExchangeSpec((width,) * 3, config.text_width, (1, 1, 1), resnet=False)
        heads = width // config.vision_head_width
        return nn.ModuleDict({
            "visual": build_dinov2(width, depth, heads, self.patch_size, self.image_size),
            "text": build_bert(cast(int, config.vocabulary), config.text_width, end, config.text_heads,
                               config.positions)})

    def _walk_text(self, tokens: Tensor) -> TextFeatures:
        words = walk_bert(self.backbone.text, tokens, self.text_prompt)[-1]
        return TextFeatures(mean_of_words(words, tokens), (words,), tokens == 0)

    def _fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        prefix = f"{VISUAL.removeprefix('net.')}."
        vision = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        fitted = on_grid(vision, self.image_size // self.patch_size)
        return state | {f"{prefix}{name}": tensor for name, tensor in fitted.items()}


def interpolate_places(positions: Tensor, side: int) -> Tensor:
    """Positions (1, g * g, C) of a square grid on a grid of `side` places a side, (1, side * side, C).

    Bicubic, by the ratio (side + 0.1) / g, which DINOv2's code used before it had registers and which the released
    code keeps. Others, which do not lie on a square grid, come back as they are.
    """
    if positions.ndim != 3 or not positions.is_floating_point():
        return positions
    before = math.isqrt(positions.shape[1])
    if not before or before == side or before * before != positions.shape[1]:
        return positions
    grid = positions.transpose(1, 2).unflatten(2, (before, before))
    scale = (side + 0.1) / before
    return F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic").flatten(2).transpose(1, 2)


def _own_name(name: str) -> str:
    """The name of a tensor of a released checkpoint in this package's layout; another one as it is."""
    tower, _, rest = name.partition(".")
    if tower not in RELEASED:
        return name
    own, exchange = RELEASED[tower]
    block, is_adapter, inside = rest.partition(".adapter.")
    return f"{exchange}.{block.rpartition('.')[2]}.{inside}" if is_adapter else f"{own}.{rest}"


def _with_timms_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's own tensors as timm holds them: the class token's position is part of the class token."""
    if META_REGISTERS not in state:
        return state
    state = {name: tensor for name, tensor in state.items() if name != MASKED_PATCH}
    state[REGISTERS] = state.pop(META_REGISTERS)
    own, positions = (state.get(name, torch.empty(0)) for name in (CLASS, PLACES))
    if own.ndim == positions.ndim == 3 and own.shape[1:] == (1, positions.shape[2]):
        state[CLASS], state[PLACES] = own + positions[:, :1], positions[:, 1:]
    return state


def build(config: ModelConfig, knobs: Knobs) -> DETRIS:
    """DETRIS of the architecture that its weights name.

    Raises:
        ValueError: a size that does not fit the towers.
    """
    architecture = architecture_of(config, knobs)
    sizes = knobs.image_size, knobs.word_length, knobs.head_parts
    if architecture.vocabulary is None:
        return with_ways(DETRIS(config.name, architecture, *sizes), knobs)
    vocabulary = vocabulary_of(config.weights, architecture.vocabulary)
    return with_ways(BertDETRIS(config.name, architecture, *sizes, vocabulary), knobs)
