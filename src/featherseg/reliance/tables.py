"""What the reliance suite found, as tables of a record.

A record is what `reliance.measure` gives; drops are shown as changes of DSC in points, so a loss is negative.
"""

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from featherseg.reliance.controls import BOTH, IMAGE_ONLY, LANGUAGE_ONLY, NEITHER
from featherseg.reliance.record import Condition, Interval, Modality, Record, Scores
from featherseg.reliance.verdict import (
    CANNOT_TELL,
    MISLED,
    UNDECIDED,
    Conditions,
    is_drop,
    is_gain,
    tested,
    title,
    verdict,
)
from featherseg.tasks.segmentation.image import BLUR, MEAN_COLOUR, OTHER_IMAGE
from featherseg.tasks.segmentation.text import NONE, OTHER_STRUCTURE, OWN, PERMUTED

# what decides, as a headline says it
HEADLINES = {BOTH: "image and language decide together", MISLED: "the image decides, foreign prompts mislead",
             IMAGE_ONLY: "the image decides, the prompt is not shown to",
             LANGUAGE_ONLY: "the prompt decides, the image is not shown to",
             NEITHER: "neither image nor prompt is shown to decide",
             UNDECIDED: "too few images to tell what decides", CANNOT_TELL: "this set cannot tell what decides"}
CHANGED = {"text": "prompt", "image": "image"}  # by modality
COUNTS: dict[str, Literal["n_not_measured", "n_own_prompt", "n_cut", "n_empty_prediction"]] = {
    "not measured": "n_not_measured", "same prompt": "n_own_prompt", "cut prompt": "n_cut",
    "empty masks": "n_empty_prediction"}
# the interventions of `comparison`, by column
COMPARED: dict[str, tuple[Modality, str]] = {
    "prompts permuted": ("text", PERMUTED),
    "another structure's prompt": ("text", OTHER_STRUCTURE),
    "no prompt": ("text", NONE),
    "class only": ("text", "class_only"),
    "images permuted": ("image", OTHER_IMAGE),
    "mean colour": ("image", MEAN_COLOUR),
    "blurred": ("image", BLUR),
}


def effects(record: Record) -> pd.DataFrame:
    """One line per intervention: DSC, its change with interval, test and effect sizes, and how the mask changed; one
    that asks for the same prompts as another has no line."""
    own = record["own"]
    low, high = own["low"], own["high"]
    between = "–" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"
    lines = [{"changed": "nothing", "intervention": "own image, own prompt", "n": record["n_samples"],
              "DSC %": 100 * own["value"], "change": None, "95 % interval": between}]
    lines += [_effect(condition) for condition in tested(record)]
    numbers = dict.fromkeys(COUNTS, "Int64") | dict.fromkeys(["effect d", "rank-biserial"], float)
    return pd.DataFrame(lines).astype(numbers)


def _effect(condition: Condition) -> dict[str, Any]:
    significant = "loss" if is_drop(condition) else "gain" if is_gain(condition) else ""
    line = {
        "changed": CHANGED[condition["modality"]],
        "intervention": title(condition["condition"]),
        "n": condition["n"],
        "DSC %": 100 * condition["dsc"],
        "change": points(condition["drop"]),
        "95 % interval": interval(condition["low"], condition["high"]),
        "p (Holm)": _p_value(condition["p_holm"]),
        "significant": significant,
        "effect d": _of_change(condition["effect"]),
        "rank-biserial": _of_change(condition["rank_biserial"]),
        "mask changed %": 100 * condition["changed"]["value"],
    }
    return line | {column: condition[key] for column, key in COUNTS.items()}


def comparison(records: Mapping[str, Scores]) -> pd.DataFrame:
    """One line per model or control, by name: what decides, and the scores behind it, those that the data allow;
    `figures.exchanges` draws their intervals. A star marks a significant change.

    `hit`: how often the mask lies most on the structure that was asked for; `moved`: how often a swapped prompt takes
    it along.
    """
    lines = []
    for name, record in records.items():
        conditions: Conditions = {}
        for condition in record["conditions"]:
            conditions[condition["modality"], condition["condition"]] = condition
        shares, following = record["shapley"]["shares"], record["following"]
        hit = f"{_percent(following['accuracy'])} / {_percent(following['moved'])}" if following else "–"
        lines.append({
            "model": name, "what decides": verdict(record), "DSC %": 100 * record["own"]["value"],
            **{column: _change(conditions.get(key)) for column, key in COMPARED.items()},
            "image / text share %": f"{_percent(shares['image'])} / {_percent(shares['text'])}" if shares else "none",
            "hit / moved %": hit})
    frame = pd.DataFrame(lines)
    return frame.loc[:, ~(frame == "–").all()]


def with_controls(record: Record) -> dict[str, Scores]:
    """The model and its controls by name."""
    compared: dict[str, Scores] = {record["model"]: record}
    return compared | {f"control: {name}": control for name, control in record["controls"].items()}


def points(drop: float) -> str:
    """A drop of DSC as a signed change in points, never a negative zero."""
    return f"{round(-100 * drop, 1) + 0.0:+.1f}"


def interval(low: float | None, high: float | None) -> str:
    """The interval of a drop, as one of changes in points; a dash where there is none."""
    return "–" if low is None or high is None else f"{points(high)} to {points(low)}"


def _of_change(effect: float | None) -> float | None:
    """An effect size of a drop as one of the change, to a tenth, never a negative zero."""
    return None if effect is None else round(-effect, 1) + 0.0


def _change(one: Condition | None) -> str:
    if one is None:
        return "–"
    if one["same_as"] == OWN:
        return "could not be exchanged"
    return starred(one)


def starred(condition: Condition) -> str:
    """An intervention's change of DSC in points, with a star where it is significant."""
    return f"{points(condition['drop'])} *" if is_drop(condition) or is_gain(condition) else points(condition["drop"])


def _percent(share: Interval) -> str:
    return f"{100 * share['value'] + 0.0:.0f}"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
