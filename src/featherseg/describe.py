"""A recipe's full-size model in numbers: parameters by group and multiply-adds, without allocating weights."""

from collections.abc import Iterable
from typing import Any, TypedDict

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from featherseg import adapters
from featherseg.config import ModelConfig
from featherseg.models import MODELS
from featherseg.models.base import SegmentationModel, parameters_of
from featherseg.plan import knobs_of, read_recipe

GROUPS = ("vision", "text", "positions", "decoder", "adapter", "unused")
METHODS_OWN = ("image_neck.", "text_neck.", "vision_prompt.", "text_prompt.", "exchange.")
SHARES = {"bridger": "Bridger", "dense_aligner": "DETRIS's adapters", "with_positions": "with positional embeddings"}
NOT_IN_CLIP = ".attnpool.connect."


class Count(TypedDict):
    """Numbers of parameters."""

    total: int
    trainable: int


class Description(Count):
    """A model in numbers.

    Attributes:
        recipe, title: of its recipe.
        image_size: side of its square input in pixels.
        groups: the parameters of each of `GROUPS`.
        decoder_parts: those of each module of a decoder of several.
        backbone_share: see the function; None without an exchange.
        prompt_tokens: the model's word length, or its longest prompt, or 0 where it reads no prompt.
        multiply_adds: for one image with one prompt of so many tokens.
    """

    recipe: str
    title: str
    image_size: int
    groups: dict[str, Count]
    decoder_parts: dict[str, Count]
    backbone_share: dict[str, float] | None
    prompt_tokens: int
    multiply_adds: int


class Described(Description):
    """A model in numbers, beside those that its paper prints and its released code builds."""

    published: str | None
    released_code: dict[str, int]


def describe(recipe: str, model: ModelConfig | None = None, adapter: dict[str, Any] | None = None) -> Description:
    """Counts of a recipe's model, at full size unless `model` names other weights.

    Args:
        recipe: the recipe's name.
        model: model and weights to describe instead of the full-size one.
        adapter: the method's resolved knobs instead of the recipe's own.

    Returns:
        The counts; of the groups, `positions` are the positional embeddings of ETRIS's towers, which it trains, and
        `unused` what never reaches the mask.
    """
    settings = read_recipe(recipe)
    network = without_weights(recipe, model, adapter)
    method = (adapter or settings.adapter)["name"]
    groups = parameter_groups(network)
    total = sum(group["total"] for group in groups.values())
    trainable = sum(group["trainable"] for group in groups.values())
    return {"recipe": recipe, "title": settings.title, "image_size": network.image_size, "groups": groups,
            "total": total, "trainable": trainable,
            "decoder_parts": decoder_parts(network), "backbone_share": backbone_share(network, method),
            "prompt_tokens": _prompt_tokens(network), "multiply_adds": multiply_adds(network)}


def without_weights(recipe: str, model: ModelConfig | None = None,
                    adapter: dict[str, Any] | None = None) -> SegmentationModel:
    """A recipe's model on the meta device, with its method applied; the arguments are those of `describe`."""
    settings = read_recipe(recipe)
    config = model or ModelConfig(name=settings.model, **knobs_of(settings))
    with torch.device("meta"):
        network = MODELS[config.name](config)
        return adapters.apply(network, adapter or settings.adapter)


def parameter_groups(model: SegmentationModel) -> dict[str, Count]:
    """Total and trainable parameters of each of `GROUPS`; what a method added is `adapter`."""
    unused = parameters_of(model, model.unused)
    vision = parameters_of(model, model.vision.modules)
    text = parameters_of(model, model.text.modules)
    decoder = parameters_of(model, model.decoder_modules)
    counts: dict[str, Count] = {group: {"total": 0, "trainable": 0} for group in GROUPS}
    for name, parameter in model.named_parameters():
        if ".adapter." in name or ".lora_" in name or name.startswith(METHODS_OWN):
            group = "adapter"
        elif name in unused:
            group = "unused"
        elif "positional_embedding" in name:
            group = "positions"
        else:
            group = "decoder" if name in decoder else "vision" if name in vision else "text"
            assert group != "text" or name in text, name
        counts[group]["total"] += parameter.numel()
        counts[group]["trainable"] += parameter.numel() * parameter.requires_grad
    return counts


def decoder_parts(model: SegmentationModel) -> dict[str, Count]:
    """Total and trainable parameters of each module of a decoder of several; empty where it is one module."""
    if len(model.decoder_modules) < 2:
        return {}
    return {name.rpartition(".")[2]: _counts(parameters_of(model, [name]).values()) for name in model.decoder_modules}


def _counts(parameters: Iterable[nn.Parameter]) -> Count:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
    total = sum(size for size, _ in sizes)
    trainable = sum(size for size, trained in sizes if trained)
    return {"total": total, "trainable": trainable}


def backbone_share(model: SegmentationModel, method: str) -> dict[str, float] | None:
    """What an exchange adds to the towers' own parameters, alone (under the name of the method that set it) and, where
    positions are trained, `with_positions`; None without an exchange.

    The branch of a ResNet's attention pool that CLIP's weights lack is not counted as CLIP's.
    """
    if not model.joint:
        return None
    groups = parameter_groups(model)
    own = sum(parameter.numel() for name, parameter in model.named_parameters()
              if name.startswith("net.backbone.") and NOT_IN_CLIP not in name)
    added, positions = groups["adapter"]["trainable"], groups["positions"]["trainable"]
    shares = {method: added / own}
    return shares | ({"with_positions": (added + positions) / own} if positions else {})


def _prompt_tokens(model: SegmentationModel) -> int:
    return model.most_tokens if model.reads_text else 0


def multiply_adds(model: SegmentationModel) -> int:
    """Multiply-adds of one image with one prompt of the model's longest length (half the counted FLOPs)."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, model.image_size, model.image_size),
              torch.zeros(1, _prompt_tokens(model), dtype=torch.long))
    return counter.get_total_flops() // 2


def table(described: Described) -> str:
    """The counts as a table for the terminal."""
    released = described["released_code"]
    rows = [f"{described['recipe']}: {described['title']}, {described['image_size']} px",
            f"{'group':<10}{'total':>15}{'trainable':>15}{'released code' if released else '':>15}".rstrip()]
    groups: dict[str, Count] = {}
    for name, group in described["groups"].items():
        groups[name] = group
        if name == "decoder":
            groups |= {f"  {part}": counts for part, counts in described["decoder_parts"].items()}
    groups["all"] = described
    for name, group in groups.items():
        published = f"{released[name]:>15,}" if name in released else ""
        rows += [f"{name:<10}{group['total']:>15,}{group['trainable']:>15,}{published}"] if group["total"] else []
    prompt = f", with a prompt of {described['prompt_tokens']} tokens" if described["prompt_tokens"] else ""
    rows.append(f"multiply-adds per image{prompt}: {described['multiply_adds'] / 1e9:.2f} G")
    if described["backbone_share"]:
        shares = (f"{SHARES[name]} {share:.2%}" for name, share in described["backbone_share"].items())
        rows.append(f"share of the backbone: {', '.join(shares)}")
    if described["published"]:
        rows.append(f"published trainable parameters: {described['published']}")
    return "\n".join(rows)
