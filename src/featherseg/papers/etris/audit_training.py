"""Evidence, computed on the spot, for what trains in the released code of referring segmentation although it is called
frozen, and what does not although it is called tuned.

As in `audit.py`, each verdict is read off its measurement.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from featherseg import adapters
from featherseg.config import TrainConfig
from featherseg.models.base import SegmentationModel
from featherseg.models.etris.config import small_config, small_resnet_config
from featherseg.models.etris.model import build_etris
from featherseg.papers.etris.counts import bridger_shares
from featherseg.reporting import tables
from featherseg.reporting.audit import OURS, shown

if TYPE_CHECKING:
    import pandas as pd

RELEASED = "released code"
SENTENCE = "the small red circle left of the square"
MILESTONE = 35
FIRST, LAST_OF = "epoch 1", f"epochs 2 to {MILESTONE}"
PUBLISHED_SHARES = (1.61, 3.38)  # the abstract's range, in %


def training() -> list:
    """Traps 7, 9, 10 and 14, and the 3.38 %, for a notebook, each with a heading, prose, a table and a verdict."""
    rates, moved, reached = learning_rates(), batchnorm_statistics(), lora_targets()
    lengths, shares = word_lengths(), bridger_shares()
    return [
        *shown("Trap 7: a first epoch at ten times the rate",
               "CRIS hands its optimiser groups that name `initial_lr` and no `lr`. A schedule reads the former from "
               "its first step on; before it, every group has the optimiser's own rate. (ETRIS writes the same, but "
               "with equal rates.) Rates of a backbone meant to train at a tenth of 1e-4, milestone 35; ours are those "
               "of this package's own optimiser and schedule.",
               tables.show(rates, digits=6), rates_verdict(rates)),
        *shown("Trap 9: frozen, and moving",
               "`requires_grad = False` freezes weights. In `train()` mode a BatchNorm goes on adapting its running "
               "statistics, frozen or not. One batch through a small ETRIS on a ResNet whose towers are frozen.",
               tables.show(moved, digits=4), batchnorm_verdict(moved)),
        *shown("Trap 10: LoRA that trains nothing",
               "`nn.MultiheadAttention` reads its output projection's weight without calling the layer, so what peft "
               "wraps around `out_proj` is never reached. The attention module itself is the right target.",
               tables.show(reached, digits=4), lora_verdict(reached)),
        *shown("Trap 14: padding is part of the model",
               "The Bridger's attention sees pad tokens. One sentence, cut or padded to another length, same weights.",
               tables.show(lengths, digits=6), lengths_verdict(lengths)),
        *shown("The abstract's 3.38 %",
               "The abstract says that 1.61 % to 3.38 % of the backbone's parameters are updated. Counted at full "
               "size: the Bridger, alone and with the positional embeddings that train along, as a share of what "
               "could be called the backbone. `connect` is the part of the ResNets' attention pool that CLIP lacks.",
               tables.show(shares), shares_verdict(shares))]


def learning_rates(factor: float = 0.1, base: float = 1e-4) -> "pd.DataFrame":
    """Trap 7: the rates of a backbone and a head under a schedule: by how the optimiser's groups name them, and by
    this package's `tower_lr_factor` from each `tower_lr_from` on.

    Args:
        factor: the backbone's rate by the base rate.
        base: the base rate.

    Returns:
        groups (or our field), part (backbone, head), intended, and the rates in the first epoch, until and after
        milestone 35.
    """
    import pandas as pd

    intended, lines = {"backbone": factor * base, "head": base}, []
    ways = {f"{RELEASED}: initial_lr only": _rates_of_groups(True, list(intended.values())),
            "initial_lr only, stepped without an epoch": _rates_of_groups(False, list(intended.values())),
            f"{OURS}, tower_lr_from 1": _rates_here(factor, base, 1),
            f"{OURS}, tower_lr_from 2 (as released)": _rates_here(factor, base, 2)}
    for way, rates in ways.items():
        lines += [{"groups": way, "part": part, "intended": rate, FIRST: of[0], LAST_OF: of[1],
                   "from epoch 36": of[MILESTONE]} for (part, rate), of in zip(intended.items(), rates, strict=True)]
    return pd.DataFrame(lines)


def rates_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per way: how the backbone's rate in the first epoch compares with the intended one."""
    facts = []
    for row in frame[frame.part == "backbone"].to_dict("records"):
        early, later = row[FIRST] / row["intended"], row[LAST_OF] / row["intended"]
        facts.append(f"{row['groups']}: the backbone trains at {early:.0f} x the intended rate in the first epoch and "
                     f"at {later:.0f} x in the following ones")
    return "; ".join(facts) + "."


def batchnorm_statistics() -> "pd.DataFrame":
    """Trap 9: the frozen towers' running statistics before and after one training step's forward.

    Returns:
        frozen BatchNorm (the recipe field's values), layers in the towers, layers moved, largest change of a running
        mean, and of a logit of one fixed input in eval mode.
    """
    import pandas as pd

    lines = []
    for field, moves in (("published_moving", True), ("fixed", False)):
        model = adapters.apply(tiny_resnet(), {"name": "decoder"})
        model.frozen_batchnorm_moves = moves
        pixels, tokens = _batch(model)
        towers = model.get_submodule("net.backbone").modules()
        layers = [layer for layer in towers if isinstance(layer, nn.BatchNorm2d)]
        before = [layer.get_buffer("running_mean").clone() for layer in layers]
        logits = _logits(model, pixels, tokens)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model.train()
            # the head's own statistics are meant to move, and would hide what the towers' do
            for part in model.decoder_modules:
                model.get_submodule(part).eval()
            model(pixels, tokens)
        changes = [float((layer.get_buffer("running_mean") - mean).abs().max())
                   for layer, mean in zip(layers, before, strict=True)]
        lines.append({"frozen_batchnorm": field, "layers in the towers": len(layers),
                      "layers moved": sum(change > 0 for change in changes), "change of a mean": max(changes),
                      "change of a logit": float((_logits(model, pixels, tokens) - logits).abs().max())})
    return pd.DataFrame(lines)


def batchnorm_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per value of the field: how many frozen layers moved."""
    return "; ".join(
        f"`{row['frozen_batchnorm']}`: {row['layers moved']} of {row['layers in the towers']} frozen layers "
        + (f"MOVED in one step, and logits by up to {row['change of a logit']:.2g}" if row["layers moved"] else "moved")
        for row in frame.to_dict("records")) + "."


def lora_targets() -> "pd.DataFrame":
    """Trap 10: how much gradient LoRA gets on a small ETRIS by what it was put on.

    Returns:
        LoRA on, tensors to train, with gradient (finite and not zero), gradient norm.
    """
    import pandas as pd

    lines = []
    for way, insert in TARGETS.items():
        model = tiny_vit()
        model.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            insert(model)
        trained = {name: p for name, p in adapters.trainable(model).items() if "lora_" in name}
        with torch.no_grad():  # off the start, where B is 0 and so is A's gradient
            for parameter in trained.values():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        logits = model(*_batch(model))
        if logits.requires_grad:
            logits.square().mean().backward()
        norms = torch.tensor([0.0 if p.grad is None else float(p.grad.norm()) for p in trained.values()])
        sound = norms.isfinite() & (norms > 0)
        lines.append({"LoRA on": way, "tensors to train": len(trained), "with gradient": int(sound.sum()),
                      "gradient norm": float(norms.norm())})
    return pd.DataFrame(lines)


def lora_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per target: how many of its tensors get a gradient."""
    return "; ".join(f"{row['LoRA on']}: {row['with gradient'] or 'NONE'} of {row['tensors to train']} tensors get a "
                     "gradient" for row in frame.to_dict("records")) + "."


def _on_attention(model: SegmentationModel) -> None:
    adapters.apply(model, {"name": "lora", "rank": 4, "alpha": 8, "head": False})


def _on_out_proj(model: SegmentationModel) -> None:
    from peft import LoraConfig
    from peft.functional import inject_adapter_in_model

    names = [f"{block}.{tower.attn}.out_proj" for tower in (model.vision, model.text) for block in tower.blocks]
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=8, target_modules=names), model)


TARGETS: Mapping[str, Callable[[SegmentationModel], object]] = {
    "attn.out_proj": _on_out_proj, f"attn, as {OURS} does": _on_attention}


def word_lengths(lengths: Sequence[int] = (17, 22)) -> "pd.DataFrame":
    """Trap 14: how far the logits of one image and one sentence move when only the word length changes.

    Returns:
        model, word length (both), largest difference of a logit, and of a pixel's decision.
    """
    import pandas as pd

    lines = []
    for name, make in MODELS.items():
        found = [_logits(model, *_batch(model)) for model in map(make, lengths)]
        apart = (found[0] - found[1]).abs()
        lines.append({"model": name, "word lengths": " and ".join(map(str, lengths)),
                      "difference of a logit": float(apart.max()), "largest logit": float(found[0].abs().max())})
    return pd.DataFrame(lines)


def lengths_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per model: whether its logits depend on the padding."""
    facts = []
    for row in frame.to_dict("records"):
        apart, largest = row["difference of a logit"], row["largest logit"]
        moved = f"logits move by up to {apart:.2g} (the largest one is {largest:.2g})"
        facts.append(f"{row['model']}: {'the padding changes nothing' if apart < 1e-4 * largest else moved}")
    return f"{'; '.join(facts)}. So the word length belongs to a recipe, and is never trimmed."


def shares_verdict(frame: "pd.DataFrame") -> str:
    """Which of the counted shares rounds to each end of the abstract's range, and the closest one where none does."""
    facts = []
    for printed in PUBLISHED_SHARES:
        apart = (frame["% of it"] - printed).abs()
        row, share = frame.loc[apart.idxmin()], frame["% of it"][apart.idxmin()]
        what = f"{row['trained']} of {row['backbone']} over {row['counted as backbone']}"
        facts.append(f"{printed} % is {what}" if round(share, 2) == printed
                     else f"{printed} % DOES NOT FOLLOW from any of them; the closest is {share:.2f} %, {what}")
    return "; ".join(facts) + "."


def tiny_vit(word_length: int = 17) -> SegmentationModel:
    """A random ETRIS on a small ViT, always the same but for its word length."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_etris("etris_vit", small_config(32, 32, stages=(1, 2, 3), image_size=32),
                           word_length=word_length).eval()


def tiny_resnet() -> SegmentationModel:
    """A random ETRIS on a small ResNet, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_etris("etris_r50", small_resnet_config(image_size=64)).eval()


def _bridged(word_length: int) -> SegmentationModel:
    """The small ETRIS with a Bridger whose weights are as large as trained ones."""
    model = adapters.apply(tiny_vit(word_length), {"name": "bridger", "dim": 8}).eval()
    with torch.no_grad():
        for parameter in model.get_submodule("exchange").parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return model


MODELS: Mapping[str, Callable[[int], SegmentationModel]] = {
    "ETRIS with the Bridger": _bridged, "ETRIS, head only": tiny_vit}


def _rates_here(factor: float, base: float, start: Literal[1, 2]) -> list[list[float]]:
    """Rates of a backbone and of a head by epoch, in the engine's own optimiser and schedule."""
    from featherseg.engine import make_optimizer, make_schedule, slow_towers

    backbone, head = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    config = TrainConfig(optimizer="adam", lr=base, schedule="multistep", milestones=(MILESTONE,), factor=0.1,
                         tower_lr_factor=factor, tower_lr_from=start)
    optimizer = make_optimizer(config, [backbone, head], [backbone])
    schedule = cast(lr_scheduler.LRScheduler, make_schedule(config, optimizer))
    rates = []
    for epoch in range(1, MILESTONE + 2):
        by_parameter = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        rates.append([by_parameter[id(part)] for part in (backbone, head)])
        optimizer.step()
        schedule.step()
        slow_towers(config, optimizer, epoch + 1)
    return [list(of) for of in zip(*rates, strict=True)]


def _rates_of_groups(counted: bool, wanted: Sequence[float]) -> list[list[float]]:
    """Rates by group and epoch of an Adam at the last of `wanted`, whose groups name theirs `initial_lr`; `counted`
    hands the epoch to the schedule.
    """
    import warnings

    groups = [{"params": [nn.Parameter(torch.zeros(1))], "initial_lr": rate} for rate in wanted]
    optimizer = torch.optim.Adam(groups, lr=wanted[-1])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[MILESTONE], gamma=0.1)
    rates = []
    for epoch in range(1, MILESTONE + 2):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an epoch handed to step is deprecated, and what the released code does
            schedule.step(epoch) if counted else schedule.step()
    return [list(of) for of in zip(*rates, strict=True)]


def _batch(model: SegmentationModel) -> tuple[Tensor, Tensor]:
    """Two random images (2, 3, H, W), each with the same sentence's tokens (2, L)."""
    pixels = torch.randn(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))
    return pixels, model.tokenize([SENTENCE] * 2)


@torch.no_grad()
def _logits(model: SegmentationModel, pixels: Tensor, tokens: Tensor) -> Tensor:
    return model.eval()(pixels, tokens)
