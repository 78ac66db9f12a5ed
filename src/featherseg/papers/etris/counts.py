"""Exact parameter counts of the full-size ETRIS: of its Bridger, its head, and what could be called its backbone."""

import functools
from collections.abc import Callable
from typing import Any

import pandas as pd
from torch.nn import Parameter

from featherseg.config import ModelConfig
from featherseg.describe import without_weights
from featherseg.papers.etris import published
from featherseg.papers.etris.published import BACKBONES

BRIDGER = "bridger"
WIDTHS = (8, 16, 32, 64, 128)  # of the Bridger, in the paper's ablation
CONNECT = "attnpool.connect"


def parameters() -> pd.DataFrame:
    """Trainable parameters of ETRIS by backbone: published, of the released code, and counted at full size.

    Shares are those of CLIP's own parameters, without the ResNets' `connect`, which CLIP lacks. The published number is
    looked for among the Bridgers of all widths of the ablation.
    """
    lines = []
    for title, model in BACKBONES.items():
        millions, released = published.millions()[title], published.released_counts()[title]
        counted = full_size(model)
        widths = [f"a Bridger of dim {dim}" for dim in WIDTHS
                  if round(full_size(model, dim=dim)["bridger"] / 1e6, 2) == millions]
        equal = (released["Bridger"], released["HA+GA+Projector"]) == (counted["bridger"], counted["head"])
        lines.append({
            "backbone": title, "published": f"{millions:g}M", "which is": "; ".join(widths) or "none of ours",
            "released code, Bridger": released["Bridger"],
            "Bridger": counted["bridger"], "% of CLIP": 100 * counted["bridger"] / counted["clip"],
            "positions": counted["positions"],
            "with positions, %": 100 * (counted["bridger"] + counted["positions"]) / counted["clip"],
            "released code, head": released["HA+GA+Projector"], "head": counted["head"],
            "all trainable": counted["trainable"], "CLIP": counted["clip"], "equal": "yes" if equal else "NO"})
    return pd.DataFrame(lines)


def bridger_shares() -> pd.DataFrame:
    """The trained part of the backbone as a share of everything that could be called the backbone, at full size.

    Returns:
        backbone, trained (Bridger, or with the positions that train along), counted as backbone, parameters of both,
        and the share in %.
    """
    lines = []
    for title, model in BACKBONES.items():
        counted = full_size(model)
        clip, vision, connect = (counted[part] for part in ("clip", "vision", "connect"))
        wholes = {"CLIP": clip, "its vision tower": vision}
        if connect:
            wholes = {"CLIP": clip, "CLIP with connect": clip + connect,
                      "its vision tower": vision, "its vision tower with connect": vision + connect}
        trained = {"Bridger": counted["bridger"], "Bridger and positions": counted["bridger"] + counted["positions"]}
        for name, count in trained.items():
            for whole, size in wholes.items():
                lines.append({"backbone": title, "trained": name, "parameters": count, "counted as backbone": whole,
                              "of": size, "% of it": 100 * count / size})
    return pd.DataFrame(lines)


@functools.cache
def full_size(model: str, head_parts: str = "", **knobs: Any) -> dict[str, int]:
    """Parameters of a full-size ETRIS with its Bridger, whose knobs are the paper's but for those given: bridger,
    positions, head, connect, clip (without connect), vision (without connect) and trainable. `head_parts` are those of
    the head, joined by `+`, or nothing for all."""
    config = ModelConfig(name=model, head_parts=tuple(head_parts.split("+")) if head_parts else None)
    network = without_weights(f"{model}-{BRIDGER}", config, {"name": BRIDGER, **knobs})

    def count(wanted: Callable[[str, Parameter], bool]) -> int:
        return sum(p.numel() for name, p in network.named_parameters() if wanted(name, p))

    return {
        "bridger": count(lambda name, p: name.startswith("exchange.")),
        "positions": count(lambda name, p: "positional_embedding" in name),
        "head": count(lambda name, p: name.startswith(network.decoder_modules)),
        "connect": count(lambda name, p: CONNECT in name),
        "clip": count(lambda name, p: name.startswith("net.backbone.") and CONNECT not in name),
        "vision": count(lambda name, p: name.startswith("net.backbone.visual.") and CONNECT not in name),
        "trainable": count(lambda name, p: p.requires_grad)}
