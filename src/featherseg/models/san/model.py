"""SAN, the side adapter network (Xu et al., CVPR 2023, arXiv 2302.12242), for one prompt.

A light ViT beside a frozen CLIP reads the image and CLIP's early states, and proposes masks. For each proposal it
also biases the attention of CLIP's last blocks, so that a copy of CLIP's class token recognises what lies under the
mask. The paper labels places with the best of many classes; as in VLSM-Adapter's comparison, one prompt's map is the
sum of the proposals' logits, each weighted by how its embedding agrees with the prompt, and the loss is the
package's on that map, in place of a matching of proposals to masks.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from open_clip.model import CLIP
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from featherseg.config import ModelConfig
from featherseg.data.transforms import Squash
from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures, TowerSpec
from featherseg.models.san.config import CLIP_SHRINKS, READER, Architecture, Knobs, architecture_of, check_patches
from featherseg.models.towers.clip import NOT_TENSORS_OF_THE_MODEL, VOCABULARY, interpolate_positions
from featherseg.models.towers.tokenizer import CONTEXT, END_ID
from featherseg.models.weights import check_keys

VISUAL = "net.clip.visual"
DEVIATION = 0.02


class Perceptron(nn.Sequential):
    """Three linear layers with ReLU between them, on the last axis."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
                         nn.Linear(hidden, outputs))


class SideNetwork(nn.Module):
    """Proposals and attention biases from an image and CLIP's states.

    Args:
        config: the architecture.
        image_size: side of its square input in pixels.
        before: the block before which each of CLIP's maps is added.
    """

    def __init__(self, config: Architecture, image_size: int, before: Sequence[int]) -> None:
        super().__init__()
        width, self.side, self.queries = config.side_width, image_size // config.patch_size, config.queries
        self.before = tuple(before)
        self.heads = config.vision_width // config.vision_head_width
        self.patches = nn.Conv2d(3, width, config.patch_size, config.patch_size)
        self.query = nn.Parameter(torch.empty(config.queries, width))
        self.positions = nn.Parameter(torch.empty(config.queries + self.side**2, width))
        self.blocks = nn.ModuleList(Block(width, config.side_heads, qkv_bias=True) for _ in range(config.side_depth))
        self.fusions = nn.ModuleList(nn.Sequential(nn.LayerNorm(config.vision_width, eps=1e-6),
                                                   nn.Linear(config.vision_width, width)) for _ in config.fused)
        self.query_head = Perceptron(width, config.mask_width, config.mask_width)
        self.mask_head = Perceptron(width, config.mask_width, config.mask_width)
        self.bias_head = Perceptron(width, config.mask_width, config.mask_width * self.heads)
        self.bias_scale = nn.Linear(1, 1)
        self._initialise()

    def _initialise(self) -> None:
        """Blocks as timm's ViT draws them, fusions as detectron2's `c2_xavier_fill`, as in the released code."""
        for parameter in (self.query, self.positions):
            nn.init.normal_(parameter, std=DEVIATION)
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=DEVIATION)
                nn.init.zeros_(layer.bias)
        for layer in self.fusions.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)

    def forward(self, pixels: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Proposals' logits (B, Q, s, s) and biases (B, heads, Q, s, s), of pixels (B, 3, S, S) and CLIP's maps.

        The maps (B, C, h, w) are added to the states of the places, resized to their grid.
        """
        places = self.patches(pixels).flatten(2).transpose(1, 2)
        states = torch.cat([self.query.expand(len(places), -1, -1), places], dim=1) + self.positions
        for k, block in enumerate(self.blocks):
            if k:
                states = states + self.positions
            if k in self.before:
                fusion = self.before.index(k)
                states = self._fuse(fusion, states, maps[fusion])
            states = block(states)
        queries = self.query_head(states[:, : self.queries])
        places = states[:, self.queries :]
        keys = self.bias_head(places).unflatten(2, (self.heads, -1))
        proposals = torch.einsum("bqc,bpc->bqp", queries, self.mask_head(places))
        biases = self.bias_scale(torch.einsum("bqc,bphc->bhqp", queries, keys).unsqueeze(-1)).squeeze(-1)
        grid = (self.side, self.side)
        return proposals.unflatten(2, grid), biases.unflatten(3, grid)

    def _fuse(self, fusion: int, states: Tensor, seen: Tensor) -> Tensor:
        seen = self.fusions[fusion](seen.movedim(1, -1)).movedim(-1, 1)
        seen = F.interpolate(seen, size=(self.side, self.side), mode="bilinear", align_corners=False)
        added = seen.flatten(2).transpose(1, 2)
        return torch.cat([states[:, : self.queries], states[:, self.queries :] + added], dim=1)


class SAN(SegmentationModel):
    """SAN on OpenAI CLIP's ViT; what it finds in an image depends on no prompt.

    Its decoder is the side network, with CLIP's positional embeddings, which are trained along (the published 8.4 M).

    Args:
        config: see `Architecture`.
        image_size: side of the square input in pixels; None for the architecture's own.
        swapped: numbers of CLIP's blocks and the side network's are exchanged where CLIP's states are added, as in
            VLSM-Adapter's released configuration: the states after blocks 0, 1 and 2 are added before side blocks 0,
            3 and 6, and a fourth fusion is never reached.
        learns_to_recognise: whether gradients run through CLIP. Without, as in VLSM-Adapter's released code, neither
            the attention biases nor CLIP's positions are trained.

    Raises:
        ValueError: the image size is not a multiple of two patches.
    """

    name = "san"
    net: nn.ModuleDict
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)
    reader = READER
    pad_token = END_ID
    trains_head = True

    def __init__(self, config: Architecture, image_size: int | None = None, swapped: bool = False,
                 learns_to_recognise: bool = True) -> None:
        super().__init__()
        places = tuple(range(len(config.fused)))
        self.heard, before = (places, config.fused) if swapped else (config.fused, places)
        self.learns_to_recognise = learns_to_recognise
        self.config, self.image_size = config, image_size or config.image_size
        check_patches(config, self.image_size)
        self.resize, self.sentence_dim = Squash(self.image_size), config.embed_dim
        vision = {"layers": config.vision_depth, "width": config.vision_width,
                  "head_width": config.vision_head_width, "patch_size": config.patch_size,
                  "image_size": config.grid * config.patch_size}
        text = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": config.text_width,
                "heads": config.text_heads, "layers": config.text_depth}
        self.net = nn.ModuleDict({"clip": CLIP(config.embed_dim, vision, text, quick_gelu=True),
                                  "side": SideNetwork(config, self.image_size, before)})
        through_clip = ("net.side.bias_head", "net.side.bias_scale", f"{VISUAL}.positional_embedding")
        side = tuple(f"net.side.{name}" for name, _ in self.side.named_children()) + (
            "net.side.query", "net.side.positions")
        self.decoder_modules = ((*side, through_clip[-1]) if learns_to_recognise
                                else tuple(name for name in side if name not in through_clip))
        unreached = tuple(f"net.side.fusions.{k}" for k, block in enumerate(before) if block >= config.side_depth)
        self.unused = ("net.clip.logit_scale", *unreached)
        seeing = tuple(f"{VISUAL}.transformer.resblocks.{k}" for k in range(config.vision_depth))
        self.vision = TowerSpec(seeing, "attn", "mlp", config.vision_width, (config.vision_depth - 1,),
                                (VISUAL, "net.side"))
        reading = tuple(f"net.clip.transformer.resblocks.{k}" for k in range(config.text_depth))
        modules = tuple(f"net.clip.{part}" for part in (
            "transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection"))
        self.text = TowerSpec(reading, "attn", "mlp", config.text_width, (), modules)

    @property
    def clip(self) -> CLIP:
        """The towers, open_clip's modules."""
        return self.net["clip"]

    @property
    def side(self) -> SideNetwork:
        """The side network."""
        return cast(SideNetwork, self.net["side"])

    def architecture(self) -> dict[str, Any]:
        """What `config.json` beside the model's weights says, at this input size."""
        return self.config.model_copy(update={"image_size": self.image_size}).model_dump(mode="json")

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """The proposals' logits (B, Q, s, s) on a sixteenth of the input, and what CLIP makes of them (B, Q, D)."""
        through_clip = torch.is_grad_enabled() and self.learns_to_recognise
        with torch.set_grad_enabled(through_clip):
            states, maps = self._see(pixels)
        proposals, biases = self.side(pixels, maps)
        with torch.set_grad_enabled(through_clip):
            embeddings = self._recognise(states, biases)
        return ImageFeatures((proposals, embeddings))

    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """The projected end-of-text state (B, D)."""
        clip = self.clip
        states = clip.token_embedding(tokens) + clip.positional_embedding[: tokens.shape[1]]
        length = states.shape[1]
        causal = torch.full((length, length), float("-inf"), device=states.device, dtype=states.dtype).triu(1)
        for block in clip.transformer.resblocks:
            states = block(states, attn_mask=causal)
        last = clip.ln_final(states)[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)]
        return TextFeatures(last @ clip.text_projection, ())

    def decode(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Logits (B, s, s): the proposals, weighted by the mean product of their embeddings and the sentence."""
        proposals, embeddings = self.image_neck(image).taps
        weights = (embeddings * self.text_neck(text).sentence.unsqueeze(1)).mean(dim=-1)
        return (weights[:, :, None, None] * proposals).sum(dim=1)

    def base_tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a weights file under the names that they have in this model.

        Two layouts are known: the whole model, and OpenAI's CLIP alone.
        """
        if any(name.startswith("side.") for name in state):
            return super().base_tensors(state)
        return {f"net.clip.{name}": tensor for name, tensor in state.items() if name not in NOT_TENSORS_OF_THE_MODEL}

    def load_base(self, state: dict[str, Tensor], source: str) -> None:
        """Load weights in one of the layouts of `base_tensors`; CLIP alone leaves the side network as it is.

        Raises:
            UserError: tensors are missing, unexpected or misshapen; the message names them.
        """
        given = {name.removeprefix("net."): tensor for name, tensor in self.base_tensors(state).items()}
        expected = self.net.state_dict()
        if not any(name.startswith("side.") for name in given):
            expected = {name: tensor for name, tensor in expected.items() if name.startswith("clip.")}
        check_keys(given, expected, source)
        self.net.load_state_dict(given, strict=False)

    def _see(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """CLIP's states before it recognises, and the maps (B, C, h, w) that the side network hears."""
        first = self.config.fused[-1]
        states, maps = self._clip_input(pixels), []
        for k, block in enumerate(self.clip.visual.transformer.resblocks[: first + 1]):
            if k in self.heard:
                maps.append(self._as_map(states))
            if k < first:
                states = block(states)
        return states, maps

    def _clip_input(self, pixels: Tensor) -> Tensor:
        visual = self.clip.visual
        small = F.interpolate(pixels, scale_factor=1 / CLIP_SHRINKS, mode="bilinear", align_corners=False)
        patches = visual.conv1(small).flatten(2).transpose(1, 2)
        states = torch.cat([visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1), patches], dim=1)
        return visual.ln_pre(states + interpolate_positions(visual.positional_embedding, states.shape[1:]))

    def _as_map(self, states: Tensor) -> Tensor:
        side = self.image_size // CLIP_SHRINKS // self.config.patch_size
        return states[:, 1:].transpose(1, 2).unflatten(2, (side, side))

    def _recognise(self, states: Tensor, biases: Tensor) -> Tensor:
        """Normalised embeddings (B, Q, D) of the places that each proposal looks at.

        A copy of the class token for each proposal walks CLIP's last blocks. It sees itself and, with its biases,
        the places, which see no copy.
        """
        visual, queries = self.clip.visual, self.config.queries
        side = self.image_size // CLIP_SHRINKS // self.config.patch_size
        biases = F.adaptive_max_pool2d(biases.flatten(1, 2), side).flatten(2)
        length = queries + states.shape[1]
        mask = biases.new_zeros(length, length)
        mask[:, :queries] = float("-inf")
        mask[:queries, queries] = float("-inf")
        mask.fill_diagonal_(0)
        mask = mask.expand(len(biases), self.side.heads, -1, -1).clone()
        mask[:, :, :queries, queries + 1 :] = biases.unflatten(1, (self.side.heads, queries))
        states = torch.cat([states[:, :1].expand(-1, queries, -1), states], dim=1)
        for block in visual.transformer.resblocks[self.config.fused[-1] :]:
            states = block(states, attn_mask=mask.flatten(0, 1))
        return F.normalize(visual.ln_post(states[:, :queries]) @ visual.proj, dim=-1)


def build(config: ModelConfig, knobs: Knobs) -> SAN:
    """SAN of the architecture that its weights name; errors are those of the class."""
    return SAN(architecture_of(config, knobs), knobs.image_size, swapped=knobs.side_fusion == "published_swapped",
               learns_to_recognise=knobs.recognition == "trained")
