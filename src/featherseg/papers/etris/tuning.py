"""ETRIS's tuning methods at equal budget: accuracy, what they train, and what that costs."""

import pandas as pd

from featherseg.config import Run
from featherseg.core.markup import markdown_text
from featherseg.papers.etris.accuracy import accuracy, methods
from featherseg.reporting.study import Study
from featherseg.reporting.tables import FROM, honest, source_of


def tuning(study: Study) -> pd.DataFrame:
    """Tuning methods of each model on each dataset: accuracy, what they train beyond the head, their budget, speed
    and memory.

    `beyond the head` is what a method trains more than the model's `decoder` run does. Memory is the accelerator's
    where one was used, else the process's.
    """
    rows = methods(accuracy(study.every_result))
    budgets = {run.name: budget(run) for run in study.runs}
    lines = []
    for (dataset, _), part in rows.groupby(["dataset", "model"], sort=False):
        head = part[part.adapter == "decoder"].trainable_parameters.max()
        for _, group in part.groupby("recipe", sort=False):
            first = next(group.itertuples())
            lines.append({
                "dataset": dataset, "split": first.split, "method": first.title, "measure": first.measure,
                "accuracy": group.accuracy.mean(), "trainable": int(first.trainable_parameters),
                "beyond the head": None if pd.isna(head) else int(first.trainable_parameters - head),
                "budget": budgets[first.run], "images/s": group.images_per_second.mean(),
                "memory (MiB)": group.memory.mean(), FROM: source_of(first), "data": first.data})
    unmade = methods(study.results[study.results.status != "ok"])
    for (dataset, reason), part in unmade.groupby(["dataset", "reason"], sort=False):
        lines += [{"dataset": dataset, "method": title, FROM: f"not run: {reason}", "data": ""}
                  for title in part.drop_duplicates("recipe").title]
    columns = ["dataset", "split", "method", "measure", "accuracy", "trainable", "beyond the head", "budget",
               "images/s", "memory (MiB)", FROM, "data"]
    frame = pd.DataFrame(lines, columns=columns)
    frame["memory (MiB)"] = frame["memory (MiB)"].astype(float).round()
    whole = dict.fromkeys(["trainable", "beyond the head", "memory (MiB)"], "Int64")
    return honest(frame.astype(whole | dict.fromkeys(["accuracy", "images/s"], float)))


def equal_budget(study: Study) -> str:
    """One sentence per dataset: whether its tuning methods had the same budget."""
    frame, sentences = tuning(study).dropna(subset="accuracy"), []
    for dataset, rows in frame.groupby("dataset"):
        budgets = rows.budget.unique()
        where = f"On **{markdown_text(str(dataset))}**"
        sentences.append(f"{where} all {len(rows)} methods had one budget: {budgets[0]}." if len(budgets) == 1
                         else f"{where} the budgets are NOT equal: {'; '.join(budgets)}.")
    return "\n\n".join(sentences) or "No tuning method of ETRIS has been run in this study; the table says why."


def budget(run: Run) -> str:
    """What a run may spend: epochs, batch size, learning rate and optimiser."""
    if run.train is None:
        return "no training"
    train = run.train
    return f"{train.epochs} epochs, batch {train.batch_size}, {train.optimizer} at {train.lr:g}, {train.schedule}"
