"""Whether a model reads its prompt: DSC with a sample's own prompt beside that with other prompts."""

from typing import TYPE_CHECKING

import pandas as pd

from featherseg.overview.scores import without_the_usual
from featherseg.reporting import style
from featherseg.reporting.study import Study
from featherseg.reporting.style import DOT, legend, panel_title
from featherseg.reporting.tables import FROM, honest, own_dsc, source_of

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# by condition: label, colour and marker; those drawn last lie on top
LOOKS = {"other": ("another's prompt", "#D55E00", "X"), "none": ("empty prompt", "#999999", "s"),
         "own": ("own prompt", "#0072B2", "o")}


def table(study: Study) -> pd.DataFrame:
    """DSC in % with the sample's own prompt, with the class name alone, with an empty one and with another sample's,
    and what is lost.

    A model that reads its prompt loses much where language decides; one that only looks loses nothing.
    `no other prompt` counts samples that kept their own, since the split has no other one.
    """
    scored = study.results[study.results.metric == "dsc"]
    lines = []
    for (dataset, _), rows in scored.groupby(["dataset", "recipe"], sort=False):
        first = rows.iloc[0]
        mean = 100 * rows.groupby("text_condition")["mean"].mean()
        kept = rows[rows.text_condition == "other"].n_own_prompt.mean()
        lines.append({"dataset": dataset, "split": first.split, "method": first.title,
                      "own prompt": mean["own"], "class name only": mean.get("class_only"),
                      "empty prompt": mean["none"], "another's prompt": mean["other"],
                      "lost without prompt": mean["own"] - mean["none"],
                      "lost with another's": mean["own"] - mean["other"], "no other prompt": round(kept),
                      FROM: source_of(first), "data": first.data})
    columns = ["dataset", "split", "method", "own prompt", "class name only", "empty prompt", "another's prompt",
               "lost without prompt", "lost with another's", "no other prompt", FROM, "data"]
    frame = without_the_usual(pd.DataFrame(lines, columns=columns).astype({"class name only": float}))
    return honest(frame.sort_values("dataset", kind="stable"))


def figure(study: Study) -> "Figure | Markdown":
    """DSC in % with the own prompt, an empty one and another sample's: one line per method, one panel per dataset.

    Markers far apart: the model reads its prompt. Markers on top of each other: it looks only at the image.
    """
    frames = {condition: own_dsc(study.results, condition) for condition in LOOKS}
    own = frames["own"]
    if own.empty:
        return style.note("No run of this study has been scored.")
    datasets = sorted(own.dataset.unique())
    methods = list(dict.fromkeys(own.title))[::-1]
    drawn, axes = style.panels(len(datasets), width=5.6, height=0.9 + 0.34 * len(methods), sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        here = {condition: frame[frame.dataset == dataset] for condition, frame in frames.items()}
        _draw(axis, here, methods)
        axis.set(title=panel_title(here["own"]), xlabel="DSC (%)", xlim=(-3, 103), ylim=(-0.6, len(methods) - 0.4))
    axes[0].set_yticks(range(len(methods)), methods)
    legend(drawn, axes)
    return drawn


def _draw(axis: "Axes", frames: dict[str, pd.DataFrame], methods: list[str]) -> None:
    """The lines and markers of one dataset.

    Args:
        frames: its rows of `tables.own_dsc`, by condition.
        methods: titles in the order of their places.
    """
    values = {condition: frame.set_index("title").dsc for condition, frame in frames.items()}
    titles = list(frames["own"].title)
    places = [methods.index(title) for title in titles]
    for title, place in zip(titles, places, strict=True):
        ends = [of_condition[title] for of_condition in values.values()]
        axis.plot([min(ends), max(ends)], [place] * 2, color="#cccccc", linewidth=3)
    for condition, (label, colour, mark) in LOOKS.items():
        axis.scatter(values[condition][titles], places, color=colour, marker=mark, label=label, **DOT)
