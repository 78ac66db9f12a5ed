"""How much image and language each matter to the runs of a study: what `evaluate` measured, side by side.

Reliance is measured where `evaluate.reliance` of the study's params asks for it. The controls, whose answer is known,
stand beside the runs of each dataset, and are made on the spot where no run was measured.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from featherseg.config import Run
from featherseg.core.files import not_run_reason, read_json
from featherseg.core.markup import markdown_text
from featherseg.core.paths import processed
from featherseg.data.prepared import PreparedDataset
from featherseg.data.prompts.wording import ATTRIBUTES
from featherseg.reliance import figures, tables
from featherseg.reliance.controls import BOTH, LANGUAGE_ONLY
from featherseg.reliance.measure import Settings, measure_controls
from featherseg.reliance.record import Condition, Record, Scores
from featherseg.reliance.verdict import CANNOT_TELL, UNDECIDED, paragraph, verdict, wrong_controls
from featherseg.reporting import pictures, style
from featherseg.reporting.records import JOIN, data_kinds, data_label
from featherseg.reporting.study import Study
from featherseg.reporting.tables import show

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.figure import Figure

COLOURS = dict(zip(ATTRIBUTES, ("#999999", "#009E73", "#D55E00", "#CC79A7", "#0072B2"), strict=True))
HOW = ("Reliance has not been measured for a run of this study: set `evaluate.reliance: {}` in its params, or "
       "`evaluate.reliance: {images: 24}` for so many images a split, and run it again.")
ON_THE_SPOT = 12  # images for controls of a dataset where no run was measured


@dataclass(frozen=True)
class Measured:
    """A run whose reliance was measured on its first split.

    Attributes:
        run: the run.
        split: the split.
        record: what `reliance.measure` gave.
    """

    run: Run
    split: str
    record: Record

    @property
    def data(self) -> str:
        """The dataset with where it comes from."""
        return with_origin(self.run.dataset)


def with_origin(dataset: str) -> str:
    """A dataset with where it comes from: `lesions (synthetic stand-in)`."""
    return f"{dataset} ({data_label(JOIN.join(data_kinds(dataset)))})"


def measured(study: Study) -> list[Measured]:
    """The measured runs of the smallest seed of each recipe and dataset, by dataset."""
    first: dict[tuple[str, str], Measured] = {}
    places = {recipe: place for place, recipe in enumerate(study.declared)}
    order = sorted(study.runs, key=lambda run: (run.dataset, run.seed, places.get(run.recipe, len(places)), run.recipe))
    for run in order:
        path = study.evaluate(run.name) / "reliance.json"
        if path.is_file():
            split, record = next(iter(read_json(path).items()))
            first.setdefault((run.dataset, run.recipe), Measured(run, split, record))
    return list(first.values())


def answer(study: Study) -> str:
    """In how many runs the prompt decides and what decides in the others, then a line for each dataset on its most
    accurate run."""
    runs = measured(study)
    if not runs:
        return HOW
    answers = Counter(verdict(measurement.record) for measurement in runs)
    untold = answers.pop(CANNOT_TELL, 0) + answers.pop(UNDECIDED, 0)
    reading = answers.pop(BOTH, 0) + answers.pop(LANGUAGE_ONLY, 0)
    others = [f"{name} in {count}" for name, count in answers.most_common()]
    parts = [f"What decides in the others: {', '.join(others)}"] if others else []
    if untold == len(runs):
        sentences = f"**What decides cannot be told for any of {len(runs)} runs.**"
    else:
        parts += [f"for {untold} more it cannot be told"] if untold else []
        told = len(runs) - untold
        sentences = f"**The prompt decides, alone or together with the image, in {reading} of {told} runs.**"
    rest = "; ".join(parts)
    sentences += f" {rest[0].upper()}{rest[1:]}." if rest else ""
    lines = [f"- {markdown_text(_short(study, of_dataset))}" for _, of_dataset in by_dataset(study)]
    return "\n".join([sentences, "", *lines])


def _short(study: Study, runs: Sequence[Measured]) -> str:
    """What decides for the most accurate run of a dataset, and which controls show that this cannot be told."""
    best = _most_accurate(runs)
    record, wrong = best.record, wrong_controls(best.record["controls"])
    because = f", since controls are not recognised as what they are ({', '.join(wrong)})" if wrong else ""
    return (f"{best.data}, {record['n_samples']} structures in {record['n_images']} images: for the most accurate run, "
            f"{study.title(best.run.recipe)}, {tables.HEADLINES[verdict(record)]}{because}.")


def compared(study: Study) -> dict[str, dict[str, Scores]]:
    """By dataset, with where it comes from: records of its runs by title, and those of its controls, which were given
    the prompts of the most accurate run."""
    by_name: dict[str, dict[str, Scores]] = {}
    for dataset, runs in by_dataset(study):
        records: dict[str, Scores] = {study.title(measurement.run.recipe): measurement.record for measurement in runs}
        by_name[dataset] = records | _named(_most_accurate(runs).record["controls"])
    if by_name:
        return by_name
    for dataset in sorted({run.dataset for run in study.runs}):
        folder = processed(dataset)
        if (folder / "status.json").is_file() and not not_run_reason(folder):
            data = PreparedDataset.read(folder)
            samples = data.split("test") or data.samples
            controls = measure_controls(data, samples, Settings(limit=ON_THE_SPOT))
            by_name[with_origin(dataset)] = _named(controls)
    return by_name


def decisions(study: Study) -> list:
    """What decides, run by run, with the scores behind it and the controls below: drawn with intervals, as a table and
    as Shapley values; each dataset below a heading that says where it comes from. The most accurate run in sentences
    follows, closed."""
    quotable = {dataset: _most_accurate(runs) for dataset, runs in by_dataset(study)}
    shown = []
    for dataset, records in compared(study).items():
        shown += [style.heading(dataset), figures.exchanges(records), show(tables.comparison(records), digits=1),
                  figures.shares(records)]
        if best := quotable.get(dataset):
            title = study.title(best.run.recipe)
            shown.append(style.folded(f"{title} in sentences, to quote", paragraph(best.record, title, best.data)))
    return shown


def attributes(study: Study) -> pd.DataFrame:
    """The change of DSC in points when one attribute of the prompt is changed, run by run; a star marks a significant
    one."""
    lines = []
    for dataset, runs in by_dataset(study):
        for measurement in runs:
            flips = _flips(measurement.record)
            line = {"dataset": dataset, "method": study.title(measurement.run.recipe)}
            lines.append(line | {name: _cell(flips.get(name)) for name in ATTRIBUTES})
    return pd.DataFrame(lines, columns=["dataset", "method", *ATTRIBUTES])


def attribute_changes(study: Study) -> "Figure | Markdown":
    """The same as a chart: one panel per dataset, one line per run, one colour per attribute, filled where the loss or
    the gain is significant."""
    datasets = [(dataset, runs) for dataset, runs in by_dataset(study)
                if any(_flips(measurement.record) for measurement in runs)]
    if not datasets:
        return style.note("No prompt of these runs names an attribute." if measured(study) else HOW)
    rows = max(len(runs) for _, runs in datasets)
    figure, axes = style.panels(len(datasets), width=6.2, height=1.2 + 0.55 * rows, columns=2)
    for axis, (dataset, runs) in zip(axes, datasets, strict=True):
        for place, measurement in enumerate(runs):
            flips = _flips(measurement.record)
            changed = [name for name in ATTRIBUTES if name in flips]
            for number, name in enumerate(changed):
                figures.whisker(axis, place + 0.15 * (number - 2), flips[name], COLOURS[name])
        axis.axvline(0, color="#555555", linewidth=1)
        axis.set(title=dataset, xlabel="change of DSC (points)", ylim=(len(runs) - 0.5, -0.5))
        axis.set_yticks(range(len(runs)), [study.title(measurement.run.recipe) for measurement in runs])
        axis.grid(axis="y", visible=False)
    for name, colour in COLOURS.items():
        axes[0].plot([], [], "o", color=colour, label=f"{name} changed")
    figure.legend(loc="outside lower center", ncols=len(COLOURS))
    return figure


def gallery(study: Study) -> list:
    """For each dataset the masks of its most accurate run on one image under different prompts."""
    shown = []
    for dataset, runs in by_dataset(study):
        best = _most_accurate(runs)
        trials = pd.read_parquet(study.evaluate(best.run.name) / "reliance.parquet",
                                 filters=[("split", "==", best.split)])
        data = PreparedDataset.read(processed(best.run.dataset))
        for figure in figures.same_image(trials, data)[:1]:
            shown += [style.heading(f"{dataset}: {study.title(best.run.recipe)}"),
                      *pictures.shown(figure, study, best.run.dataset, "same_image")]
    return shown or [style.note(HOW)]


def by_dataset(study: Study) -> Iterator[tuple[str, list[Measured]]]:
    """The measured runs of each dataset, after its name with where it comes from."""
    runs = measured(study)
    for dataset in dict.fromkeys(measurement.data for measurement in runs):
        yield dataset, [measurement for measurement in runs if measurement.data == dataset]


def _most_accurate(runs: Sequence[Measured]) -> Measured:
    return max(runs, key=lambda measurement: measurement.record["own"]["value"])


def _named(controls: Mapping[str, Scores]) -> dict[str, Scores]:
    """The records of controls under the names that tables give them."""
    return {f"control: {name}": record for name, record in controls.items()}


def _flips(record: Record) -> dict[str, Condition]:
    """By attribute the interventions that change it alone."""
    flips = [condition for condition in record["conditions"] if condition["condition"].startswith("flip_")]
    return {flip["condition"].removeprefix("flip_"): flip for flip in flips}


def _cell(flip: Condition | None) -> str:
    return "not measured" if flip is None else tables.starred(flip)
