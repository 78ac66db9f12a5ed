"""Evidence, computed on the spot, for how VLSM-Adapter's released code builds SAN: which of CLIP's blocks its side
network hears, and which of its tensors ever get a gradient.

As in `audit.py`, the verdict is read off its measurement.
"""

from typing import TYPE_CHECKING

import torch

from featherseg.describe import without_weights
from featherseg.models.san.config import FULL, Architecture, small_config
from featherseg.models.san.model import SAN
from featherseg.papers.vlsm_adapter.published import printed_parameters
from featherseg.reporting import tables
from featherseg.reporting.audit import shown

if TYPE_CHECKING:
    import pandas as pd

RELEASED, OURS = "san-decoder-published", "san-decoder"
BUILT_AS = {OURS: (False, True), RELEASED: (True, False)}  # numbers exchanged, gradients through CLIP


def side_network() -> list:
    """SAN as released for a notebook: a heading, its prose, a table and a verdict."""
    built = side_networks()
    return shown("SAN: numbers that are exchanged",
                 "SAN's side network adds CLIP's states after 0, 3, 6 and 9 blocks before its own blocks 0 to 3. "
                 "VLSM-Adapter's released configuration names the two the other way round, and its code runs CLIP "
                 "without gradients. Small random models of the full depth: a CLIP block stands behind the proposals "
                 "where noise on its output moves them, a tensor trains where a gradient reaches it. Parameters are "
                 "counted at full size, without weights.", tables.show(built), side_verdict(built))


def side_networks() -> "pd.DataFrame":
    """What the side network hears and what trains, as in the paper and as released.

    Counts of tensors are those of small random models of the full depth: a block stands behind the proposals where
    noise on its output moves them, a tensor trains where a gradient reaches it.

    Returns:
        recipe, CLIP blocks behind the proposals (how many), tensors to train (side network and CLIP's positions), with
        gradient, parameters trained (at full size).
    """
    import pandas as pd

    lines = []
    for recipe, (swapped, learns) in BUILT_AS.items():
        model = _small(swapped, learns)
        held, reached = _gradients(model)
        trained = sum(p.numel() for p in without_weights(recipe).parameters() if p.requires_grad)
        lines.append({"recipe": recipe, "CLIP blocks behind the proposals": _blocks_heard(model),
                      "tensors to train": held, "with gradient": reached, "parameters trained": trained})
    return pd.DataFrame(lines)


def side_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: how much less is heard and trained as released than in the paper."""
    paper, released = (frame.set_index("recipe").loc[recipe] for recipe in (OURS, RELEASED))
    blocks, held, reached, trained = frame.columns.drop("recipe")
    text = (f"as released {released[blocks]} of CLIP's blocks stand behind the proposals (in the paper "
            f"{paper[blocks]}), {released[reached]} of {released[held]} tensors get a gradient (here "
            f"{paper[reached]} of {paper[held]}), and {released[trained]:,} of {paper[trained]:,} "
            f"parameters train; published are {printed_parameters(OURS)}")
    sound = (released[blocks] < paper[blocks] and released[reached] < released[held]
             and paper[reached] == paper[held])
    return f"{'A' if sound else 'NOT SHOWN: a'}{text[1:]}."


def _small(swapped: bool, learns: bool) -> SAN:
    depths = {name: getattr(FULL, name) for name in ("vision_depth", "side_depth", "fused")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SAN(Architecture(**small_config().model_dump() | depths), 64, swapped, learns).eval()


def _batch(model: SAN) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.randn(1, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))
    return pixels, model.tokenize(["polyp"])


@torch.no_grad()
def _blocks_heard(model: SAN) -> int:
    """How many of CLIP's blocks move the proposals when noise is added to what they put out."""
    pixels, _ = _batch(model)
    proposals, moved = model.encode_image(pixels).taps[0], 0
    noise = torch.Generator().manual_seed(2)
    for block in model.clip.visual.transformer.resblocks:
        handle = block.register_forward_hook(
            lambda module, inputs, states: states + torch.randn(states.shape, generator=noise))
        moved += not torch.allclose(model.encode_image(pixels).taps[0], proposals)
        handle.remove()
    return moved


def _gradients(model: SAN) -> tuple[int, int]:
    """How many tensors the published 8.4 M are, and how many of them a gradient reaches."""
    held = [*model.side.parameters(), model.clip.visual.positional_embedding]
    model.requires_grad_(False)
    for parameter in held:
        parameter.requires_grad_(True)
    model.to_input(model(*_batch(model))).square().sum().backward()
    return len(held), sum(parameter.grad is not None and bool(parameter.grad.any()) for parameter in held)
