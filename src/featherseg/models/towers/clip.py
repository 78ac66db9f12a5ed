"""CLIP's towers, walked in three stages: what ETRIS, CRIS and DETRIS put a head on.

Towers are open_clip's modules with OpenAI CLIP's names. After each stage the two towers may exchange (ETRIS's
Bridger); without an exchange they are encoded apart.
"""

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor, nn
from torch.nn import functional as F

from featherseg.data.transforms import Letterbox
from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures, TowerSpec
from featherseg.models.etris.config import RESNET_STRIDE, STAGES, Architecture, check_towers, sentence_reader
from featherseg.models.towers.tokenizer import CONTEXT
from featherseg.models.weights import check_keys

VOCABULARY = 49408
BACKBONE, VISUAL = "net.backbone", "net.backbone.visual"
TEXT_PARTS = ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")
POSITIONS = "backbone.visual.positional_embedding"
HEAD = ("neck.", "decoder.", "proj.")
NOT_IN_CLIP = "backbone.visual.attnpool.connect."
NOT_TENSORS_OF_THE_MODEL = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class ExchangeSpec:
    """What an exchange between the towers meets after each stage.

    Attributes:
        widths: channels of the three vision maps.
        text_width: width of the words.
        strides: that bring the maps to one grid; the last one enlarges its map.
        resnet: whether the vision tower is a ResNet, for which ETRIS builds its Bridger differently.
    """

    widths: tuple[int, int, int]
    text_width: int
    strides: tuple[int, int, int]
    resnet: bool


class AttentionPool(AttentionPool2d):
    """CLIP's attention pool as ETRIS and CRIS change it: every place is kept, and there is no class token.

    Positions are interpolated to the map's grid, and `connect`, which CLIP's weights lack, carries the map past the
    attention.
    """

    def __init__(self, grid: int, width: int, heads: int, outputs: int) -> None:
        super().__init__(grid, width, heads, outputs)
        self.grid = grid
        self.connect = nn.Sequential(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """A map (B, outputs, h, w) of a map (B, width, h, w)."""
        size = features.shape[2:]
        places = self.positional_embedding[1:].T.unflatten(1, (self.grid, self.grid)).unsqueeze(0)
        places = F.interpolate(places, size=size, mode="bicubic", align_corners=False)
        states = (features + places).flatten(2).transpose(1, 2)
        query, key, value = (self._by_head(layer(states)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        pooled = self.c_proj(attended).transpose(1, 2).unflatten(2, size)
        return (pooled + self.connect(features)).relu()

    def _by_head(self, states: Tensor) -> Tensor:
        """States (B, L, width) as (B, heads, L, width / heads)."""
        return states.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class CLIPTowers(SegmentationModel):
    """Features after three stages: maps of the vision tower, words and sentence of the text tower.

    Args:
        name: the model's name in recipes.
        architecture: see `etris_config`.
        image_size: side of the square input in pixels; None for the architecture's own.
        word_length: tokens that a sentence is cut or padded to; None for the architecture's own. An exchange sees the
            padding too, so that it changes the result.

    Attributes:
        left_out: modules of the head that are not those of the released weights.
        fill: colour of a picture's padding, 0 to 255 each.

    Raises:
        ValueError: a size that does not fit the towers.
    """

    net: nn.ModuleDict
    word_length: int
    left_out: tuple[str, ...] = ()
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)
    decoder_modules = ("net.neck", "net.decoder", "net.proj")
    unused: tuple[str, ...] = (f"{BACKBONE}.logit_scale",)

    exchange_spec: ExchangeSpec

    def __init__(self, name: str, architecture: Architecture, image_size: int | None = None,
                 word_length: int | None = None) -> None:
        super().__init__()
        check_towers(architecture, image_size, word_length)
        self.name, self.config = name, architecture
        self.reader = sentence_reader(architecture, word_length)
        self.image_size = image_size or architecture.image_size
        self.word_length = word_length or architecture.word_length
        self.sentence_dim = architecture.embed_dim
        red, green, blue = (round(255 * value) for value in self.mean)
        self.fill = red, green, blue
        self.resize = Letterbox(self.image_size, self.fill)
        depth = architecture.stages[-1]
        blocks = tuple(f"{BACKBONE}.transformer.resblocks.{k}" for k in range(depth))
        modules = tuple(f"{BACKBONE}.{part}" for part in TEXT_PARTS)
        self.text = TowerSpec(blocks, "attn", "mlp", architecture.text_width, (depth - 1,), modules,
                              before_mlp="ln_2")
        self.net = nn.ModuleDict({"backbone": self._build_backbone()})
        self.net["neck"], self.net["decoder"], self.net["proj"] = self._build_head()

    @property
    def backbone(self) -> CLIP:
        """The towers, open_clip's modules."""
        return self.net["backbone"]

    def architecture(self) -> dict[str, Any]:
        """What `config.json` beside the model's weights says, at this input size."""
        return self.config.model_copy(update={"image_size": self.image_size}).model_dump(mode="json")

    def encode(self, pixels: Tensor, tokens: Tensor) -> tuple[ImageFeatures, TextFeatures]:
        """Features of normalised pixels (B, 3, H, W) and token ids (B, L), the towers exchanging where they do."""
        if self.exchange is None:
            return super().encode(pixels, tokens)
        vision = self._vision_input(pixels)
        text = self._text_input(tokens)
        carry, maps = None, []
        for stage in range(STAGES):
            vision = self._vision_stage(stage, vision)
            text = self._text_stage(stage, text)
            seen, text, carry = self.exchange(stage, self._as_map(vision), text, carry)
            vision = self._with_map(vision, seen)
            maps.append(seen)
        return self._image_features(maps, vision), self._text_features(text, tokens)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Maps (B, C, h, w) after each stage, the last one projected (CLIP) or normalised (DINOv2).

        Raises:
            RuntimeError: the towers exchange, so that there are no features without a prompt.
        """
        self._check_apart()
        return self._walk_image(pixels)

    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """The projected end-of-text state (B, D), and the words (B, L, width) with their padding.

        Raises:
            RuntimeError: the towers exchange, so that there are no features without an image.
        """
        self._check_apart()
        return self._walk_text(tokens)

    def decode(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Logits (B, h, w) at a quarter of the input's resolution (patch 16, ResNets), or half of it (patch 8)."""
        image, text = self.image_neck(image), self.text_neck(text)
        features = self.net["neck"](image.taps, text.sentence)
        features = self.net["decoder"](features, text.taps[0], text.padding)
        return self.net["proj"](features, text.sentence)

    def base_tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a weights file under the names that they have in this model.

        Three layouts are known: the whole model (this package's, and the released checkpoints, which hold a Bridger
        too), and CLIP alone. A ViT's positions are interpolated to this model's grid, as in the released code.
        """
        if not any(name.startswith("backbone.") for name in state):
            state = {f"backbone.{name}": tensor for name, tensor in state.items()
                     if name not in NOT_TENSORS_OF_THE_MODEL}
        own = self.net.state_dict()
        if POSITIONS in state and POSITIONS in own:
            state = state | {POSITIONS: interpolate_positions(state[POSITIONS], own[POSITIONS].shape)}
        return {_full_name(name): tensor for name, tensor in state.items()}

    def load_base(self, state: dict[str, Tensor], source: str) -> None:
        """Load weights in one of the layouts of `base_tensors`; a Bridger's wait for the method `bridger`.

        CLIP alone leaves the head, and a ResNet's `connect`, as they were initialised. Tensors of the modules in
        `left_out` are ignored where they do not fit.

        Raises:
            UserError: tensors are missing, unexpected or misshapen; the message names them.
        """
        tensors = self.base_tensors(state)
        own = self.net.state_dict()
        replaced = tuple(f"{module}." for module in self.left_out)
        named = _below("net.", tensors)
        given = {name: tensor for name, tensor in named.items() if name in own or not name.startswith(replaced)}
        expected = {name: tensor for name, tensor in self._expected(own, named).items()
                    if name in given or not name.startswith(replaced)}
        check_keys(given, expected, source)
        self.net.load_state_dict(given, strict=False)
        self.untrained = tuple(f"net.{name}" for name in own if name not in given)
        self.exchange_weights = _below("exchange.", tensors)

    @staticmethod
    def _expected(own: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
        """The model's tensors that weights must hold: all of them, or those of CLIP where they hold no head."""
        if any(name.startswith(HEAD) for name in given):
            return own
        return {name: tensor for name, tensor in own.items()
                if name.startswith("backbone.") and not name.startswith(NOT_IN_CLIP)}

    def _walk_image(self, pixels: Tensor) -> ImageFeatures:
        vision = self._vision_input(pixels)
        maps = []
        for stage in range(STAGES):
            vision = self._vision_stage(stage, vision)
            maps.append(self._as_map(vision))
        return self._image_features(maps, vision)

    def _walk_text(self, tokens: Tensor) -> TextFeatures:
        text = self._text_input(tokens)
        for stage in range(STAGES):
            text = self._text_stage(stage, text)
        return self._text_features(text, tokens)

    def _check_apart(self) -> None:
        if self.joint:
            raise RuntimeError("the towers exchange on their way, so image and text are encoded together: call encode")

    def _build_clip(self, vision: dict[str, Any]) -> CLIP:
        config = self.config
        text = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": config.text_width,
                "heads": config.text_heads, "layers": config.stages[-1]}
        return CLIP(config.embed_dim, {"width": config.vision_width, "head_width": config.vision_head_width, **vision},
                    text, quick_gelu=True)

    def _text_input(self, tokens: Tensor) -> Tensor:
        states = self.backbone.token_embedding(tokens) + self.backbone.positional_embedding[: tokens.shape[1]]
        return self.text_prompt.insert(states)

    def _text_stage(self, stage: int, states: Tensor) -> Tensor:
        length = states.shape[1]
        causal = torch.full((length, length), float("-inf"), device=states.device, dtype=states.dtype).triu(1)
        return walk(self.backbone.transformer.resblocks, self.config.stages, stage, states, attn_mask=causal)

    def _text_features(self, states: Tensor, tokens: Tensor) -> TextFeatures:
        words = self.backbone.ln_final(self.text_prompt.remove(states))
        end_of_text = tokens.argmax(dim=-1)
        last = words[torch.arange(len(words), device=words.device), end_of_text]
        padding = torch.arange(tokens.shape[1], device=tokens.device) > end_of_text.unsqueeze(1)
        return TextFeatures(last @ self.backbone.text_projection, (words,), padding)

    def _image_features(self, maps: list[Tensor], states: Tensor) -> ImageFeatures:
        return ImageFeatures((*maps[:-1], self._vision_output(states)))

    @abstractmethod
    def _build_head(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """The neck, the decoder and the projector."""

    @abstractmethod
    def _build_backbone(self) -> CLIP:
        """The towers; sets `vision` and `exchange_spec` too."""

    @abstractmethod
    def _vision_input(self, pixels: Tensor) -> Tensor:
        """States before the first stage."""

    @abstractmethod
    def _vision_stage(self, stage: int, states: Tensor) -> Tensor:
        """States after a stage."""

    @abstractmethod
    def _as_map(self, states: Tensor) -> Tensor:
        """The map (B, C, h, w) in the states."""

    @abstractmethod
    def _with_map(self, states: Tensor, seen: Tensor) -> Tensor:
        """The states with another map in them."""

    @abstractmethod
    def _vision_output(self, states: Tensor) -> Tensor:
        """The last map (B, embed_dim, h, w)."""


class ResNetTowers(CLIPTowers):
    """CLIP's ResNets: the stages are layer2, layer3 and layer4."""

    def _build_backbone(self) -> CLIP:
        config, layers = self.config, self.config.resnet_layers or ()
        clip = self._build_clip({"layers": list(layers), "patch_size": None,
                                 "image_size": RESNET_STRIDE * config.pool_grid})
        width = 32 * config.vision_width
        clip.visual.attnpool = AttentionPool(config.pool_grid, width, clip.visual.attnpool.num_heads, config.embed_dim)
        clip.visual.init_parameters()
        blocks = tuple(f"{VISUAL}.layer{layer}.{k}"
                       for layer, depth in enumerate(layers, start=1) for k in range(depth))
        ends = tuple(itertools.accumulate(layers))
        taps = tuple(end - 1 for end in ends[1:])
        self.vision = TowerSpec(blocks, None, None, width, taps, (VISUAL,))
        self.exchange_spec = ExchangeSpec((width // 4, width // 2, width), config.text_width, (2, 1, 2), resnet=True)
        return clip

    def _vision_input(self, pixels: Tensor) -> Tensor:
        visual = self.backbone.visual
        return visual.layer1(visual.stem(pixels))

    def _vision_stage(self, stage: int, states: Tensor) -> Tensor:
        return self.backbone.visual.get_submodule(f"layer{stage + 2}")(states)

    def _as_map(self, states: Tensor) -> Tensor:
        return states

    def _with_map(self, states: Tensor, seen: Tensor) -> Tensor:
        return seen

    def _vision_output(self, states: Tensor) -> Tensor:
        return self.backbone.visual.attnpool(states)


class ViTTowers(CLIPTowers):
    """CLIP's ViTs: the stages end after the same blocks as the text tower's."""

    @property
    def prefix(self) -> int:
        """Tokens before those of the patches: the class token and learned ones."""
        return 1 + self.vision_prompt.count

    @property
    def patch_size(self) -> int:
        """Side of the patches in pixels."""
        if self.config.patch_size is None:
            raise ValueError("patch_size is missing, so the architecture is not that of a ViT")
        return self.config.patch_size

    def _build_backbone(self) -> CLIP:
        config = self.config
        width, depth = config.vision_width, config.stages[-1]
        blocks = tuple(f"{VISUAL}.transformer.resblocks.{k}" for k in range(depth))
        taps = tuple(end - 1 for end in config.stages)
        self.vision = TowerSpec(blocks, "attn", "mlp", width, taps, (VISUAL,))
        self.exchange_spec = ExchangeSpec((width,) * 3, config.text_width, (1, 1, 1), resnet=False)
        return self._build_clip({"layers": depth, "patch_size": self.patch_size, "image_size": self.image_size})

    def _vision_input(self, pixels: Tensor) -> Tensor:
        visual = self.backbone.visual
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        states = torch.cat([first, patches], dim=1)
        return visual.ln_pre(self.vision_prompt.insert(states + visual.positional_embedding))

    def _vision_stage(self, stage: int, states: Tensor) -> Tensor:
        return walk(self.backbone.visual.transformer.resblocks, self.config.stages, stage, states)

    def _as_map(self, states: Tensor) -> Tensor:
        side = self.image_size // self.patch_size
        return states[:, self.prefix :].transpose(1, 2).unflatten(2, (side, side))

    def _with_map(self, states: Tensor, seen: Tensor) -> Tensor:
        others = states[:, : self.prefix]
        return torch.cat([others, seen.flatten(2).transpose(1, 2).to(others.dtype)], dim=1)

    def _vision_output(self, states: Tensor) -> Tensor:
        visual = self.backbone.visual
        projected = visual.ln_post(states[:, self.prefix :]) @ visual.proj
        side = self.image_size // self.patch_size
        return projected.transpose(1, 2).unflatten(2, (side, side))


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with a prefix, under the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _full_name(name: str) -> str:
    module, _, rest = name.partition(".")
    return f"exchange.{rest}" if module in ("bridger", "exchange") else f"net.{name}"


def walk(blocks: nn.ModuleList, ends: Sequence[int], stage: int, states: Tensor, **options: Tensor) -> Tensor:
    """States after a stage's blocks; `ends` are the numbers of blocks after which the stages end."""
    first = ends[stage - 1] if stage else 0
    for block in blocks[first : ends[stage]]:
        states = block(states, **options)
    return states


def interpolate_positions(positions: Tensor, wanted: Sequence[int]) -> Tensor:
    """Positions (1 + g * g, C) of a square grid, the class token's first, brought to the shape `wanted` bicubically.

    Others, which do not lie on a square grid, come back as they are.
    """
    if positions.ndim != 2 or not positions.is_floating_point():
        return positions
    before = math.isqrt(max(len(positions) - 1, 0))
    after = math.isqrt(max(wanted[0] - 1, 0))
    if not before or before == after or before * before != len(positions) - 1:
        return positions
    grid = positions[1:].T.unflatten(1, (before, before)).unsqueeze(0)
    grid = F.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    return torch.cat([positions[:1], grid[0].flatten(1).T])
