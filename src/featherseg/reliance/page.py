"""What the reliance suite found, for people: tables and figures of a record, and the page of one model.

A record is what `reliance.measure` gives; drops are shown as changes of DSC in points, so a loss is negative.
"""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from featherseg.data.prepared import PreparedDataset
from featherseg.reliance.controls import BOTH, IMAGE_ONLY, LANGUAGE_ONLY, NEITHER
from featherseg.reliance.scores import NEAR_ZERO
from featherseg.reliance.statistics import FEWEST
from featherseg.reliance.suite import unpack
from featherseg.reliance.verdict import (
    CANNOT_TELL,
    LEAST_DROP,
    LEVEL,
    MISLED,
    UNDECIDED,
    gains,
    is_drop,
    is_gain,
    remarks,
    tested,
    title,
    verdict,
    wrong_controls,
)
from featherseg.reporting import style
from featherseg.reporting.page import render
from featherseg.reporting.tables import show
from featherseg.tasks.segmentation.image import BLUR, MEAN_COLOUR, OTHER_IMAGE
from featherseg.tasks.segmentation.text import NONE, OTHER_STRUCTURE, OWN, PERMUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
MODALITIES = {"text": ("prompt changed, image its own", "#0072B2"),
              "image": ("image changed, prompt its own", "#D55E00")}
HEADLINES = {BOTH: "image and language decide together", MISLED: "the image decides, foreign prompts mislead",
             IMAGE_ONLY: "the image decides, the prompt is not shown to",
             LANGUAGE_ONLY: "the prompt decides, the image is not shown to",
             NEITHER: "neither image nor prompt is shown to decide",
             UNDECIDED: "too few images to tell what decides", CANNOT_TELL: "this set cannot tell what decides"}
PLAYERS = {"image": "#D55E00", "text": "#0072B2"}
SHOWN = ("own", NONE, "class_only", OTHER_STRUCTURE, "other_sample", PERMUTED, "flip_location", "flip_colour",
         "flip_size", "flip_shape", "contradictory", "random_words")
MOST_SHOWN = 8
_MOST_COMMON = 60  # letters


def effects(record: Record) -> pd.DataFrame:
    """One line per intervention: DSC, its change with interval, test and effect sizes, and how the mask changed; one
    that asks for the same prompts as another has no line."""
    own = record["own"]
    between = "–" if own["low"] is None else f"{100 * own['low']:.1f} to {100 * own['high']:.1f}"
    lines = [{"changed": "nothing", "intervention": "own image, own prompt", "n": record["n_samples"],
              "DSC %": 100 * own["value"], "change": None, "95 % interval": between}]
    for one in tested(record):
        lines.append({
            "changed": {"text": "prompt", "image": "image"}[one["modality"]], "intervention": title(one["condition"]),
            "n": one["n"], "DSC %": 100 * one["dsc"], "change": points(one["drop"]),
            "95 % interval": interval(one["low"], one["high"]), "p (Holm)": _p_value(one["p_holm"]),
            "significant": "loss" if is_drop(one) else "gain" if is_gain(one) else "",
            "effect d": _of_change(one["effect"]),
            "rank-biserial": _of_change(one["rank_biserial"]), "mask changed %": 100 * one["changed"]["value"],
            "not measured": one["n_not_measured"], "same prompt": one["n_own_prompt"],
            "cut prompt": one["n_cut"], "empty masks": one["n_empty_prediction"]})
    frame = pd.DataFrame(lines)
    counts = ["not measured", "same prompt", "cut prompt", "empty masks"]
    return frame.astype(dict.fromkeys(counts, "Int64") | dict.fromkeys(["effect d", "rank-biserial"], float))


def comparison(records: Mapping[str, Record]) -> pd.DataFrame:
    """One line per model or control, by name: what decides, and the scores behind it, those that the data allow.

    `hit`: how often the mask lies most on the structure that was asked for; `moved`: how often a swapped prompt takes
    it along.
    """
    lines = []
    for name, record in records.items():
        conditions = {(one["modality"], one["condition"]): one for one in record["conditions"]}
        shares, following = record["shapley"]["shares"], record["following"]
        hit = f"{_percent(following, 'accuracy')} / {_percent(following, 'moved')}" if following else "–"
        lines.append({
            "model": name, "what decides": verdict({"controls": {}} | record), "DSC %": 100 * record["own"]["value"],
            "prompts permuted": _change(conditions.get(("text", PERMUTED))),
            "another structure's prompt": _change(conditions.get(("text", OTHER_STRUCTURE))),
            "no prompt": _change(conditions.get(("text", NONE))),
            "class only": _change(conditions.get(("text", "class_only"))),
            "images permuted": _change(conditions.get(("image", OTHER_IMAGE))),
            "mean colour": _change(conditions.get(("image", MEAN_COLOUR))),
            "blurred": _change(conditions.get(("image", BLUR))),
            "image / text share %": f"{_percent(shares, 'image')} / {_percent(shares, 'text')}" if shares else "none",
            "hit / moved %": hit})
    frame = pd.DataFrame(lines)
    return frame.loc[:, ~(frame == "–").all()]


def with_controls(record: Record) -> dict[str, Record]:
    """The model and its controls by name."""
    return {record["model"]: record} | {f"control: {name}": control for name, control in record["controls"].items()}


def changes(records: Mapping[str, Record]) -> "Figure":
    """The change of DSC under every intervention with its interval: one panel per record, filled where the loss or the
    gain is statistically significant."""
    figure, axes = style.panels(len(records), width=8.4 if len(records) == 1 else 6.4, height=1.2 + 0.23 * max(
        len(tested(record)) for record in records.values()), columns=2)
    for axis, (name, record) in zip(axes, records.items(), strict=True):
        order = [one for modality in MODALITIES for one in tested(record) if one["modality"] == modality]
        for place, one in enumerate(order):
            whisker(axis, place, one, MODALITIES[one["modality"]][1])
        axis.axvline(0, color="#555555", linewidth=1)
        axis.set(title=name, xlabel="change of DSC (points)", ylim=(len(order) - 0.4, -0.6))
        axis.set_yticks(range(len(order)), [title(one["condition"]) for one in order])
        axis.grid(axis="y", visible=False)
    for label, colour in MODALITIES.values():
        axes[0].plot([], [], "o", color=colour, label=label)
    axes[0].plot([], [], "o", markerfacecolor="white", markeredgecolor="#555555", label="not significant")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def whisker(axis: "Axes", place: float, one: Record, colour: str) -> None:
    """An intervention's change of DSC with its interval on a line of a chart; filled where it is significant."""
    if one["low"] is not None:
        axis.plot([-100 * one["high"], -100 * one["low"]], [place, place], color=colour, linewidth=2, alpha=0.6)
    axis.plot(-100 * one["drop"], place, "o", color=colour, markersize=6,
              markerfacecolor=colour if is_drop(one) or is_gain(one) else "white")


def shares(records: Mapping[str, Record]) -> "Figure":
    """Shapley values of image and text in DSC, a bar a model, split into the two; hatched where nothing is gained."""
    figure, (axis,) = style.panels(1, width=8.4, height=0.9 + 0.36 * len(records))
    for place, record in enumerate(records.values()):
        at, found = 0.0, record["shapley"]
        for player, colour in PLAYERS.items():
            value = 100 * found[player]["value"]
            none = found["shares"] is None
            axis.barh(place, value, left=at if value > 0 else 0, height=0.62, color="white" if none else colour,
                      edgecolor=colour, hatch="////" if none else None, label=player if place == 0 else None)
            if not none and abs(value) > 7:
                axis.text(at + value / 2, place, f"{100 * found['shares'][player]['value']:.0f} %", color="white",
                          ha="center", va="center", fontsize=9, fontweight="bold")
            at += max(value, 0)
    axis.axvline(0, color="#555555", linewidth=1)
    axis.set(xlabel="gain in DSC over empty prompt and mean-colour image (points)", ylim=(len(records) - 0.4, -0.6))
    axis.set_yticks(range(len(records)), list(records))
    axis.grid(axis="y", visible=False)
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=f"due to the {player}") for player, colour in PLAYERS.items()]
    handles.append(Patch(facecolor="white", edgecolor="#777777", hatch="////", label="no gain to share out"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def following(records: Mapping[str, Record]) -> "Figure | None":
    """IoU between the mask for each structure's prompt (rows) and each structure's truth (columns), one panel per
    record; None where no record has such a matrix."""
    matrices = {name: record["following"]["matrix"] for name, record in records.items()
                if record["following"] and record["following"]["matrix"]}
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
    a figure an image."""
    kept = trials[trials["mask"].notna() & (trials.image_condition == "own")] if "mask" in trials else trials[:0]
    samples = {sample.sample_id: sample for sample in dataset.samples}
    figures = []
    for _, of_image in kept.groupby(["dataset", "image_id"], sort=False):
        own = of_image[of_image.text_condition == "own"].set_index("sample_id")
        sample = samples[own.dsc.idxmax()]
        rows = of_image[of_image.sample_id == sample.sample_id].drop_duplicates(["text_condition", "prompt"])
        rows = rows.drop_duplicates("prompt").set_index("text_condition", drop=False)
        chosen = [row for name in SHOWN if name in rows.index for row in rows.loc[[name]].itertuples()][:MOST_SHOWN]
        figures.append(_panels_of(chosen, dataset.image(sample), dataset.mask(sample), sample.target))
    return figures


def _panels_of(rows: Sequence[Any], image: np.ndarray, truth: np.ndarray, target: str) -> "Figure":
    from featherseg.reporting.overlays import caption, draw_outlines

    figure, axes = style.panels(len(rows), width=2.35, height=3.6, columns=4)
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.05)
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


def report(record: Record, trials: pd.DataFrame, dataset: PreparedDataset) -> str:
    """The page of one model: the answer, the table behind it, figures, overlays, controls, and how it was made."""
    compared = with_controls(record)
    matrices = following({record["model"]: record, "control: text-blind": record["controls"]["text-blind"]})
    overlays = [_embedded(style.picture(figure).data, "jpeg") for figure in same_image(trials, dataset)]
    return render(
        "reliance/page.html", title=f"Reliance of {record['model']}", summary=record["paragraph"], record=record,
        headline=headline(record), unfit=_unfit(record), conventions=_conventions(record),
        effects=_table(effects(record), "effects"), comparison=_table(comparison(compared), "comparison"),
        changes=_png(changes({"": record})), shares=_png(shares(compared)),
        matrices=_png(matrices) if matrices else "", overlays=overlays)


def headline(record: Record) -> str:
    """The model's name and what decides its masks, and whether it does better with another prompt than its own."""
    better = gains(record)
    but = f"; it does better with {title(better[0]['condition'])}" if better else ""
    return f"{record['model']}: {HEADLINES[verdict(record)]}{but}"


def _unfit(record: Record) -> list[str]:
    """Which controls show that these data cannot tell, one sentence each."""
    wrong = wrong_controls(record["controls"])
    return [f"{name} must come out as “{right}”, but comes out as “{answer}”: no verdict is drawn from these data."
            for name, (answer, right) in wrong.items()]


def _conventions(record: Record) -> list[str]:
    """How the numbers were made, one sentence or more each."""
    return [
        f"{record['n_samples']} structures in {record['n_images']} images of {record['n_groups']} groups (patients, or "
        f"images where those are not known); {record['n_empty_truth']} true masks are empty.",
        f"Own prompts are those of level “{record['prompts']}”; a pixel belongs to the mask above "
        f"{record['threshold']}.",
        "Masks are compared at the image's own resolution. Two empty masks agree (DSC 100), one alone scores 0.",
        f"Intervals: bootstrap of {record['draws']} draws over groups. Tests: random signs of groups, two-sided, "
        "corrected by Holm's procedure among the five exchanges behind the answer (prompts permuted, another "
        "structure's prompt; images permuted, blurred, or replaced by their mean colour), and among all others; what "
        "asks for the same prompts as another line is counted once. Effect d: mean over deviation of the groups' "
        "changes; rank-biserial: of the samples' changes, 1 where all rise, -1 where all fall; a dash where they do "
        "not vary.",
        f"A modality decides where one of its exchanges costs at least {100 * LEAST_DROP:.0f} points of DSC with p "
        f"below {LEVEL}; where the empty prompt costs less than half of what a foreign one costs, prompts are said to "
        "mislead, not to decide, unless a swapped prompt takes the mask to another structure significantly more "
        f"often than at random. With fewer than {FEWEST} groups nothing is decided, and a mean has no interval. "
        f"Shares are given where the gain is at least {100 * NEAR_ZERO:.0f} points and significantly above zero. "
        "Where a control does not come out as it must, these data cannot tell, and there is no verdict.",
        "n counts samples (structures of images), “not measured” those that an intervention does not fit (no colour "
        "in the prompt, no second structure, a change that the model does not read). “Same prompt”, “cut prompt” and "
        "“empty masks” count masks: those of samples that kept their own prompt because all share it, or by chance; "
        "those whose prompt is longer than the model reads; and those without a pixel; where an image has further "
        "structures, each of their prompts gives a sample a mask, and their mean counts.",
        "“Mask changed” is 1 minus the IoU between the masks with and without the change, which needs no truth.",
        *remarks(record),
        f"Everything drawn follows from seed {record['seed']}. reliance.parquet holds every trial with its prompt."]


def points(drop: float) -> str:
    """A drop of DSC as a signed change in points, never a negative zero."""
    return f"{round(-100 * drop, 1) + 0.0:+.1f}"


def interval(low: float | None, high: float | None) -> str:
    """The interval of a drop, as one of changes in points; a dash where there is none."""
    return "–" if low is None else f"{points(high)} to {points(low)}"


def _of_change(effect: float | None) -> float | None:
    """An effect size of a drop as one of the change, to a tenth, never a negative zero."""
    return None if effect is None else round(-effect, 1) + 0.0


def _change(one: Record | None) -> str:
    if one is None:
        return "–"
    if one["same_as"] == OWN:
        return "could not be exchanged"
    return f"{points(one['drop'])} ({interval(one['low'], one['high'])})"


def _percent(values: Record, name: str) -> str:
    return f"{100 * values[name]['value'] + 0.0:.0f}"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(frame: pd.DataFrame, name: str) -> Markup:
    """A table under a name of its own, where pandas would draw one, so that equal records give equal pages."""
    return Markup(show(frame, digits=1).to_html(table_uuid=name))


def _png(figure: "Figure") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return _embedded(buffer.getvalue(), "png")


def _embedded(picture: bytes, kind: str) -> str:
    """A picture as the address of an image that is inside its page."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
