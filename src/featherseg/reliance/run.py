"""The reliance of one run, beside its scores."""

from functools import partial
from pathlib import Path

import pandas as pd

from featherseg.config import Run
from featherseg.core.files import write_json
from featherseg.data.prepared import PreparedDataset, Sample
from featherseg.models.base import SegmentationModel
from featherseg.reliance.measure import Settings, measure
from featherseg.tasks.segmentation.config import RelianceConfig, scoring_of
from featherseg.tasks.segmentation.predict import iterate_probabilities


def measure_run(run: Run, model: SegmentationModel, dataset: PreparedDataset, splits: dict[str, list[Sample]],
                out: Path) -> None:
    """Examine a run on each of its splits; write `reliance.parquet` and `reliance.json` into the folder `out`."""
    scoring = scoring_of(run)
    asked = scoring.reliance or RelianceConfig()
    settings = Settings(prompts=scoring.prompts, threshold=scoring.threshold, seed=run.seed, text=asked.text,
                        image=asked.image, limit=asked.images, draws=asked.draws)
    segment = partial(iterate_probabilities, model, batch_size=scoring.batch_size)
    tables, measured = [], {}
    for split, samples in splits.items():
        table, measured[split] = measure(segment, dataset, samples, settings, model=run.name,
                                         data=f"{run.dataset}, split {split}", reader=model.read)
        tables.append(table)
    pd.concat(tables, ignore_index=True).to_parquet(out / "reliance.parquet", index=False)
    write_json(out / "reliance.json", measured)
