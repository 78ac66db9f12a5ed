"""Evidence, computed on the spot, for what VLSM-Adapter's released code does and this package does not: gradients that
do not reach the towers, the sigmoid that is applied twice, and a causal mask that is lost.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from featherseg import adapters
from featherseg.models.base import SegmentationModel, parameters_of
from featherseg.models.clipseg.model import CLIPSeg, small_config
from featherseg.reporting import style
from featherseg.reporting.audit import OURS
from featherseg.tasks.segmentation.config import LossConfig, LossForm
from featherseg.tasks.segmentation.losses import per_sample_loss

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# the fields of `published` in recipes that this paper's audits examine, and where
EVIDENCE: Mapping[str, str] = {"towers": "trap 1", "loss": "trap 2", "fusion": "SAN", "recognition": "SAN"}
Forward = Callable[[SegmentationModel, Tensor, Tensor], Tensor]
Walk = Callable[[SegmentationModel, Tensor], object]
LIBRARY = "transformers"
FORWARDS: Mapping[str, Forward] = {
    LIBRARY: lambda model, pixels, tokens: model.net(input_ids=tokens, pixel_values=pixels).logits,
    OURS: lambda model, pixels, tokens: model(pixels, tokens),
}
FORMS: Mapping[LossForm, str] = {
    "logits": "on logits",
    "published_dice_only": "as with MONAI 1.1.0: Dice only",
    "published_second_sigmoid": "as with MONAI 1.3.2: second sigmoid",
}
AREAS = (0.01, 0.05, 0.15, 0.3, 0.5, 0.75, 1.0)
CORRECT, _, TWICE = FORMS.values()
MONAI, FORMULA = "MONAI's own loss", "0.693 − 0.380 × area"


def gradients(forwards: Mapping[str, Forward] = FORWARDS) -> "pd.DataFrame":
    """Trap 1: how much gradient reaches each part of one and the same random CLIPSeg through each forward.

    Args:
        forwards: by name, what computes logits from a model, pixels and tokens.

    Returns:
        method (`full`, `lora`), forward, part, tensors to train, with gradient (those whose gradient is
        finite and not zero), gradient norm (over the part), mean logit (the forwards compute the same).
    """
    import pandas as pd

    lines = []
    for method in ("full", "lora"):
        for forward, compute in forwards.items():
            model = _nudged(adapters.apply(tiny_clipseg(), {"name": method}))
            logits = compute(model, *_batch(model))
            if logits.requires_grad:
                logits.square().mean().backward()
            mean = float(logits.detach().mean())
            lines += [{"method": method, "forward": forward, **part, "mean logit": mean}
                      for part in _reached(model)]
    return pd.DataFrame(lines)


def gradients_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: which parts the library's forward leaves without gradient, and that ours reaches all."""
    return f"{_cut_off(frame, LIBRARY)} {_cut_off(frame, OURS)}"


def perfect_mask_losses(areas: Sequence[float] = AREAS, side: int = 100) -> "pd.DataFrame":
    """Trap 2: what a perfect mask costs, by the fraction of the image that it covers.

    Returns:
        area, one column per loss form of this package (Dice and cross-entropy weighted 1 and 1), MONAI's own
        DiceCELoss on probabilities, and the formula that the second sigmoid amounts to.
    """
    import pandas as pd
    from monai.losses import DiceCELoss

    lines = []
    for area in areas:
        truth = torch.zeros(1, 1, side, side)
        truth.view(-1)[: round(area * side * side)] = 1
        certain = (truth - 0.5) * 200  # logits whose sigmoid is the mask itself in float32
        losses = {
            label: float(per_sample_loss(certain, truth, LossConfig(form=form, lambda_dice=1, lambda_ce=1)))
            for form, label in FORMS.items()
        }
        monai = float(DiceCELoss(sigmoid=False)(certain.sigmoid(), truth))
        lines.append({"area": area, **losses, MONAI: monai, FORMULA: 0.6931 - 0.3799 * area})
    return pd.DataFrame(lines)


def losses_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: what the best possible prediction costs under each form."""
    correct, twice = frame[CORRECT].abs().max(), frame[TWICE]
    off = max((twice - frame[FORMULA]).abs().max(), (frame[MONAI] - twice).abs().max())
    if off > 1e-3:
        return (
            f"NOT REPRODUCED: a perfect mask through a second sigmoid costs up to {off:.3f} more or less "
            "than 0.693 − 0.380 × area or than MONAI's own loss says."
        )
    return (
        f"On logits a perfect mask costs {correct:.3f}. With the sigmoid applied twice it still costs "
        f"{twice.max():.2f} at {frame.area[twice.idxmax()]:.0%} foreground and {twice.min():.2f} at "
        f"{frame.area[twice.idxmin()]:.0%}: 0.693 − 0.380 × area, and MONAI's own loss agrees to {off:.0e}."
    )


def _unmasked_loop(model: SegmentationModel, tokens: Tensor) -> None:
    """What a copied loop over a text tower's blocks does once nobody hands it the causal mask."""
    tower: Any = model.get_submodule("net.clip.text_model")
    states = tower.embeddings(input_ids=tokens)
    for block in tower.encoder.layers:
        states = block(states, None)


WALKS: Mapping[str, Walk] = {
    "transformers' own forward": lambda model, tokens: model.get_submodule("net.clip.text_model")(input_ids=tokens),
    "copied loop, no mask": _unmasked_loop,
    "featherseg": lambda model, tokens: model.encode_text(tokens),
}


def leakage(walks: Mapping[str, Walk] = WALKS, length: int = 12) -> "pd.DataFrame":
    """Trap 3: how much each position's last state moves when a later token changes, through each walk.

    Args:
        walks: by name, what runs a model's text tower on tokens (B, L).
        length: number of tokens; the last one is changed.

    Returns:
        walk, position, change (largest absolute difference over the width). Causal: 0 before the last one.
    """
    import pandas as pd

    model, lines = tiny_clipseg(), []
    tokens = torch.randint(1000, 40000, (1, length), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[0, -1] += 1
    for name, walk in walks.items():
        change = (_last_states(model, walk, tokens) - _last_states(model, walk, other)).abs().amax(dim=-1)[0]
        lines += [
            {"walk": name, "position": position, "change": float(value)}
            for position, value in enumerate(change)
        ]
    return pd.DataFrame(lines)


def leakage_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per walk: whether earlier positions see a later token."""
    facts = []
    for walk, rows in frame.groupby("walk", sort=False):
        moved = rows.change[rows.position < rows.position.max()].max()
        facts.append(
            f"{walk}: mask kept, earlier positions move by at most {moved:.0e}"
            if moved < 1e-5
            else f"{walk}: mask LOST, earlier positions move by up to {moved:.2g}"
        )
    return "; ".join(facts) + "."


def losses_figure(frame: "pd.DataFrame") -> "Figure":
    """The cost of a perfect mask by its area fraction, one line per loss form, MONAI's own loss as crosses."""
    figure, (axis,) = style.panels(1, width=7.2, height=3.4)
    for label, colour, line in zip(
        FORMS.values(), ("#0072B2", "#E69F00", "#D55E00"), ("-", "--", "-"), strict=True
    ):
        axis.plot(frame.area, frame[label], color=colour, linestyle=line, linewidth=2, label=label)
    axis.plot(frame.area, frame[MONAI], "x", color="black", markersize=7, label=f"{MONAI} on probabilities")
    axis.set(
        xlabel="fraction of the image that the mask covers",
        ylabel="loss of a perfect mask",
        ylim=(-0.03, 0.75),
    )
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def leakage_figure(frame: "pd.DataFrame") -> "Figure":
    """Change of every position's state when the last token changes, one panel per walk."""
    walks = list(dict.fromkeys(frame.walk))
    figure, axes = style.panels(len(walks), width=3.7, height=2.8, sharey=True)
    for axis, walk in zip(axes, walks, strict=True):
        rows = frame[frame.walk == walk]
        last = rows.position == rows.position.max()
        axis.bar(rows.position, rows.change, color=["#bbbbbb" if changed else "#D55E00" for changed in last])
        axis.set(title=walk, xlabel="position (the grey one's token changed)")
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("change of the state")
    return figure


def tiny_clipseg() -> SegmentationModel:
    """A random CLIPSeg that computes in milliseconds, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIPSeg(
            small_config(width=32, text_width=32, depth=4, taps=(0, 1, 2), reduce_dim=16), image_size=32
        ).eval()


def _nudged(model: SegmentationModel) -> SegmentationModel:
    """The model a little off its start, where LoRA's B is 0 and so is A's gradient."""
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapters.trainable(model).values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=noise))
    return model


def _reached(model: SegmentationModel) -> list[dict[str, object]]:
    """What a backward pass left in each part of a model that is to be trained."""
    parts = {"vision": model.vision.modules, "text": model.text.modules, "decoder": model.decoder_modules}
    lines = []
    for part, names in parts.items():
        trained = [p for p in parameters_of(model, names).values() if p.requires_grad]
        norms = torch.tensor([0.0 if p.grad is None else float(p.grad.norm()) for p in trained])
        if trained:
            sound = norms.isfinite() & (norms > 0)
            lines.append({"part": part, "tensors to train": len(trained), "with gradient": int(sound.sum()),
                          "gradient norm": float(norms.norm())})
    return lines


def _batch(model: SegmentationModel) -> tuple[Tensor, Tensor]:
    """Two random images (2, 3, 32, 32) and two prompts' tokens (2, L)."""
    pixels = torch.randn(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))
    return pixels, model.tokenize(["one large polyp", "left lung"])


def _last_states(model: SegmentationModel, walk: Walk, tokens: Tensor) -> Tensor:
    """Output (B, L, width) of the text tower's last block while `walk` runs."""
    seen: list[Tensor] = []
    handle = model.get_submodule(model.text.blocks[-1]).register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    with torch.no_grad():
        walk(model, tokens)
    handle.remove()
    return seen[-1]


def _cut_off(frame: "pd.DataFrame", forward: str) -> str:
    """One sentence: which parts this forward leaves without any gradient, by method."""
    rows = frame[frame.forward == forward]
    dead = rows[rows["with gradient"] == 0]
    if dead.empty:
        return f"Through the forward of {forward} a gradient reaches every part that is to be trained."
    parts = "; ".join(
        f"{' and '.join(group.part)} under {method}" for method, group in dead.groupby("method", sort=False)
    )
    return f"Through the forward of {forward} NO gradient, and no error: {parts}."
