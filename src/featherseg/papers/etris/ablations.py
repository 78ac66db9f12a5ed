"""The ablations of ETRIS's Bridger and head, one knob at a time."""

import itertools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from featherseg.models.etris.config import HEAD_PARTS
from featherseg.papers.etris.accuracy import accuracy, usual_bridger
from featherseg.papers.etris.counts import BRIDGER, WIDTHS, full_size
from featherseg.reporting.experiments import with_experiments
from featherseg.reporting.study import Study
from featherseg.reporting.tables import FROM, honest

# `model.head_parts` without one part each: combinations leave out the last part first
WITHOUT_ONE_PART = tuple(map("+".join, itertools.combinations(HEAD_PARTS, len(HEAD_PARTS) - 1)))[::-1]
KNOBS: Mapping[str, tuple] = {
    "dim": WIDTHS,
    "stages": (1, 2, 3),
    "direction": ("both", "text_to_vision", "vision_to_text"),
    "head_parts": ("", *WITHOUT_ONE_PART),
}
# whose parameters are counted at full size
COUNTED = tuple(itertools.product(("etris_r50", "etris_vit"), ("Bridger", "head")))


def ablations(study: Study) -> pd.DataFrame:
    """What the Bridger's width, stages and direction and the head's parts change: parameters at full size; accuracy in
    %, trainable parameters and memory of this study's runs that differ in nothing else from its Bridger. A line says
    which values were not run.

    Runs are those of this study, and of the experiments of this commit that changed these knobs alone.
    """
    results = with_experiments(study, [f"{'model' if knob == 'head_parts' else 'adapter'}.{knob}" for knob in KNOBS])
    declared = results[(results.adapter == BRIDGER) & ~results.released]
    rows = accuracy(declared)
    if rows.empty:
        reasons = "; ".join(sorted(set(declared.reason) - {""})) or f"no Bridger in study '{study.name}'"
        lines = _ablation_lines({}, rows, f"not run: {reasons}")
    else:
        lines = []
        for (dataset, model), part in rows.groupby(["dataset", "model"], sort=False):
            lines += _ablation_lines({"dataset": dataset, "model": model}, part, "not run")
    counted = [f"{part}, {model}" for model, part in COUNTED]
    made = ["measure", "accuracy", "trainable", "memory (MiB)"]
    columns = ["dataset", "model", "knob", "value", *counted, *made, FROM, "data"]
    frame = pd.DataFrame(lines, columns=columns if len(rows) else columns[2:])
    frame["memory (MiB)"] = frame["memory (MiB)"].astype(float).round()
    whole = dict.fromkeys([*counted, "trainable", "memory (MiB)"], "Int64")
    return honest(frame.astype(whole | {"accuracy": float}))


def _ablation_lines(known: dict[str, Any], rows: pd.DataFrame, missing: str) -> list[dict[str, Any]]:
    """A line for each value of each knob, in the runs of one model on one dataset.

    Args:
        known: the columns that all lines share.
        rows: the runs' accuracy.
        missing: what a line says where its value was not run.
    """
    lines = []
    for knob, values in KNOBS.items():
        alike = rows if rows.empty else rows[_alike(rows, usual_bridger(rows), knob)]
        by_value = dict(iter(alike.groupby(knob)))
        for value in [*values, *sorted(set(by_value) - set(values))]:
            sizes = {f"{part}, {model}": _size(model, knob, value, part.lower()) for model, part in COUNTED}
            setting = {"knob": knob.replace("_", " "), "value": _value_text(knob, value)}
            lines.append(known | setting | sizes | _ablation(by_value.get(value), missing))
    return lines


def _value_text(knob: str, value: Any) -> str:
    """A knob's value as tables call it."""
    if knob != "head_parts":
        return value if isinstance(value, str) else f"{value:g}"
    missing = [part.replace("_", " ") for part in HEAD_PARTS if part not in value.split("+")]
    return f"without {' and '.join(missing)}" if value else "all three parts"


def _ablation(rows: pd.DataFrame | None, missing: str) -> dict[str, Any]:
    if rows is None:
        return {FROM: missing, "data": ""}
    first = rows.iloc[0]
    return {"measure": first.measure, "accuracy": rows.accuracy.mean(), "data": first.data,
            "trainable": int(first.trainable_parameters), "memory (MiB)": rows.memory.mean(),
            FROM: f"{first.data}, split {first.split}"}


def _size(model: str, knob: str, value: Any, part: str) -> int:
    return full_size(model, **{knob: value if isinstance(value, str) else int(value)})[part]


def _alike(rows: pd.DataFrame, usual: pd.Series, knob: str) -> pd.Series:
    """Which rows differ from the usual Bridger's in this knob at most."""
    alike = pd.Series(True, rows.index)
    for other in set(KNOBS) - {knob}:
        alike &= rows[other] == usual[other]
    return alike
