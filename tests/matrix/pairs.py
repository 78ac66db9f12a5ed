"""Small random models, and every method that fits each of them: the table that the shared checks run through."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from featherseg.models import small_model
from featherseg.models.base import SegmentationModel
from featherseg.models.biomedclipseg import config as biomedclipseg_config
from featherseg.models.biomedclipseg.model import BiomedCLIPSeg
from featherseg.models.clipseg.model import CLIPSeg, small_config
from featherseg.models.cnn import config as cnn_config
from featherseg.models.cris import config as cris_config
from featherseg.models.cris.model import CRIS
from featherseg.models.detris import config as detris_config
from featherseg.models.detris.model import DETRIS, BertDETRIS
from featherseg.models.dino_clipseg import config as dino_clipseg_config
from featherseg.models.dino_clipseg.model import DinoCLIPSeg
from featherseg.models.etris import config as etris_config
from featherseg.models.etris.model import build_etris

PROMPTS = ["a red circle", "left lung", "", "one large polyp at the top"]
Pair = tuple[str, dict[str, Any]]


def _clipseg() -> SegmentationModel:
    return CLIPSeg(small_config(width=32, text_width=32, depth=4, image_size=32, taps=(0, 1, 2), reduce_dim=16), 32)


def _etris_vit() -> SegmentationModel:
    return build_etris("etris_vit", etris_config.small_config(32, 32, stages=(1, 2, 3), image_size=32), word_length=9)


def _etris_r50() -> SegmentationModel:
    return build_etris("etris_r50", etris_config.small_resnet_config(image_size=64), word_length=9)


def _detris(name: str) -> SegmentationModel:
    return DETRIS(name, detris_config.small_config(image_size=32), word_length=9)


def _detris_s() -> SegmentationModel:
    return BertDETRIS("detris_s", detris_config.small_config(image_size=32, bert=True), word_length=9)


def _dino_clipseg() -> SegmentationModel:
    return DinoCLIPSeg("dino_clipseg", dino_clipseg_config.small_config(
        width=32, text_width=32, depth=4, image_size=32, taps=(0, 1, 2), reduce_dim=16))


def _cris() -> SegmentationModel:
    return CRIS("cris", cris_config.small_config(), word_length=9)


def _biomedclipseg(name: str) -> SegmentationModel:
    return BiomedCLIPSeg(name, biomedclipseg_config.small_config(
        width=32, text_width=32, depth=4, image_size=32, taps=(0, 1, 2), reduce_dim=16))


SMALL: dict[str, Callable[[], SegmentationModel]] = {
    "clipseg": _clipseg, "etris_vit": _etris_vit, "etris_r50": _etris_r50, "cris": _cris,
    "detris_b": functools.partial(_detris, "detris_b"), "detris_s": _detris_s, "dino_clipseg": _dino_clipseg,
    **{name: functools.partial(_biomedclipseg, name) for name in ("biomedclipseg", "biomedclipseg_d")},
    **{name: functools.partial(small_model, name, 64) for name in ("san", *cnn_config.NAMES)}}

EVERYWHERE = [
    {"name": "zero_shot"}, {"name": "decoder"}, {"name": "full"}, {"name": "lora", "rank": 2},
    {"name": "lora", "rank": 2, "positions": "L", "head": False}, {"name": "houlsby", "dim": 4},
    {"name": "houlsby", "dim": 4, "positions": "L", "head": True}, {"name": "prompt"},
    {"name": "prompt", "tokens_vision": 0, "tokens_text": 2, "head": False},
]
UNTRAINED = EVERYWHERE[1:]  # where no weights hold a trained decoder
WITH_VISION_BLOCKS = [
    {"name": "lora", "rank": 2, "positions": "V"}, {"name": "lora", "rank": 2, "positions": "VL"},
    {"name": "houlsby", "dim": 4, "positions": "V"}, {"name": "houlsby", "dim": 4, "positions": "VL", "head": False},
    {"name": "prompt", "tokens_vision": 3, "tokens_text": 0},
]
DENSE, SHALLOW = ([{"name": f"vlsm_{kind}", "dim": 8, "positions": positions} for positions in ("V", "VL", "VLC")]
                  for kind in ("dense", "shallow"))
BIOMEDCLIPSEG = [*EVERYWHERE, *WITH_VISION_BLOCKS, *DENSE, SHALLOW[0]]  # BERT's width is not the condition's
BRIDGERS = [{"name": "bridger", "dim": 8, "heads": 2},
            {"name": "bridger", "dim": 8, "heads": 2, "stages": 1, "positional_embeddings": False},
            *({"name": "bridger", "dim": 8, "heads": 2, "direction": direction}
              for direction in ("text_to_vision", "vision_to_text"))]
DENSE_ALIGNERS = [{"name": "dense_aligner", "dim": 16, "text_dim": 16},
                  {"name": "dense_aligner", "dim": 32, "text_dim": 16, "blocks": 1}]
METHODS_OF = {"clipseg": [*EVERYWHERE, *WITH_VISION_BLOCKS, *DENSE, *SHALLOW],
              "biomedclipseg": BIOMEDCLIPSEG[1:],
              "biomedclipseg_d": BIOMEDCLIPSEG,
              "etris_vit": [*EVERYWHERE, *WITH_VISION_BLOCKS, *BRIDGERS],
              "etris_r50": [*EVERYWHERE, *BRIDGERS], "cris": EVERYWHERE,
              "detris_b": [*EVERYWHERE, *WITH_VISION_BLOCKS, *DENSE_ALIGNERS],
              "detris_s": [*UNTRAINED, *WITH_VISION_BLOCKS, *DENSE_ALIGNERS],
              "dino_clipseg": [*UNTRAINED, *WITH_VISION_BLOCKS, *DENSE, *SHALLOW],
              "san": [{"name": "decoder"}, {"name": "full"}],
              **{name: [{"name": "full"}] for name in cnn_config.NAMES}}
EVERY_METHOD = ("decoder", "full", "houlsby", "lora", "prompt", "zero_shot")
# every pair by name, so that a model's or a method's declaration cannot lose or gain one unnoticed
SUPPORTED = {(model, method) for models, methods in {
    ("clipseg", "biomedclipseg_d"): (*EVERY_METHOD, "vlsm_dense", "vlsm_shallow"),
    ("biomedclipseg",): (*EVERY_METHOD[:-1], "vlsm_dense", "vlsm_shallow"),
    ("cris",): EVERY_METHOD,
    ("etris_r50", "etris_r101", "etris_vit"): (*EVERY_METHOD, "bridger"),
    ("detris_b", "detris_l"): (*EVERY_METHOD, "dense_aligner"),
    ("detris_s",): (*EVERY_METHOD[:-1], "dense_aligner"),
    ("dino_clipseg",): (*EVERY_METHOD[:-1], "vlsm_dense", "vlsm_shallow"),
    ("san",): ("decoder", "full"),
    tuple(cnn_config.NAMES): ("full",)}.items() for model in models for method in methods}
PAIRS: list[Pair] = [(model, adapter) for model, cases in METHODS_OF.items() for adapter in cases]


def label(value: object) -> str:
    """A case's name in the list of tests."""
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _covering() -> list[Pair]:
    seen, chosen = set(), []
    for model, adapter in reversed(PAIRS):
        if not {model, label(adapter)} <= seen:
            chosen.append((model, adapter))
            seen |= {model, label(adapter)}
    return chosen


# every model and every configuration of a method in some pair
COVERING = _covering()


def small(model: str) -> SegmentationModel:
    """A small random model, in eval mode, always the same."""
    return copy.deepcopy(untouched(model))


@functools.cache
def untouched(model: str) -> SegmentationModel:
    """The same model for all, who leave it as it is."""
    torch.manual_seed(3)
    return SMALL[model]().eval()


def batch(model: SegmentationModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels (4, 3, S, S), tokens (4, L) and masks (4, 1, S, S) at the model's input size."""
    generator, size = torch.Generator().manual_seed(5), model.image_size
    pixels = torch.randn(4, 3, size, size, generator=generator)
    masks = (torch.rand(4, 1, size, size, generator=generator) > 0.5).float()
    return pixels, model.tokenize(PROMPTS), masks


def step(model: SegmentationModel, optimizer: torch.optim.Optimizer) -> None:
    """One training step on the batch."""
    pixels, tokens, masks = batch(model)
    optimizer.zero_grad()
    F.binary_cross_entropy_with_logits(model.to_input(model(pixels, tokens)), masks).backward()
    optimizer.step()
