"""Evidence, computed on the spot, for what the models of the medical papers' released code do: which block is read,
whether padding is masked, and whether a frozen tower drops out.

Each verdict is read off its measurement.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from featherseg.models.base import SegmentationModel
from featherseg.models.biomedclipseg import config as biomedclipseg_config
from featherseg.models.biomedclipseg.model import BiomedCLIPSeg
from featherseg.models.clipseg.model import CLIPSeg, small_config
from featherseg.models.cris import config as cris_config
from featherseg.models.cris.config import TextPadding
from featherseg.models.cris.model import CRIS
from featherseg.reporting import tables
from featherseg.reporting.audit import shown

if TYPE_CHECKING:
    import pandas as pd

# the fields of `published` in recipes that this paper's audits examine, and where
EVIDENCE: Mapping[str, str] = {
    "taps": "trap 4",
    "padding": "trap 13",
    "prompts": "trap 8 and one level of prompts",
    "schedule": "the plateau",
    "positions": "positional embeddings",
    "last_batch": "the last batch",
    "count": "a parameter that is counted",
    "dropout": "frozen, and dropping out",
}
TAPS = (3, 6, 9)
LIBRARY, RELEASED, OURS, OURS_AS_RELEASED = (
    "CLIPSeg, transformers' own list", "BiomedCLIPSeg, released code's list", "BiomedCLIPSeg here, tap_offset 0",
    "BiomedCLIPSeg here, tap_offset 1")
PROMPTS = ("", "polyp", "one small pink round polyp located in the center of the image")
UNMASKED: TextPadding = "published_unmasked"
MASKED: TextPadding = "masked"


def models() -> list:
    """Traps 4 and 13 and dropout, for a notebook, below a heading for all: for each a heading, its prose, a table and a
    verdict."""
    from IPython.display import Markdown

    read, padded, dropped = tap_depths(), padding(), text_dropout()
    return [
        Markdown("## MedVLSM: what is read and masked, and what a score counts\n\nThe released code of MedVLSM, and "
                 "what VLSM-Adapter's shares with it: models (traps 4 and 13), then prompts, lists and empty masks "
                 "(traps 8, 11 and 12)."),
        *shown("Trap 4: one block later",
               "CLIPSeg's decoder reads the image after blocks 3, 6 and 9, which are entries i + 1 of a list that "
               "starts with the embeddings. BiomedCLIPSeg's released code reads entries i + 1 of a list without them. "
               "Which block's output each entry is, found by comparing it with what every block of a small random "
               "model of twelve blocks put out.", tables.show(read), tap_verdict(read)),
        *shown("Trap 13: a mask that masks nothing",
               "CRIS keeps padding from its decoder by looking for token 0. Both medical repositories tokenise with "
               "CLIP's tokenizer of transformers, which fills up with the end token. Masked tokens of three prompts, "
               "and how far a logit of a small random CRIS moves when the same prompt is filled up to another length.",
               tables.show(padded, digits=6), padding_verdict(padded)),
        *shown("Frozen, and dropping out",
               "BiomedCLIP's text tower is frozen in MedVLSM, but in training its dropout of 0.1 stays on, so that one "
               "prompt is another vector each time. A small random BiomedCLIPSeg, one prompt, encoded twice.",
               tables.show(dropped, digits=4), dropout_verdict(dropped))]


def tap_depths() -> "pd.DataFrame":
    """Trap 4: which block's output each tap reads, in the library's list, the released code's, and here.

    Returns:
        read by, tap asked for (block, from 0), block read (-1 where it is no block's output).
    """
    import pandas as pd

    library = CLIPSeg(small_config(width=32, text_width=32, depth=12, image_size=32, taps=TAPS, reduce_dim=16), 32)
    config = biomedclipseg_config.small_config(width=32, text_width=32, depth=12, image_size=32, taps=TAPS)
    small = {offset: BiomedCLIPSeg("biomedclipseg", config, 32, tap_offset=offset) for offset in (0, 1)}
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    listed = library.net.clip.vision_model(pixels, output_hidden_states=True).hidden_states
    outputs = _outputs(library, "net.clip.vision_model.encoder.layers", pixels)
    found, blocks = {LIBRARY: (outputs, [listed[tap + 1] for tap in TAPS])}, "net.clip.visual.trunk.blocks"
    outputs = _outputs(small[1], blocks, pixels, every=True)
    found[RELEASED] = outputs, [outputs[tap + 1] for tap in TAPS]
    for name, model in ((OURS, small[0]), (OURS_AS_RELEASED, small[1])):
        found[name] = _outputs(model, blocks, pixels, every=True), list(model.encode_image(pixels).taps)
    lines = []
    for name, (outputs, states) in found.items():
        for tap, state in zip(TAPS, states, strict=True):
            lines.append({"read by": name, "tap asked for": tap, "block read": _which(state, outputs)})
    return pd.DataFrame(lines)


def tap_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: how many blocks later than asked for each list is read."""
    offsets = {name: sorted(set(rows["block read"] - rows["tap asked for"]))
               for name, rows in frame.groupby("read by", sort=False)}
    if offsets != {LIBRARY: [0], RELEASED: [1], OURS: [0], OURS_AS_RELEASED: [1]}:
        facts = [f"{name}: {', '.join(map('{:+d}'.format, later))}" for name, later in offsets.items()]
        return f"NOT SHOWN: blocks later than asked for are {'; '.join(facts)}."
    late = frame[frame["read by"] == RELEASED]["block read"]
    return (f"The released BiomedCLIPSeg reads blocks {', '.join(map(str, late))}, each one later than CLIPSeg's "
            "decoder was made for. Here it reads the blocks that are asked for; the `-published` recipes set "
            "`tap_offset: 1`.")


def padding(lengths: Sequence[int] = (24, 48)) -> "pd.DataFrame":
    """Trap 13: how many tokens of a prompt are masked as padding, and what the padding changes.

    Returns:
        text_padding, prompt, tokens (of the prompt), filled up, of which token 0, of which masked, change of a logit
        (largest, when the same prompt is filled up to the second length instead of the first).
    """
    import pandas as pd

    lines = []
    for how in (UNMASKED, MASKED):
        small = [_cris(length, how) for length in lengths]
        small[1].load_state_dict(small[0].state_dict())
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        for prompt in PROMPTS:
            tokens = [model.tokenize([prompt]) for model in small]
            with torch.no_grad():
                first, second = (model(pixels, ids) for model, ids in zip(small, tokens, strict=True))
                masked = small[0].encode_text(tokens[0]).padding
            own = int(tokens[0].argmax()) + 1
            lines.append({"text_padding": how, "prompt": prompt or "(empty)", "tokens": own,
                          "filled up": lengths[0] - own, "token 0": int((tokens[0] == 0).sum()),
                          "masked": 0 if masked is None else int(masked.sum()),
                          "change of a logit": float((first - second).abs().max())})
    return pd.DataFrame(lines)


def padding_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per way of padding: how many of the tokens that only fill up are masked."""
    facts = []
    for how, rows in frame.groupby("text_padding", sort=False):
        masked, filled = rows.masked.sum(), rows["filled up"].sum()
        moved = rows["change of a logit"].max()
        moves = f"moves a logit by up to {moved:.2g}" if moved > 1e-4 else "moves no logit"
        facts.append(f"`{how}`: {masked} of {filled} tokens of padding are masked, another length {moves}")
    return "; ".join(facts) + "."


def text_dropout() -> "pd.DataFrame":
    """How far a prompt's vector moves between two passes of a frozen text tower in training, and in evaluation.

    Returns:
        text_dropout, change in training, change in evaluation (of the vector, by its length).
    """
    import pandas as pd

    config = biomedclipseg_config.small_config(width=32, text_width=32, depth=12, image_size=32, taps=TAPS)
    lines = []
    for dropout in (0.0, 0.1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = BiomedCLIPSeg("biomedclipseg", config, 32, text_dropout=dropout).requires_grad_(False)
            tokens = model.tokenize([PROMPTS[-1]])
            changes = []
            for training in (True, False):
                model.train(training)
                first, second = (model.encode_text(tokens).sentence for _ in range(2))
                changes.append(float((first - second).norm() / first.norm()))
        lines.append({"text_dropout": dropout, "change in training": changes[0], "change in evaluation": changes[1]})
    return pd.DataFrame(lines)


def dropout_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per value: whether a frozen tower encodes one prompt alike twice."""
    facts = [f"`text_dropout: {row['text_dropout']:g}` moves a prompt's vector by "
             f"{100 * row['change in training']:.1f} % of its length in training and "
             f"{100 * row['change in evaluation']:.1f} % in evaluation" for row in frame.to_dict("records")]
    return f"{'; '.join(facts)}. The `-published` recipes keep the dropout."


def _outputs(model: SegmentationModel, blocks: str, pixels: Tensor, every: bool = False) -> list[Tensor]:
    """What each block of a vision tower puts out for an image; `every` runs those too that the taps do not reach."""
    layers = list(model.eval().get_submodule(blocks).children())
    seen: dict[int, Tensor] = {}
    handles = []
    for number, layer in enumerate(layers):
        handles.append(layer.register_forward_hook(
            lambda module, inputs, output, number=number: seen.__setitem__(number, output)))
    with torch.no_grad():
        model.encode_image(pixels)
        for number in range(len(seen), len(layers) if every else len(seen)):
            layers[number](seen[number - 1])
    for handle in handles:
        handle.remove()
    return [seen[number] for number in sorted(seen)]


def _which(state: Tensor, outputs: Sequence[Tensor]) -> int:
    equal = [number for number, output in enumerate(outputs) if torch.allclose(state, output, atol=1e-6)]
    return equal[0] if len(equal) == 1 else -1


def _cris(length: int, how: TextPadding) -> SegmentationModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CRIS("cris", cris_config.small_config(), 64, length, how).eval()
