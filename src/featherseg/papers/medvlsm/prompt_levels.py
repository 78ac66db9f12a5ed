"""The grid of prompt levels: what a method that was trained with the prompts of one level makes of those of another.

MedVLSM (arXiv 2308.07706) trains and tests on one level at a time, which is the grid's diagonal. A cell is the mean DSC
of the reliance suite's intervention `level_p0` to `level_p9` on the images that `evaluate.reliance` asks for, so a row
takes one training and one evaluation.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from featherseg.config import Run
from featherseg.core.markup import markdown_text
from featherseg.reliance.study import HOW, Measured, by_dataset, measured
from featherseg.reporting import style
from featherseg.reporting.study import Study
from featherseg.reporting.tables import FROM, honest, source_of
from featherseg.tasks.segmentation.config import PROMPT_LEVELS, training_of

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.figure import Figure

NOT_TRAINED, RANDOM, EMPTY = "nothing", "random", "p0"
ELSEWHERE = ("The grid of training and testing on each level from P0 to P9 is the study `prompt_levels`: "
             "reports/prompt_levels/40_reliance.html, made anew, or on other sets, by "
             "`dvc repro pipelines/prompt_levels/dvc.yaml`.")
_Label = tuple[str, str]  # title of the dataset, and method


def grid(study: Study) -> pd.DataFrame:
    """DSC in % by what was trained with (lines) and the level that was scored (columns P0 to P9), of every measured
    run, whatever its training prompts; with the number of images. Empty where none was measured."""
    sources = {row.run: row for row in study.results.drop_duplicates("run").itertuples()}
    lines = []
    for _, runs in by_dataset(study):
        for measurement in _in_order(runs):
            run, source = measurement.run, sources[measurement.run.name]
            scores = {level.upper(): dsc for level, dsc in _scores(measurement).items()}
            lines.append({"dataset": run.dataset, "method": source.title, "trained with": _shown(trained(run)),
                          **scores, "images": measurement.record["n_images"], FROM: source_of(source),
                          "data": source.data})
    scored = set().union(*lines)
    levels = [level.upper() for level in PROMPT_LEVELS if level.upper() in scored]
    return honest(pd.DataFrame(lines, columns=["dataset", "method", "trained with", *levels, "images", FROM, "data"]))


def figure(study: Study) -> "Figure | Markdown":
    """The grid drawn: one panel per dataset, trained with (rows) by tested with (columns); the cells in which both are
    the same level are framed."""
    panels = list(by_dataset(study))
    if not panels:
        return style.note(HOW)
    most = max(len(runs) for _, runs in panels)
    figure, axes = style.panels(len(panels), width=6.4, height=1.6 + 0.36 * most, columns=2)
    for axis, (dataset, runs) in zip(axes, panels, strict=True):
        runs = _in_order(runs)
        policies = [trained(measurement.run) for measurement in runs]
        names = [_shown(policy) for policy in policies]
        if len(set(policies)) < len(policies):
            titles = [study.title(measurement.run.recipe) for measurement in runs]
            names = [f"{title}: {name}" for title, name in zip(titles, names, strict=True)]
        cells = pd.DataFrame([_scores(measurement) for measurement in runs])
        cells = cells.reindex(columns=[level for level in PROMPT_LEVELS if level in cells])
        framed = [(row, list(cells).index(policy)) for row, policy in enumerate(policies) if policy in cells]
        style.heat(axis, cells.set_axis(names).rename(columns=_shown), framed=framed)
        axis.set(title=f"{dataset}, DSC in %", xlabel="tested with", ylabel="trained with")
    return figure


def note(study: Study) -> str:
    """What the grid says, a paragraph for each method and dataset with one row per level, or where to find a grid."""
    paragraphs = []
    for label, rows in _methods(study):
        if set(PROMPT_LEVELS) <= set(rows.index) and set(PROMPT_LEVELS) <= set(rows.columns):
            paragraphs.append(_reading(*label, rows))
    if paragraphs:
        return "\n\n".join(paragraphs)
    runs = [measurement.run for measurement in _in_order(measured(study))]
    policies = dict.fromkeys(_shown(trained(run)) for run in runs if run.train)
    here = f"Here models were trained with prompts of {', '.join(policies)}. " if policies else ""
    return f"{here}{ELSEWHERE}"


def trained(run: Run) -> str:
    """The policy of a run's training prompts, `nothing` where it was not trained."""
    return training_of(run).prompts if run.train else NOT_TRAINED


def _methods(study: Study) -> Iterator[tuple[_Label, pd.DataFrame]]:
    """By dataset and method the grid of the trained runs that differ in their prompts only, policies by levels."""
    for dataset, runs in by_dataset(study):
        methods: dict[str, list[Measured]] = {}
        for measurement in runs:
            if measurement.run.train:
                settings = measurement.run.train.model_dump(exclude={"prompts", "val_prompts"})
                key = repr((measurement.run.model, measurement.run.adapter, settings))
                methods.setdefault(key, []).append(measurement)
        for alike in methods.values():
            first = alike[0].run
            method = ", ".join(map(str, (first.model.name, *first.adapter.values())))
            scores = {trained(measurement.run): _scores(measurement) for measurement in alike}
            yield (dataset, method), pd.DataFrame(scores).T


def _reading(dataset: str, method: str, rows: pd.DataFrame) -> str:
    """A method's grid in words: the diagonal, and what another level, or random ones, cost against it."""
    own = pd.Series({level: rows.loc[level, level] for level in PROMPT_LEVELS})
    prompted = [level for level in PROMPT_LEVELS if level != EMPTY]
    lost = (rows.loc[prompted, prompted] - own[prompted]).stack()
    lost = lost[[level != tested for level, tested in lost.index]]
    worst, tested = map(_shown, lost.idxmin())
    where = f"**{markdown_text(dataset)}** ({markdown_text(method)})"
    text = (f"{where}: trained and tested on one level, DSC is {own[EMPTY]:.1f} % without words (P0), "
            f"{own['p1']:.1f} % with the class (P1), and highest with {_shown(own.idxmax())}, {own.max():.1f} %. "
            f"Against the model that was trained on the level it is tested on (P1 to P9), one trained on another level "
            f"scores {lost.mean():+.1f} points on average, at worst {lost.min():+.1f} (trained on {worst}, tested on "
            f"{tested})")
    if RANDOM not in rows.index:
        return f"{text}."
    mixed = (rows.loc[RANDOM] - own)[prompted]
    return f"{text}; one trained on random levels {mixed.mean():+.1f}, at worst {mixed.min():+.1f}."


def _scores(measurement: Measured) -> dict[str, float]:
    """DSC in % by level."""
    scores = {cell["condition"].removeprefix("level_"): 100 * cell["dsc"] for cell in measurement.record["conditions"]}
    return {level: scores[level] for level in PROMPT_LEVELS if level in scores}


def _shown(policy: str) -> str:
    return policy.upper() if policy in PROMPT_LEVELS else policy


def _in_order(runs: list[Measured]) -> list[Measured]:
    """Those trained on a level first, by level."""
    order = {level: place for place, level in enumerate(PROMPT_LEVELS)}
    return sorted(runs, key=lambda measurement: order.get(trained(measurement.run), len(order)))
