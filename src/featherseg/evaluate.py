"""Scoring of one run: from its data and checkpoint to scores, records and a status.

What is written, into one folder:

- `per_sample.parquet`: the task's scores, one row each (`tasks.base.Score`).
- `results.parquet`: the records that follow from them (`tasks.base.records`).
- `model.json`: how many parameters the model has, and how many of them are trained.
- what the task keeps besides; for segmentation `predictions.parquet` and `metrics.json`.
- `reliance.parquet`, `reliance.json`: where the settings ask for it, every trial of `featherseg.reliance`, and for
  each split what follows from them.
- `status.json`: ok, or not_run with the reason (then nothing else is there).
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from featherseg.checkpoint import load_model
from featherseg.config import Run
from featherseg.core.files import atomic_path, not_run_reason, write_json, write_status
from featherseg.data.prepared import PreparedDataset
from featherseg.resume import forget
from featherseg.run_splits import chosen_splits
from featherseg.tasks.base import TASKS, records, score_table

if TYPE_CHECKING:
    from featherseg.models.base import SegmentationModel


def evaluate(run: Run, data_dir: Path, train_dir: Path, out_dir: Path) -> None:
    """Score a trained run, or hand on the reason for which its data, weights or training are not there.

    Args:
        run: the resolved run.
        data_dir: the prepared dataset.
        train_dir: the run's checkpoint and status.
        out_dir: the folder to be written, complete or not at all.

    Raises:
        UserError: the splits have no samples, or data, weights or checkpoint are absent, damaged or do not fit.
    """
    forget(train_dir)
    reason = run.not_run or not_run_reason(data_dir) or not_run_reason(train_dir)
    with atomic_path(out_dir) as folder:
        folder.mkdir()
        if reason is None:
            _score_run(run, PreparedDataset.read(data_dir), train_dir, folder)
        write_status(folder, reason)


def _score_run(run: Run, dataset: PreparedDataset, train_dir: Path, folder: Path) -> None:
    if run.threads:
        torch.set_num_threads(run.threads)
    task, splits = TASKS[run.task](), chosen_splits(run, dataset)
    model = load_model(run, train_dir)
    table = score_table(task.evaluate(run, model, dataset, splits, folder), task.metrics)
    table.to_parquet(folder / "per_sample.parquet", index=False)
    records(table, task.metrics).to_parquet(folder / "results.parquet", index=False)
    write_json(folder / "model.json", count_parameters(model))
    if getattr(run.evaluate, "reliance", None) is not None:  # a key of tasks whose models take an image and a prompt
        from featherseg.reliance.run import measure_run

        measure_run(run, cast("SegmentationModel", model), dataset, splits, folder)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Numbers of parameters, `trainable_parameters` and `total_parameters`."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {"trainable_parameters": sum(size for size, trained in sizes if trained),
            "total_parameters": sum(size for size, _ in sizes)}
