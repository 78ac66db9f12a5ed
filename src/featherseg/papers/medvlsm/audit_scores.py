"""Evidence, computed on the spot, for what a score of the medical papers depends on: which prompt is drawn, and what an
empty mask counts.

As in `audit.py`, each verdict is read off its measurement.
"""

import random
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from featherseg.data.prepared import Sample
from featherseg.models.clipseg.model import CLIPSeg, small_config
from featherseg.papers.medvlsm.audit_lists import faults_of_lists, lists_verdict
from featherseg.reporting import tables
from featherseg.reporting.audit import OURS, shown
from featherseg.tasks.segmentation.metrics import dice, hd95

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DRAWN, SEEDED, FULLEST = (
    "drawn one after another (released code)", "random, seeded by the sample (here)", "fullest (here)")
LEFT_OUT, COUNTED, HERE = "MONAI, ignore_empty=True (its default)", "MONAI, ignore_empty=False", OURS
CASES = ("masks that overlap", "nothing to find, nothing found", "nothing to find, something found",
         "something to find, nothing found")


def scores() -> list:
    """Traps 8, 11 and 12 for a notebook, each with a heading, prose, a table and a verdict."""
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
    _, texts, pictures, _ = zip(*asked, strict=True)
    maps = predict_probabilities(model.eval(), list(pictures), list(texts))
    return samples, {(sample.sample_id, text): 100 * dice(probabilities > 0.5, mask)
                     for (sample, text, _, mask), probabilities in zip(asked, maps, strict=True)}


def _mean(scored: Mapping[tuple[str, str], float], chosen: Iterable[tuple[Sample, str]]) -> float:
    found = sorted(scored[sample.sample_id, text] for sample, text in chosen)
    return sum(found) / len(found)


def _pairs() -> list[tuple["np.ndarray", "np.ndarray"]]:
    """A prediction and a truth for each of `CASES`."""
    import numpy as np

    nothing, something, moved = (np.zeros((40, 30), bool) for _ in range(3))
    something[10:20, 10:20], moved[12:22, 10:20] = True, True
    return [(moved, something), (nothing, nothing), (something, nothing), (nothing, something)]
