"""The metrics of every task but segmentation, which has the tables of the other modules."""

import pandas as pd

from featherseg.reporting import style
from featherseg.reporting.frames import first_split
from featherseg.reporting.records import SEGMENTATION
from featherseg.reporting.study import Study
from featherseg.reporting.tables import FROM, honest, made_here, show
from featherseg.tasks.base import TASKS


def tables(study: Study) -> list:
    """For each task but segmentation a heading and its table, on each run's first split; nothing where every run
    segments."""
    rows = first_split(study.every_task)
    shown = []
    for task in sorted(set(rows.task) - {SEGMENTATION}):
        shown += [style.heading(task), show(table(task, rows[rows.task == task]))]
    return shown


def table(task: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The metrics of one task, mean over seeds: one line per dataset, recipe and condition, one column per metric.

    Args:
        task: its name.
        rows: records of its runs.
    """
    names = [metric.name for metric in TASKS[task].metrics if metric.average != "count"]
    lines = []
    for (dataset, _, condition), part in rows.groupby(["dataset", "recipe", "text_condition"], sort=False):
        first = part.iloc[0]
        means = part.groupby("metric")["mean"].mean()
        values = {name: means.get(name) for name in names}
        lines.append({"dataset": dataset, "method": first.title, "condition": condition, **values,
                      "samples": first.n, FROM: made_here(first), "data": first.data if first.status == "ok" else ""})
    frame = pd.DataFrame(lines, columns=["dataset", "method", "condition", *names, "samples", FROM, "data"])
    if frame.condition.eq("").all():
        frame = frame.drop(columns="condition")
    return honest(frame.astype(dict.fromkeys(names, float) | {"samples": "Int64"}))
