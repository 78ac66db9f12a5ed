"""The seam between towers, methods and everything that trains or scores.

A model encodes an image and a prompt into features, and decodes features into logits. No method ever
rewrites a tower's forward: it hooks onto the blocks that `TowerSpec` names, or takes one of the two necks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from featherseg.core.errors import UserError
from featherseg.data.transforms import Kernel, Resize
from featherseg.models.knobs import Upsampling, WayBack
from featherseg.models.readings import PromptReader, Reading
from featherseg.models.towers.padding import padded
from featherseg.models.weights import check_keys

if TYPE_CHECKING:
    import numpy as np

Tower = Literal["vision", "text"]


@dataclass(frozen=True)
class TowerSpec:
    """Where a tower's blocks are, so that a method needs no `if model ==`.

    Attributes:
        blocks: dotted names of the transformer blocks that reach the mask, first to last.
        attn: name of the attention module inside a block; None where blocks have none (a ResNet).
        mlp: name of the MLP inside a block; None where blocks have none.
        before_mlp: name of the module that is given the states that the MLP adds to; None where a method reads the
            MLP's own input.
        dim: width of the residual stream, of the last block where it varies.
        taps: indices of the blocks after which the features are read.
        modules: dotted names of the modules and parameters that compute the tower's features.
        projections: names inside a block of the attention's projections that LoRA tunes, by what they are called
            elsewhere (`q_proj`, `k_proj`, `v_proj`, `out_proj`, or others where one matrix holds several); empty
            where they are the attention module itself or its layers of those names.
    """

    blocks: tuple[str, ...]
    attn: str | None
    mlp: str | None
    dim: int
    taps: tuple[int, ...]
    modules: tuple[str, ...]
    projections: Mapping[str, str] = field(default_factory=dict)
    before_mlp: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the attention module and the MLP inside a block, as far as blocks have them."""
        return tuple(part for part in (self.attn, self.mlp) if part)


@dataclass(frozen=True)
class ImageFeatures:
    """States of the vision tower after its taps, each (B, tokens, dim), class token first, or a map (B, C, h, w)."""

    taps: tuple[Tensor, ...]

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The features with `function` applied to every tensor."""
        return type(self)(tuple(function(tap) for tap in self.taps))

    def index(self, rows: Tensor) -> Self:
        """Features of the given rows of the batch, in their order and as often as named."""
        return self.map(lambda tensor: tensor[rows])

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """One batch out of several."""
        return cls(_joined_taps(parts))


@dataclass(frozen=True)
class TextFeatures:
    """What the decoder is told of a prompt.

    Attributes:
        sentence: the prompt's embedding (B, D).
        taps: states at the tap depths: of the end-of-text token, each (B, dim), or of all tokens, each (B, L, dim).
        padding: (B, L), True at tokens that only fill up the length; None where the decoder sees no single tokens.
    """

    sentence: Tensor
    taps: tuple[Tensor, ...]
    padding: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The features with `function` applied to every tensor."""
        padding = None if self.padding is None else function(self.padding)
        return type(self)(function(self.sentence), tuple(function(tap) for tap in self.taps), padding)

    def index(self, rows: Tensor) -> Self:
        """Features of the given rows of the batch, in their order and as often as named."""
        return self.map(lambda tensor: tensor[rows])

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """One batch out of several."""
        sentence = torch.cat([part.sentence for part in parts])
        paddings = [part.padding for part in parts if part.padding is not None]
        padding = torch.cat(paddings) if paddings else None
        return cls(sentence, _joined_taps(parts), padding)


def _joined_taps(parts: Sequence[ImageFeatures] | Sequence[TextFeatures]) -> tuple[Tensor, ...]:
    """The taps of several batches as those of one."""
    by_tap = zip(*(part.taps for part in parts), strict=True)
    return tuple(map(torch.cat, by_tap))


class LearnedTokens(nn.Module):
    """Tokens that a tower walks beside its own, (B, L, width): put in after the first one, taken out of what is read.

    They are put in behind the positional embeddings, so that every other token keeps its position; the first token
    is the class or start token. Without any (`count` 0) states pass unchanged and the module has no parameter.
    """

    def __init__(self, count: int = 0, width: int = 0) -> None:
        super().__init__()
        self.count = count
        if count:
            self.tokens = nn.Parameter(0.02 * torch.randn(count, width))

    def insert(self, states: Tensor) -> Tensor:
        """States (B, L + count, width) with the learned tokens at places 1 to count."""
        if not self.count:
            return states
        tokens = self.tokens.to(states.dtype).expand(len(states), -1, -1)
        return torch.cat([states[:, :1], tokens, states[:, 1:]], dim=1)

    def remove(self, states: Tensor) -> Tensor:
        """States (B, L, width) without those of the learned tokens."""
        if not self.count:
            return states
        return torch.cat([states[:, :1], states[:, 1 + self.count :]], dim=1)


class SegmentationModel(nn.Module, ABC):
    """A text-prompted segmentation model: two towers and a decoder.

    Attributes:
        name: the model's name in recipes.
        net: the module that holds the base weights.
        image_size: side of the square input in pixels.
        resize: how a picture gets to that square, and the way back.
        reader: how it reads prompts.
        word_length: tokens that every prompt is padded to; None pads to the longest of a batch.
        pad_token: the token that fills up prompts.
        vocabulary: the word pieces of a tokenizer that comes with the weights; None for CLIP's.
        mean, std: per-channel normalisation of pixels in 0..1.
        vision, text: where the towers' blocks are.
        sentence_dim: width D of the condition.
        decoder_modules: dotted names of the decoder.
        unused: dotted names of parameters or modules that never reach the mask.
        image_neck, text_neck: what features pass through on their way into the decoder, the identity
            unless a method takes them (shallow and conditional adapters).
        vision_prompt, text_prompt: learned tokens at the towers' input, none unless a method sets them.
        masks_padding: whether the decoder is kept from tokens that only fill up the length.
        trains_head: whether the decoder comes untrained with the public weights, so that a method trains it along.
        exchange: what the towers tell each other on their way, nothing unless a method sets it. The Bridger is a
            module with forward(stage, vision, text, carry) -> (vision, text, carry), called after each of the three
            stages; vision is (B, C, h, w), text (B, L, C), and carry what its previous call returned, None at first.
            DETRIS's adapters are a module with hearing(words), a context in which the vision tower runs.
        exchange_weights: tensors of an exchange that came with the base weights, for the method that sets one.
        frozen_batchnorm_moves: whether frozen BatchNorm layers go on adapting their statistics in training, as in
            released code, which freezes weights only.
        upsampling: the way from the head's grid to the input's, as `ModelConfig` says.
        way_back: the way from the input's grid to a picture's own size, likewise.
        untrained: dotted names of what the base weights do not hold, so that it is random until it is trained.
    """

    name: str
    net: nn.Module
    image_size: int
    resize: Resize
    reader: PromptReader
    word_length: int | None = None
    pad_token: int = 0
    vocabulary: Sequence[str] | None = None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    vision: TowerSpec
    text: TowerSpec
    sentence_dim: int
    decoder_modules: tuple[str, ...]
    unused: tuple[str, ...]
    masks_padding: bool = True
    trains_head: bool = False
    frozen_batchnorm_moves: bool = False
    upsampling: Upsampling = "bilinear"
    way_back: WayBack = "bilinear"
    untrained: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.image_neck: nn.Module = nn.Identity()
        self.text_neck: nn.Module = nn.Identity()
        self.vision_prompt, self.text_prompt = LearnedTokens(), LearnedTokens()
        self.exchange: nn.Module | None = None
        self.exchange_weights: dict[str, Tensor] = {}

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """What `config.json` beside this model's weights says."""

    @property
    def joint(self) -> bool:
        """Whether an exchange is set: then only `encode` is defined, and no features are shared between pairs."""
        return self.exchange is not None

    @property
    def reads_text(self) -> bool:
        """Whether the prompt reaches the mask."""
        return self.reader.reads_text

    def token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt in full, start and end included; none where the model reads no text."""
        return self.reader.token_ids(prompts)

    @property
    def most_tokens(self) -> int:
        """Tokens after which a prompt is cut, its end token among them."""
        return self.reader.most_tokens

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, L) of prompts that are cut after `most_tokens`; L is the model's word length, or the longest
        of the batch where it has none."""
        return padded(self.reader.kept_ids(prompts), self.pad_token, self.word_length)

    def read(self, prompts: Sequence[str]) -> list[Reading]:
        """What the model reads of each prompt; where it reads none, prompts are compared as text."""
        return self.reader.read(prompts)

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Features of normalised pixels (B, 3, H, W)."""

    @abstractmethod
    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """Features of token ids (B, L)."""

    def encode(self, pixels: Tensor, tokens: Tensor) -> tuple[ImageFeatures, TextFeatures]:
        """Features of normalised pixels (B, 3, H, W) and, row by row, of token ids (B, L)."""
        return self.encode_image(pixels), self.encode_text(tokens)

    @abstractmethod
    def decode(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Logits (B, h, w) on the head's own grid, of text (B) and image (B, or 1 for all); necks are applied first."""

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, h, w) of normalised pixels (B, 3, H, W) prompted with tokens (B, L)."""
        return self.decode(*self.encode(pixels, tokens))

    def train(self, mode: bool = True) -> Self:
        """Training or eval mode; a BatchNorm whose parameters are frozen stays in eval mode, unless it may move."""
        super().train(mode)
        if not self.frozen_batchnorm_moves:
            for layer in _frozen_batchnorms(self).values():
                layer.eval()
        return self

    def base_tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a weights file under the names that they have in this model."""
        return {f"net.{name}": tensor for name, tensor in state.items()}

    def load_base(self, state: dict[str, Tensor], source: str) -> None:
        """Put the tensors of a weights file, called `source` in errors, into the model.

        Raises:
            UserError: tensors are missing, unexpected or misshapen; the message names them.
        """
        check_keys(state, self.net.state_dict(), source)
        self.net.load_state_dict(state)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W), float, of uint8 pixels (B, H, W, 3)."""
        mean, std = _by_channel(self.mean, pixels.device), _by_channel(self.std, pixels.device)
        channels_first = pixels.permute(0, 3, 1, 2).float()
        return (channels_first / 255 - mean) / std

    def to_input(self, logits: Tensor) -> Tensor:
        """Logits (B, h, w) of the head's grid brought to the input's, (B, 1, H, W).

        Released code interpolates probabilities; splines may leave [0, 1], so they are cut to where logits are finite.
        """
        logits = logits.unsqueeze(1)
        if logits.shape[-1] == self.image_size:
            return logits
        if self.upsampling == "published_bicubic":
            return self.at_input(logits.float().sigmoid(), "bicubic").logit(eps=1e-6)
        return self.at_input(logits, self.upsampling)

    def at_input(self, values: Tensor, mode: str) -> Tensor:
        """Values (B, 1, h, w) at the input's size: `bicubic` with the corner pixels aligned, `bilinear` without."""
        size = (self.image_size, self.image_size)
        return F.interpolate(values, size=size, mode=mode, align_corners=mode == "bicubic")

    def original_resolution(self, logits: Tensor, sizes: Sequence[tuple[int, int]]) -> Iterator["np.ndarray"]:
        """Probability maps, float32 (H, W), of logits (B, h, w) of the head's grid, at each image's (H, W).

        Logits are interpolated, then turned into probabilities; released code does it the other way round.

        Raises:
            UserError: a logit is NaN or infinite; the maps of every command pass through here.
        """
        if not torch.isfinite(logits).all():
            raise UserError(f"the model {self.name} gives values that are no numbers (NaN or infinite), so its weights "
                            "are damaged or its training diverged; train the run again, with a lower train.lr if it "
                            "diverged.")
        if self.way_back == "bilinear":
            for plane, size in zip(self.to_input(logits).float(), sizes, strict=True):
                at_original = self.resize.inverse(plane[None], *size)[0, 0]
                yield at_original.sigmoid().cpu().numpy()
            return
        kernel: Kernel = "nearest" if self.way_back == "published_nearest" else "bicubic"
        for plane, size in zip(self._input_probabilities(logits), sizes, strict=True):
            at_original = self.resize.inverse(plane[None], *size, kernel)[0, 0]
            yield at_original.clamp(0, 1).cpu().numpy()  # splines may leave [0, 1]

    def _input_probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (B, 1, H, W) at the input's size, beyond [0, 1] where released code's are."""
        if self.upsampling == "published_bicubic" and logits.shape[-1] != self.image_size:
            return self.at_input(logits.unsqueeze(1).float().sigmoid(), "bicubic")
        return self.to_input(logits).float().sigmoid()

    def tower_is_constant(self, tower: Tower) -> bool:
        """Whether nothing that training changes lies before this tower's taps, so that its features may be computed
        once: no parameter, no statistics, no other tower.
        """
        modules = self.vision.modules if tower == "vision" else self.text.modules
        parameters = parameters_of(self, (*modules, f"{tower}_prompt"))
        trained = any(parameter.requires_grad for parameter in parameters.values())
        normalised = any(within(name, modules) for name in _frozen_batchnorms(self))
        moving = self.frozen_batchnorm_moves and normalised
        return not (self.joint or trained or moving)


def parameters_of(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Parameters, by full name, that are one of `names` or lie in a module of that name."""
    prefixes = tuple(names)
    return {name: p for name, p in model.named_parameters() if within(name, prefixes)}


def within(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted name is one of `prefixes` or lies in a module of that name."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _by_channel(values: Sequence[float], device: torch.device) -> Tensor:
    """One value a channel, (1, C, 1, 1); filled on the device, since the host would wait for a copy of its own."""
    return torch.stack([torch.full((1, 1), value, device=device) for value in values]).unsqueeze(0)


def _frozen_batchnorms(model: nn.Module) -> dict[str, nn.Module]:
    """BatchNorm layers, by name, without a trainable parameter."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    return {name: layer for name, layer in layers.items() if not _is_trainable(layer)}


def _is_trainable(layer: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters())
