"""Evidence, computed on the spot, for what the released code and lists of the medical papers do: which block is read,
which prompt is scored, which images are in which split, what an empty mask counts, and whether padding is masked.

As in `audit.py`, each verdict is read off its measurement.
"""

import random
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from featherseg.config import read_params
from featherseg.core.files import write_json
from featherseg.data.folder.list_faults import KINDS, downloaded_lists, list_faults, lists_of_medvlsm
from featherseg.data.prepared import Sample
from featherseg.models.base import SegmentationModel
from featherseg.models.biomedclipseg import config as biomedclipseg_config
from featherseg.models.biomedclipseg.model import BiomedCLIPSeg
from featherseg.models.clipseg.model import CLIPSeg, small_config
from featherseg.models.cris import config as cris_config
from featherseg.models.cris.model import CRIS
from featherseg.reporting import tables
from featherseg.reporting.audit import shown
from featherseg.tasks.segmentation.metrics import dice, hd95

if TYPE_CHECKING:
    import numpy as np
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
DRAWN, SEEDED, FULLEST = (
    "drawn one after another (released code)", "random, seeded by the sample (here)", "fullest (here)")
PROMPTS = ("", "polyp", "one small pink round polyp located in the center of the image")
UNMASKED, MASKED = "published_unmasked", "masked"
DRAWN_LISTS, PUBLISHED_LISTS = "drawn here", "published"
FAULTY = {  # by dataset and list: file name of each row's image, of its mask, and P1; each kind of fault occurs once
    "bkai": {"train": [("a", "a", "polyp"), ("a", "a", "polyp"), ("b", "b", "polyp")], "test": [("b", "b", "polyp")]},
    "busi": {"train": [("a", "a", "No tumor."), ("b", "b", "tumor")]},
    "camus": {name: [("patient0001_2CH_ED.png", "mask_1/patient0001_2CH_ED_gt.png", prompt)]
              for name, prompt in (("val", "of a man"), ("test", "of a woman"))},
    "colondb": {"test": [("c", "c", "polyp")]}, "cvc300": {"test": [("c", "c", "polyp")]},
    "etis": {"train": [("a", "a", "polyp")], "test": [("b", "b", "polyp")]},
    "kvasir_seg": {"test": [("a", "a", "polyp")], "testB": [("a", "a", "polyp")]},
}
SOUND = {"isic2016": {"train": [("a", "a", "skin")], "val": [("b", "b", "skin")], "test": [("c", "c", "skin")]}}
CASES = ("masks that overlap", "nothing to find, nothing found", "nothing to find, something found",
         "something to find, nothing found")
LEFT_OUT, COUNTED, HERE = "MONAI, ignore_empty=True (its default)", "MONAI, ignore_empty=False", "featherseg"


def models() -> list:
    """Traps 4 and 13 and dropout, for a notebook, below a heading for all: a heading, its prose, a table and a verdict
    each.
    """
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


def scores() -> list:
    """Traps 8, 11 and 12 for a notebook: a heading, its prose, a table and a verdict each."""
    drawn, faults, empty = prompt_draws(), faults_of_lists(), empty_masks()
    return [
        *shown("Trap 8: a score that depends on what was drawn before",
               "The released code draws the prompt of every validation and test sample from a global generator, so "
               "that a score depends on how often it was asked before. One random model, the same drawn images: mean "
               "DSC of fifty evaluations that differ in nothing but what had been drawn, and in the order of samples.",
               tables.show(drawn), draws_verdict(drawn)),
        *shown("Trap 11: the published lists",
               "MedVLSM's lists of splits and prompts, read row by row: lists of a row or two that are drawn here with "
               "every kind of fault, under the names of the sets that have it, and the published ones as far as they "
               "are here, downloaded or below the mirror.", tables.show(faults), lists_verdict(faults)),
        *shown("Trap 12: what an empty mask counts",
               "A mean DSC over images with nothing to find depends on a flag. Each case by MONAI and by this package, "
               "and the mean of a set like BUSI, 133 empty masks among 780, for a model of DSC 0.8 wherever there is "
               "something, which finds something in half of the empty ones.",
               tables.show(empty), empty_verdict(empty))]


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
    return pd.DataFrame([{"read by": name, "tap asked for": tap, "block read": _which(state, outputs)}
                         for name, (outputs, states) in found.items()
                         for tap, state in zip(TAPS, states, strict=True)])


def tap_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: how many blocks later than asked for each list is read."""
    offsets = {name: sorted(set(rows["block read"] - rows["tap asked for"]))
               for name, rows in frame.groupby("read by", sort=False)}
    if offsets != {LIBRARY: [0], RELEASED: [1], OURS: [0], OURS_AS_RELEASED: [1]}:
        text = "; ".join(f"{name}: {', '.join(f'{offset:+d}' for offset in later)}" for name, later in offsets.items())
        return f"NOT SHOWN: blocks later than asked for are {text}."
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
                          "masked": int(masked.sum()),
                          "change of a logit": float((first - second).abs().max())})
    return pd.DataFrame(lines)


def padding_verdict(frame: "pd.DataFrame") -> str:
    """One sentence a way of padding: how many of the tokens that only fill up are masked."""
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
    """One sentence a value: whether a frozen tower says the same twice."""
    facts = [f"`text_dropout: {row['text_dropout']:g}` moves a prompt's vector by "
             f"{100 * row['change in training']:.1f} % of its length in training and "
             f"{100 * row['change in evaluation']:.1f} % in evaluation" for row in frame.to_dict("records")]
    return f"{'; '.join(facts)}. The `-published` recipes keep the dropout."


def prompt_draws(evaluations: int = 50, images: int = 12) -> "pd.DataFrame":
    """Trap 8: mean DSC in % of one model on one set of samples, over evaluations that draw their prompts.

    Returns:
        prompts, evaluations, lowest, highest, and range of the mean DSC (points).
    """
    import pandas as pd

    from featherseg.tasks.segmentation.trials import OWN, plan_trials

    samples, scored = _drawn_set(images)
    means: dict[str, list[float]] = {DRAWN: [], SEEDED: [], FULLEST: []}
    one_after_another = random.Random(0)
    for _ in range(evaluations):
        order = list(samples)
        one_after_another.shuffle(order)
        texts = [one_after_another.choice(list(sample.prompts.values()))[0] for sample in order]
        means[DRAWN].append(_mean(scored, zip(order, texts, strict=True)))
        for name, policy in ((SEEDED, "random"), (FULLEST, "fullest")):
            trials = [trial for trial in plan_trials(order, policy, seed=0) if trial.condition == OWN]
            means[name].append(_mean(scored, ((trial.sample, trial.prompt) for trial in trials)))
    return pd.DataFrame([{"prompts": name, "evaluations": len(found), "lowest": min(found), "highest": max(found),
                          "range": max(found) - min(found)} for name, found in means.items()])


def prompt_levels(images: int = 12) -> "pd.DataFrame":
    """Mean DSC in % of one random model on one set of samples, by the level of its prompts.

    Returns:
        prompts (p1 to p6, or random: drawn from the seed and the sample), DSC.
    """
    import pandas as pd

    from featherseg.tasks.segmentation.trials import OWN, plan_trials

    samples, scored = _drawn_set(images)
    lines = []
    for policy in (*(f"p{level}" for level in range(1, 7)), "random"):
        trials = [trial for trial in plan_trials(samples, policy, seed=0) if trial.condition == OWN]
        lines.append({"prompts": policy, "DSC": _mean(scored, ((trial.sample, trial.prompt) for trial in trials))})
    return pd.DataFrame(lines)


def draws_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: how far the same model's score moves with the draws, and that ours does not."""
    ranges = frame.set_index("prompts")["range"]
    ours = max(ranges[SEEDED], ranges[FULLEST])
    if not ranges[DRAWN] > 10 * max(ours, 1e-6):
        return (f"NOT SHOWN: drawn one after another the score moves by {ranges[DRAWN]:.2f} points, "
                f"here by {ours:.2f}.")
    return (f"Drawn one after another, the score of one and the same model moves by {ranges[DRAWN]:.2f} points; here "
            f"it moves by {ours:.2f}, be the prompt the fullest one or drawn from the seed and the sample's id.")


def faults_of_lists(folders: Mapping[str, Path] | None = None) -> "pd.DataFrame":
    """Trap 11: faults of the lists that are drawn here and of the published lists that are here, a line each.

    Args:
        folders: dataset -> the folder of its published lists; None for the downloaded ones and those of the mirror.

    Returns:
        lists (drawn here, published), dataset, kind (of fault), rows, fault, what prepare does.
    """
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        faults = [(DRAWN_LISTS, fault) for fault in list_faults(_draw_lists(Path(folder)))]
    faults += [(PUBLISHED_LISTS, fault) for fault in list_faults(_lists_here() if folders is None else folders)]
    return pd.DataFrame([{"lists": lists, "dataset": fault.dataset, "kind": fault.kind, "rows": fault.count,
                          "fault": fault.found, "what prepare does": fault.corrected} for lists, fault in faults],
                        columns=["lists", "dataset", "kind", "rows", "fault", "what prepare does"])


def lists_verdict(frame: "pd.DataFrame") -> str:
    """Whether every kind of fault is found where it was drawn and nowhere else, and what the published lists have."""
    drawn, published = (frame[frame.lists == lists] for lists in (DRAWN_LISTS, PUBLISHED_LISTS))
    kinds = set(KINDS)
    unseen, alarms = sorted(kinds - set(drawn.kind)), sorted(set(drawn.dataset) & set(SOUND))
    if unseen or alarms or len(drawn) > len(kinds):
        text = (f"NOT SHOWN: in drawn lists {len(drawn)} faults are found where there are {len(kinds)}; kinds that are "
                f"not found: {', '.join(unseen) or 'none'}; sound lists with a fault: {', '.join(alarms) or 'none'}. ")
    else:
        text = f"Each of the {len(kinds)} kinds of fault is found where it was drawn, and none in lists drawn without. "
    if published.empty:
        text += ("No published list is here, or none has a fault: `featherseg download kvasir_seg` (or another set) "
                 "fetches its lists, `data.mirror` reads them from a folder. ")
    else:
        text += (f"{len(published)} faults in the published lists of {published.dataset.nunique()} sets: "
                 f"{', '.join(published.dataset.unique())}. ")
    return (f"{text}`featherseg prepare` corrects those that can be, `featherseg check` tells them; "
            "`data.keep_published_faults` keeps the rows as they are.")


def empty_masks(empty: int = 133, images: int = 780) -> "pd.DataFrame":
    """Trap 12: DSC and HD95 of each case, and the mean DSC of a set with empty masks, by each convention.

    Returns:
        case, DSC by the three conventions (NaN: left out), HD95 of MONAI and of this package (pixels).
    """
    import pandas as pd
    from monai.metrics import compute_dice, compute_hausdorff_distance

    lines = []
    for case, (prediction, truth) in zip(CASES, _pairs(), strict=True):
        ours, theirs = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth))
        with warnings.catch_warnings(action="ignore"):  # that the distance may have no value is what is shown
            distance = compute_hausdorff_distance(ours, theirs, include_background=True, percentile=95)
        lines.append({"case": case, **{f"DSC, {name}": float(compute_dice(ours, theirs, ignore_empty=flag))
                                       for name, flag in ((LEFT_OUT, True), (COUNTED, False))},
                      f"DSC, {HERE}": dice(prediction, truth), "HD95, MONAI": float(distance),
                      f"HD95, {HERE}": hd95(prediction, truth)})
    frame = pd.DataFrame(lines).replace({float("inf"): float("nan")})
    means = {}
    for name in (LEFT_OUT, COUNTED, HERE):
        both, found = frame[f"DSC, {name}"][1:3]
        values = pd.Series([0.8] * (images - empty) + [found] * (empty // 2) + [both] * (empty - empty // 2))
        means[f"DSC, {name}"] = values.mean()  # leaves NaN out, as MONAI's own mean does
    return pd.concat([frame, pd.DataFrame([{"case": f"mean, {empty} of {images} empty", **means}])], ignore_index=True)


def empty_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: which cases each convention leaves out or counts, and what that makes of one model's mean."""
    def cell(case: str, name: str) -> float:
        return frame.set_index("case").loc[case, f"DSC, {name}"]

    means = {name: cell(frame.case.iloc[-1], name) for name in (LEFT_OUT, COUNTED, HERE)}
    agree = all(cell(case, COUNTED) == cell(case, HERE) for case in CASES[1:])
    left_out = [case for case in CASES if cell(case, LEFT_OUT) != cell(case, LEFT_OUT)]
    unknown = frame[frame.case.isin(CASES) & frame["HD95, MONAI"].isna()].case
    percent = {name: f"{100 * mean:.1f} %" for name, mean in means.items()}
    return (f"MONAI by default leaves out: {'; '.join(left_out) or 'no case'}. So one and the same model has a mean "
            f"DSC of {percent[LEFT_OUT]}, with the flag {percent[COUNTED]}, here {percent[HERE]} (here and with the "
            f"flag each case is {'the same' if agree else 'NOT the same'}). MONAI's HD95 has no value in "
            f"{len(unknown)} of {len(CASES)} cases; here it is 0 where both are empty and the image's diagonal where "
            "one is. Empty masks are counted beside every mean.")


def _outputs(model: SegmentationModel, blocks: str, pixels: Tensor, every: bool = False) -> list[Tensor]:
    """What each block of a vision tower puts out for an image; `every` runs those too that the taps do not reach."""
    layers, seen, handles = model.eval().get_submodule(blocks), {}, []
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


def _cris(length: int, how: str) -> SegmentationModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CRIS("cris", cris_config.small_config(), 64, length, how).eval()


def _drawn_set(images: int) -> tuple[list[Sample], dict[tuple[str, str], float]]:
    """Drawn samples, and the DSC in % of one random model on each of them with each of its prompts."""
    from featherseg.data.synthetic import draw
    from featherseg.tasks.segmentation.predict import predict_probabilities

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = small_config(width=32, text_width=32, depth=4, image_size=32, taps=(0, 1, 2), reduce_dim=16)
        model = CLIPSeg(config, 32)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)  # so that its masks are neither full nor empty
    samples, asked = [], []
    for number in range(images):
        scene = draw("organs", number, 0, 32)
        for target in scene.targets:
            prompts = {level: texts for level, texts in target.prompts.items() if level not in ("p0", "unique")}
            samples.append(Sample("organs", f"organs/{number}/{target.name}", str(number), str(number), "test",
                                  target.name, str(number), "", 32, 32, (0, 0, 0, 0), 0.0, {}, prompts))
            asked += [(samples[-1], text, scene.image, target.mask) for texts in prompts.values() for text in texts]
    maps = predict_probabilities(model.eval(), [image for _, _, image, _ in asked], [text for _, text, _, _ in asked])
    return samples, {(sample.sample_id, text): 100 * dice(probabilities > 0.5, mask)
                     for (sample, text, _, mask), probabilities in zip(asked, maps, strict=True)}


def _mean(scored: Mapping[tuple[str, str], float], chosen) -> float:
    found = sorted(scored[sample.sample_id, text] for sample, text in chosen)
    return sum(found) / len(found)


def _draw_lists(root: Path) -> dict[str, Path]:
    """Write the lists of `FAULTY` and `SOUND`; their folders by dataset."""
    for dataset, lists in (FAULTY | SOUND).items():
        for name, rows in lists.items():
            write_json(root / dataset / f"{name}.json",
                       [{"img_name": image, "mask_name": mask, "prompts": {"p1": text}} for image, mask, text in rows])
    return {dataset: root / dataset for dataset in FAULTY | SOUND}


def _lists_here() -> dict[str, Path]:
    mirror = read_params("study").data.mirror
    return (lists_of_medvlsm(Path(mirror) / "medvlsm") if mirror else {}) | downloaded_lists()


def _pairs() -> list[tuple["np.ndarray", "np.ndarray"]]:
    """A prediction and a truth for each of `CASES`."""
    import numpy as np

    nothing, something, moved = (np.zeros((40, 30), bool) for _ in range(3))
    something[10:20, 10:20], moved[12:22, 10:20] = True, True
    return [(moved, something), (nothing, nothing), (something, nothing), (nothing, something)]
