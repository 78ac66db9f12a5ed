"""From a model and a split to a record: trials, scores, the verdict, and the controls beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from featherseg.data.prepared import PreparedDataset, Sample
from featherseg.models.readings import Reader, Readings, as_text
from featherseg.reliance import suite, trials
from featherseg.reliance.controls import MEANING, Controls
from featherseg.reliance.record import Control, Record
from featherseg.reliance.scores import DRAWS, score
from featherseg.reliance.suite import Segment
from featherseg.reliance.verdict import decides, paragraph, verdict

CONTROL_IMAGES = 24


@dataclass(frozen=True)
class Settings:
    """How a model is examined.

    Attributes:
        prompts: level of the own prompt (`prepared.prompt_of`).
        threshold: probability above which a pixel belongs to the mask.
        seed: decides everything that is drawn.
        text, image: interventions beside those that the verdict needs; None for all.
        limit: at most so many images, of as many patients as can be; None for all.
        draws: of the bootstrap.
        shown: so many images have their masks kept.
    """

    prompts: str = "fullest"
    threshold: float = 0.5
    seed: int = 0
    text: Sequence[str] | None = None
    image: Sequence[str] | None = None
    limit: int | None = None
    draws: int = DRAWS
    shown: int = 2


def measure(segment: Segment, dataset: PreparedDataset, samples: Sequence[Sample], settings: Settings, *, model: str,
            data: str, reader: Reader = as_text) -> tuple[pd.DataFrame, Record]:
    """Examine a model on some samples.

    Args:
        model, data: their names in texts.
        reader: what the model reads of prompts (`SegmentationModel.read`).

    Returns:
        The table of `suite.run`, and the record: model, data, settings, `scores.score`, own_prompts
        (`Readings.count`), fit_no_sample (the interventions that could not be made on any sample), controls by name
        (meaning, decides, and their scores on at most `CONTROL_IMAGES` of the images), decides (`verdict.verdict`) and
        paragraph.

    Raises:
        UserError: as `trials.plan` and `suite.run`.
    """
    planned = trials.plan(samples, settings.prompts, settings.seed, text=settings.text, image=settings.image,
                          limit=settings.limit, reader=reader)
    table = suite.run(segment, dataset, planned, seed=settings.seed, threshold=settings.threshold,
                      shown=settings.shown, name=model)
    scores = score(table, settings.seed, settings.draws)
    made = {trials.texts.OWN, *(one["condition"] for one in scores["conditions"])}
    tried = [name for names in trials.interventions(settings.text, settings.image) for name in names]
    own = [trial.prompt for of in planned for trial in of.trials if trial.condition == trials.texts.OWN]
    record: Record = {
        "model": model, "data": data, "prompts": settings.prompts, "threshold": settings.threshold,
        "seed": settings.seed, **scores, "own_prompts": Readings(reader, own).count(own),
        "fit_no_sample": [name for name in tried if name not in made],
        "controls": measure_controls(dataset, samples, settings)}
    record["decides"] = verdict(record)
    record["paragraph"] = paragraph(record, model, data)
    return table, record


def measure_controls(dataset: PreparedDataset, samples: Sequence[Sample], settings: Settings) -> dict[str, Control]:
    """The controls by name on the first images of the plan, with the interventions that a verdict needs."""
    limit = min(settings.limit or CONTROL_IMAGES, CONTROL_IMAGES)
    planned = trials.plan(samples, settings.prompts, settings.seed, text=(), image=(), limit=limit)
    known = {one.image for one in planned}
    controls = Controls(dataset, [sample for sample in samples if sample.image in known], settings.prompts,
                        settings.seed)
    records: dict[str, Control] = {}
    for name, segment in controls.segments().items():
        table = suite.run(segment, dataset, planned, seed=settings.seed, name=f"control {name}")
        scores = score(table, settings.seed, settings.draws)
        records[name] = {"meaning": MEANING[name], "decides": decides(scores), **scores}
    return records
