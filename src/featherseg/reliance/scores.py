"""What the table of trials says: drops, perceptual scores, Shapley shares, following and sensitivity.

All of them are means over samples with intervals from one bootstrap over groups (`statistics.Groups`), in DSC between
0 and 1. Where a condition gives a sample several masks (one for each other structure) their mean counts.
"""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from featherseg.reliance.record import (
    Condition,
    Following,
    Interval,
    Matrix,
    Modality,
    Perceptual,
    Scores,
    Shapley,
)
from featherseg.reliance.statistics import CONFIDENCE, Groups, holm, rank_biserial
from featherseg.tasks.segmentation import image, text
from featherseg.tasks.segmentation.image import BLUR, IMAGE, MEAN_COLOUR, OTHER_IMAGE
from featherseg.tasks.segmentation.metrics import EMPTY_RULE
from featherseg.tasks.segmentation.text import NONE, OTHER_STRUCTURE, PERMUTED, TEXT

DRAWS = 2000
# what the verdict rests on
PRIMARY = (("text", PERMUTED), ("text", OTHER_STRUCTURE), ("image", OTHER_IMAGE), ("image", MEAN_COLOUR),
           ("image", BLUR))
NEAR_ZERO = 0.05  # a gain in DSC below which there is nothing to share out
ABSENT = {"image": "the image's mean colour everywhere", "text": "the empty prompt"}
OWN = (text.OWN, image.OWN)
MOST_TARGETS = 12  # names up to which the matrix of following is given by name


def score(trials: pd.DataFrame, seed: int, draws: int = DRAWS) -> Scores:
    """All scores of a table of trials (`suite.run`) of one split, as plain values; an interval's ends `low` and `high`
    are None where there are too few groups for one.

    Returns:
        n_images, n_samples, n_groups, n_empty_truth; own: DSC with its interval, IoU; conditions: a record for each
        intervention (`_conditions`); perceptual: by modality; shapley; following, None where no image has several
        structures with prompts of their own; and the conventions: confidence, draws, empty_masks.
    """
    dsc, same = _wide(trials, "dsc"), _wide(trials, "iou_with_own")
    samples = trials.drop_duplicates("sample_id").set_index("sample_id").loc[dsc.index]
    groups = Groups(samples.group.tolist(), draws, seed)
    conditions = _conditions(trials, dsc, same, groups)
    return {
        "n_images": samples.groupby(["dataset", "image_id"]).ngroups, "n_samples": len(samples),
        "n_groups": groups.count, "n_empty_truth": int(samples.empty_truth.sum()), "confidence": CONFIDENCE,
        "draws": draws, "empty_masks": EMPTY_RULE,
        "own": {**_means(groups, dsc[[OWN]])[0], "iou": float(_wide(trials, "iou")[OWN].mean())},
        "conditions": conditions, "perceptual": perceptual(dsc, groups), "shapley": shapley(dsc, groups),
        "following": following(trials, seed, draws)}


def perceptual(dsc: pd.DataFrame, groups: Groups) -> dict[Modality, Perceptual | None]:
    """Perceptual score of each modality (Gat et al. 2021): what is lost when it is permuted among the samples, as a
    share of what the model reaches; None where nothing was permuted or nothing is reached.

    Args:
        dsc: (samples, conditions).
    """
    by_modality: dict[Modality, Perceptual | None] = {}
    exchanged: dict[Modality, tuple[str, str]] = {"text": (PERMUTED, image.OWN), "image": (text.OWN, OTHER_IMAGE)}
    for modality, name in exchanged.items():
        by_modality[modality] = None
        if name in dsc and dsc[OWN].mean() > 0:
            drawn = groups.bootstrap(dsc[[OWN, name]].to_numpy())
            with np.errstate(divide="ignore", invalid="ignore"):
                low, high = groups.interval(1 - drawn[:, 1] / drawn[:, 0])
            by_modality[modality] = {"score": float(1 - dsc[name].mean() / dsc[OWN].mean()), "low": low, "high": high}
    return by_modality


def shapley(dsc: pd.DataFrame, groups: Groups) -> Shapley:
    """Shapley values of the two players image and text in the game of the mean DSC.

    Absent are `ABSENT`. A player's value is its mean gain over the two orders in which both may enter, so the two
    add up to the gain of both over neither. Shares of the gain are given only where it is at least `NEAR_ZERO` and
    its interval lies above zero; a share may be negative, or more than 1, where a modality alone does harm.

    Args:
        dsc: (samples, conditions).
    """
    coalitions = {"both": OWN, "image": (NONE, image.OWN), "text": (text.OWN, MEAN_COLOUR),
                  "neither": (NONE, MEAN_COLOUR)}
    values = dsc[list(coalitions.values())].to_numpy()
    means = values.mean(axis=0)
    drawn = groups.bootstrap(values)
    gain_drawn, image_drawn, text_drawn = _players(*drawn.T)
    gain, image_value, text_value = _players(*means)
    game: Shapley = {
        "absent": ABSENT, "dsc": dict(zip(coalitions, means.tolist(), strict=True)),
        "gain": _with_interval(gain, gain_drawn, groups), "shares": None,
        "image": _with_interval(image_value, image_drawn, groups),
        "text": _with_interval(text_value, text_drawn, groups)}
    low = game["gain"]["low"]
    if gain < NEAR_ZERO:
        place = "near" if gain > -NEAR_ZERO else "below"
        game["why_no_shares"] = f"the gain of both over neither is {place} zero ({gain:.3f} DSC)"
    elif low is None or low <= 0:
        game["why_no_shares"] = f"the gain of both over neither ({gain:.3f} DSC) is not significantly above zero"
    else:
        positive = np.where(gain_drawn > 0, gain_drawn, np.nan)
        game["shares"] = {"image": _with_interval(image_value / gain, image_drawn / positive, groups),
                          "text": _with_interval(text_value / gain, text_drawn / positive, groups)}
    return game


def _with_interval(value: float, drawn: np.ndarray, groups: Groups) -> Interval:
    low, high = groups.interval(drawn)
    return {"value": float(value), "low": low, "high": high}


def _players(both: Any, only_image: Any, only_text: Any, neither: Any) -> tuple[Any, Any, Any]:
    """Gain, and the image's and the text's Shapley value."""
    image_value = 0.5 * ((only_image - neither) + (both - only_text))
    text_value = 0.5 * ((only_text - neither) + (both - only_image))
    return both - neither, image_value, text_value


def following(trials: pd.DataFrame, seed: int, draws: int = DRAWS) -> Following | None:
    """Whether the mask goes where the prompt says, on images with several structures; None where no image has.

    On each such image the IoU between the mask for structure i's prompt and the truth of structure j makes a matrix.
    `accuracy`: how often a row's largest value lies on the diagonal, beside `chance`; values that are equally large
    share the credit. `moved`: of ordered pairs (i, j), how often the mask for i lies more on i than on j and the mask
    for j more on j than on i, so that the swapped prompt took it along; 0 for a model that ignores its prompt, at
    most 1/4 for one that answers at random.
    Structures with an empty mask, and those that share their prompt, take no part and are counted.
    """
    asked = trials[(trials.image_condition == image.OWN) & trials.text_condition.isin([text.OWN, OTHER_STRUCTURE])]
    usable = asked[(asked.prompt_of != "") & ~asked.empty_truth]
    rows, pairs, entries = [], [], []
    for number, (_, of_image) in enumerate(usable.groupby(["dataset", "image_id"])):
        pairs_of_names = zip(of_image.prompt_of, of_image.target, strict=True)
        iou = dict(zip(pairs_of_names, of_image.iou, strict=True))
        names, group = sorted(i for i, j in iou if i == j), of_image.group.iloc[0]
        if len(names) < 2:
            continue
        ordered = list(itertools.product(names, names))
        values = np.array([iou[pair] for pair in ordered]).reshape(len(names), len(names))
        entries += [(*pair, iou[pair]) for pair in ordered]
        for a in range(len(names)):
            largest = values[a] == values[a].max()
            rows.append((number, group, largest[a] / largest.sum(), 1 / len(names)))
            pairs += [(group, float(values[a, a] > values[a, b] and values[b, b] > values[b, a]))
                      for b in range(len(names)) if b != a]
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["image", "group", "hit", "chance"])
    moved = pd.DataFrame(pairs, columns=["group", "moved"])
    by_name = pd.DataFrame(entries, columns=["prompt", "truth", "iou"]).pivot_table(
        index="prompt", columns="truth", values="iou")
    n_samples = asked.sample_id.nunique()
    on_diagonal = [iou for prompt, truth, iou in entries if prompt == truth]
    off_diagonal = [iou for prompt, truth, iou in entries if prompt != truth]
    return {"n_images": int(table.image.nunique()), "n_structures": len(table), "n_left_out": n_samples - len(table),
            "accuracy": _means(Groups(table.group.tolist(), draws, seed), table[["hit"]])[0],
            "chance": float(table.chance.mean()), "n_pairs": len(moved),
            "moved": _means(Groups(moved.group.tolist(), draws, seed), moved[["moved"]])[0],
            "on_diagonal": float(np.mean(on_diagonal)), "off_diagonal": float(np.mean(off_diagonal)),
            "matrix": _matrix(by_name) if len(by_name) <= MOST_TARGETS else None}


def _matrix(by_name: pd.DataFrame) -> Matrix:
    """Names, and the mean IoU of the mask for each one's prompt (rows) with each one's truth; None: never together."""
    rows = []
    for row in by_name.to_numpy():
        rows.append([None if np.isnan(value) else float(value) for value in row])
    return {"names": by_name.index.tolist(), "iou": rows}


def _conditions(trials: pd.DataFrame, dsc: pd.DataFrame, same: pd.DataFrame, groups: Groups) -> list[Condition]:
    """A record for each intervention: mean DSC; drop against the same samples' own DSC with its interval, test and
    effect sizes; and `changed`: 1 minus the IoU between the masks with and without it, which needs no truth.

    P-values are corrected (Holm) among the interventions of `PRIMARY`, and among all others. What asked for the same
    prompts as another intervention (`same_as`, else None) is tested with that one, and counted once.
    """
    names = [name for name in dsc.columns if (name[0] == OWN[0]) != (name[1] == OWN[1])]
    drops = dsc[names].rsub(dsc[OWN], axis=0).round(12)  # a mean of equal values may differ from them in its last bit
    counts, same_as = _counts(trials), _repeated(trials)
    records: list[Condition] = []
    for name, drop, changed in zip(names, _means(groups, drops), _means(groups, 1 - same[names]), strict=True):
        differences, counted = drops[name].to_numpy(), counts.loc[name]
        modality: Modality = "text" if name[1] == image.OWN else "image"
        records.append({
            "modality": modality, "condition": name[0 if modality == "text" else 1],
            "same_as": same_as.get(name[0]) if modality == "text" else None,
            "n": int(np.isfinite(differences).sum()), "n_not_measured": int(np.isnan(differences).sum()),
            "n_empty_prediction": int(counted.n_empty_prediction), "n_own_prompt": int(counted.n_own_prompt),
            "n_cut": int(counted.n_cut), "dsc": float(dsc[name].mean()), "drop": drop["value"],
            "low": drop["low"], "high": drop["high"], "p": groups.sign_flip_test(differences),
            "effect": groups.effect(differences), "rank_biserial": rank_biserial(differences), "changed": changed,
            "p_holm": 1.0})
    corrected = {text.OWN: 1.0}
    for family in (True, False):
        members = [record for record in records if record["same_as"] is None
                   and ((record["modality"], record["condition"]) in PRIMARY) == family]
        names_of_family = [member["condition"] for member in members]
        corrected |= zip(names_of_family, holm([member["p"] for member in members]), strict=True)
    for record in records:
        record["p_holm"] = corrected[record["same_as"] or record["condition"]]
    return records


def _repeated(trials: pd.DataFrame) -> dict[str, str]:
    """Text interventions that asked for nothing of their own, by name: `own` where the model reads each prompt as the
    sample's own one, else an intervention whose prompts it reads alike, one of `PRIMARY` or else the first."""
    asked = trials[trials.image_condition == image.OWN]
    prompts = {}
    for name, rows in asked.groupby("text_condition"):
        prompts[name] = frozenset(zip(rows.sample_id, rows.read_as, strict=True))
    first: dict[frozenset[tuple[str, str]], str] = {}
    repeated: dict[str, str] = {}
    others = [name for name in TEXT if name in prompts and name != text.OWN]
    for name in sorted(others, key=lambda name: ("text", name) not in PRIMARY):
        if prompts[name] <= prompts[text.OWN]:
            repeated[name] = text.OWN
        elif prompts[name] in first:
            repeated[name] = first[prompts[name]]
        else:
            first[prompts[name]] = name
    return repeated


def _counts(trials: pd.DataFrame) -> pd.DataFrame:
    """By condition: empty masks, samples that kept their own prompt although another one was wanted, and masks whose
    prompt was cut."""
    names = ["text_condition", "image_condition"]
    own = trials[(trials.text_condition == text.OWN) & (trials.image_condition == image.OWN)]
    kept = trials.read_as == trials.sample_id.map(own.set_index("sample_id").read_as)
    flags = {"n_empty_prediction": trials.empty_prediction, "n_own_prompt": kept & (trials.text_condition != text.OWN),
             "n_cut": trials.cut}
    return trials[names].assign(**flags).groupby(names).sum()


def _means(groups: Groups, values: pd.DataFrame) -> list[Interval]:
    """Mean of each column with its interval."""
    numbers = values.to_numpy(dtype=float)
    drawn, measured = groups.bootstrap(numbers), groups.measured(numbers)
    intervals = [groups.interval(column, int(count)) for column, count in zip(drawn.T, measured, strict=True)]
    return [{"value": float(values.iloc[:, k].mean()), "low": low, "high": high}
            for k, (low, high) in enumerate(intervals)]


def _wide(trials: pd.DataFrame, value: str) -> pd.DataFrame:
    """One row per sample, one column per (text, image) condition in the order of the registers; NaN: not measured."""
    wide = trials.pivot_table(index="sample_id", columns=["text_condition", "image_condition"], values=value)
    order = [(name, image.OWN) for name in TEXT]
    order += [(text.OWN, name) for name in IMAGE if name != image.OWN]
    order.append((NONE, MEAN_COLOUR))
    return wide[[name for name in order if name in wide]]
