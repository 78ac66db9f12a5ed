"""What the reliance suite found, as figures of records, and the masks of one image under different prompts."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from featherseg.data.prepared import PreparedDataset
from featherseg.reliance.record import Condition, Modality, Scores, Shapley
from featherseg.reliance.suite import unpack
from featherseg.reliance.tables import COMPARED
from featherseg.reliance.verdict import is_drop, is_gain, tested, title
from featherseg.reporting import style
from featherseg.reporting.overlays import caption, draw_outlines
from featherseg.tasks.segmentation.text import NONE, OTHER_STRUCTURE, PERMUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODALITIES: dict[Modality, tuple[str, str]] = {
    "text": ("prompt changed, image its own", "#0072B2"),
    "image": ("image changed, prompt its own", "#D55E00")}
PLAYERS: dict[Modality, str] = {"image": "#D55E00", "text": "#0072B2"}
SHOWN = ("own", NONE, "class_only", OTHER_STRUCTURE, "other_sample", PERMUTED, "flip_location", "flip_colour",
         "flip_size", "flip_shape", "contradictory", "random_words")
MOST_SHOWN = 8
_MOST_COMMON = 60  # letters


def changes(records: Mapping[str, Scores]) -> "Figure":
    """The change of DSC under every intervention with its interval: one panel per record, filled where the loss or the
    gain is statistically significant."""
    most = max(len(tested(record)) for record in records.values())
    figure, axes = style.panels(len(records), width=8.4 if len(records) == 1 else 6.4, height=1.2 + 0.23 * most,
                                columns=2)
    modalities = list(MODALITIES)
    for axis, (name, record) in zip(axes, records.items(), strict=True):
        order = sorted(tested(record), key=lambda condition: modalities.index(condition["modality"]))
        for place, condition in enumerate(order):
            whisker(axis, place, condition, MODALITIES[condition["modality"]][1])
        axis.axvline(0, color="#555555", linewidth=1)
        axis.set(title=name, xlabel="change of DSC (points)", ylim=(len(order) - 0.4, -0.6))
        axis.set_yticks(range(len(order)), [title(condition["condition"]) for condition in order])
        axis.grid(axis="y", visible=False)
    _explain(figure, axes[0])
    return figure


def exchanges(records: Mapping[str, Scores]) -> "Figure":
    """The change of DSC with its interval under the interventions behind the verdict: one panel per intervention, one
    line per model or control, filled where the loss or the gain is statistically significant."""
    panels = {name: found for name, key in COMPARED.items() if any(found := _found(records, key))}
    figure, axes = style.panels(max(len(panels), 1), width=3.2, height=1 + 0.24 * len(records), sharey=True)
    figure.set_layout_engine("constrained", h_pad=0.1)
    for axis, (name, conditions) in zip(axes, panels.items(), strict=False):
        colour = MODALITIES[COMPARED[name][0]][1]
        for place, condition in enumerate(conditions):
            if condition:
                whisker(axis, place, condition, colour)
        axis.axvline(0, color="#555555", linewidth=1)
        axis.set(title=name, xlabel="change of DSC (points)", ylim=(len(records) - 0.4, -0.6))
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(records)), list(records))
    _explain(figure, axes[0])
    return figure


def _found(records: Mapping[str, Scores], key: tuple[Modality, str]) -> list[Condition | None]:
    """One intervention in each record; None where it was not made, or asked for nothing of its own."""
    found: list[Condition | None] = []
    for record in records.values():
        made = [condition for condition in tested(record) if (condition["modality"], condition["condition"]) == key]
        found.append(made[0] if made else None)
    return found


def _explain(figure: "Figure", axis: "Axes") -> None:
    """A legend of what colours and filled dots mean."""
    for label, colour in MODALITIES.values():
        axis.plot([], [], "o", color=colour, label=label)
    axis.plot([], [], "o", markerfacecolor="white", markeredgecolor="#555555", label="not significant")
    figure.legend(loc="outside lower center", ncols=3)


def whisker(axis: "Axes", place: float, condition: Condition, colour: str) -> None:
    """An intervention's change of DSC with its interval on a line of a chart; filled where it is significant."""
    low, high = condition["low"], condition["high"]
    if low is not None and high is not None:
        ends = [-100 * high, -100 * low]
        axis.plot(ends, [place, place], color=colour, linewidth=2, alpha=0.6)
    filled = colour if is_drop(condition) or is_gain(condition) else "white"
    axis.plot(-100 * condition["drop"], place, "o", color=colour, markersize=6, markerfacecolor=filled)


def shares(records: Mapping[str, Scores]) -> "Figure":
    """Shapley values of image and text in DSC, one bar per model, split into the two; hatched where nothing is
    gained."""
    from matplotlib.patches import Patch

    figure, (axis,) = style.panels(1, width=8.4, height=0.9 + 0.36 * len(records))
    for place, record in enumerate(records.values()):
        _bar(axis, place, record["shapley"])
    axis.axvline(0, color="#555555", linewidth=1)
    axis.set(xlabel="gain in DSC over empty prompt and mean-colour image (points)", ylim=(len(records) - 0.4, -0.6))
    axis.set_yticks(range(len(records)), list(records))
    axis.grid(axis="y", visible=False)
    handles = [Patch(color=colour, label=f"due to the {player}") for player, colour in PLAYERS.items()]
    handles.append(Patch(facecolor="white", edgecolor="#777777", hatch="////", label="no gain to share out"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _bar(axis: "Axes", place: int, shapley: Shapley) -> None:
    """One model's values side by side; a negative one starts at zero."""
    start, shared = 0.0, shapley["shares"]
    for player, colour in PLAYERS.items():
        value = 100 * shapley[player]["value"]
        axis.barh(place, value, left=start if value > 0 else 0, height=0.62, edgecolor=colour,
                  color=colour if shared else "white", hatch=None if shared else "////",
                  label=player if place == 0 else None)
        if shared and abs(value) > 7:
            axis.text(start + value / 2, place, f"{100 * shared[player]['value']:.0f} %", color="white", ha="center",
                      va="center", fontsize=9, fontweight="bold")
        start += max(value, 0)


def following(records: Mapping[str, Scores]) -> "Figure | None":
    """IoU between the mask for each structure's prompt (rows) and each structure's truth (columns), one panel per
    record; None where no record has such a matrix."""
    matrices = {}
    for name, record in records.items():
        if (scores := record["following"]) and (matrix := scores["matrix"]):
            matrices[name] = matrix
    if not matrices:
        return None
    longest = max(len(matrix["names"]) for matrix in matrices.values())
    side = max(2.5, 0.55 * longest + 1.5)
    figure, axes = style.panels(len(matrices), width=side + 0.6, height=side, columns=3)
    for axis, (name, matrix) in zip(axes, matrices.items(), strict=True):
        values = 100 * np.array(matrix["iou"], dtype=float)
        axis.imshow(values, vmin=0, vmax=100, cmap="Blues")
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8.5,
                          color="white" if value > 55 else "#222222")
        axis.set_title(name, fontsize=9.5)
        axis.set(xlabel="truth", ylabel="prompt")
        axis.set_xticks(range(len(values)), matrix["names"], rotation=40, ha="right", rotation_mode="anchor",
                        parse_math=False)
        axis.set_yticks(range(len(values)), matrix["names"], parse_math=False)
        axis.grid(False)
    return figure


def same_image(trials: pd.DataFrame, dataset: PreparedDataset) -> list["Figure"]:
    """The masks of each image that was kept, of the structure that its own prompt finds best, under different prompts:
    one figure per image."""
    kept = trials[trials["mask"].notna() & (trials.image_condition == "own")] if "mask" in trials else trials[:0]
    samples = {sample.sample_id: sample for sample in dataset.samples}
    figures = []
    for _, of_image in kept.groupby(["dataset", "image_id"], sort=False):
        own = of_image[of_image.text_condition == "own"].set_index("sample_id")
        sample = samples[own.dsc.idxmax()]
        rows = of_image[of_image.sample_id == sample.sample_id].drop_duplicates(["text_condition", "prompt"])
        rows = rows.drop_duplicates("prompt").set_index("text_condition", drop=False)
        chosen: list[Any] = []
        for name in SHOWN:
            if name in rows.index:
                chosen += rows.loc[[name]].itertuples()
        figures.append(_panels_of(chosen[:MOST_SHOWN], dataset.image(sample), dataset.mask(sample), sample.target))
    return figures


def _panels_of(rows: Sequence[Any], image: np.ndarray, truth: np.ndarray, target: str) -> "Figure":
    figure, axes = style.panels(len(rows), width=2.35, height=3.6, columns=4)
    figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.05)
    prompts = told_apart([row.prompt for row in rows])
    for axis, row, prompt in zip(axes, rows, prompts, strict=True):
        draw_outlines(axis, image, truth, unpack(row.mask, row.height, row.width))
        name = "own prompt" if row.text_condition == "own" else title(row.text_condition)
        axis.set_title(f"{name}\nDSC {100 * row.dsc:.0f} %", fontsize=8.5, loc="left")
        axis.set_xlabel(caption(prompt, 34) if prompt else "(empty)", fontsize=7.5, loc="left",
                        parse_math=False)  # a prompt may hold a dollar
    figure.suptitle(f"asked for: {target}", fontsize=9.5, x=0.01, ha="left", parse_math=False)
    return figure


def told_apart(prompts: Sequence[str]) -> list[str]:
    """Prompts as captions show them: where one begins with more than `_MOST_COMMON` letters of another, these are left
    out but for the last word, since a caption has room for the beginning only."""
    shown = []
    for prompt in prompts:
        common = max((_common_words(prompt, other) for other in prompts if other != prompt), default=0)
        words, left_out = prompt.split(), max(0, common - 1)
        begins = " ".join(words[:left_out])
        shown.append(f"… {' '.join(words[left_out:])}" if len(begins) > _MOST_COMMON else prompt)
    return shown


def _common_words(prompt: str, other: str) -> int:
    """How many words two prompts begin with in common."""
    pairs = zip(prompt.split(), other.split(), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
