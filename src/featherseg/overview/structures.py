"""Accuracy by structure, where a dataset has several: a mean over them hides one that is never found."""

from collections.abc import Iterator

import pandas as pd

from featherseg.core.markup import markdown_text
from featherseg.reporting import style
from featherseg.reporting.study import Study
from featherseg.reporting.tables import show

NOTHING = 1.0  # DSC in % below which a structure counts as not found


def tables(study: Study) -> list:
    """For each dataset with several structures DSC in % by structure and method, with the own prompt and with the
    class name alone, and which structures a method does not find; each dataset below a heading."""
    rows = study.by_target[study.by_target.status == "ok"]
    shown = []
    for dataset, part in rows.groupby("dataset"):
        shown += [style.heading(f"{dataset} ({part.data.iloc[0]})"), *_of_dataset(part)]
    return shown or [style.note("No dataset of this study that was scored has several structures.")]


def table(rows: pd.DataFrame, condition: str) -> pd.DataFrame:
    """DSC in % of one dataset under one text condition, mean over seeds: one line per structure with its number of
    samples, one column per method.

    Args:
        rows: those of `Study.by_target`.
        condition: the text condition.
    """
    part = rows[rows.text_condition == condition]
    titles = dict(zip(part.recipe, part.title, strict=True))
    grid = 100 * part.pivot_table("mean", "target", "recipe", aggfunc="mean", sort=False)
    grid = grid.rename(columns=titles)
    grid.insert(0, "samples", part.groupby("target").n.first().astype(int))
    return grid.rename_axis("structure").rename_axis(None, axis="columns").sort_index().reset_index()


def _of_dataset(rows: pd.DataFrame) -> Iterator:
    """The tables and the remark of one dataset."""
    own = table(rows, "own")
    yield show(own, "DSC in %, own prompt", digits=1)
    if "class_only" in set(rows.text_condition):
        yield show(table(rows, "class_only"), "DSC in %, class name only", digits=1)
    weights = ", ".join(dict.fromkeys(rows.weights))
    yield style.note(f"Where from: {markdown_text(f'{rows.data.iloc[0]}; weights {weights}')}")
    methods = own.drop(columns="samples").set_index("structure")
    lines = []
    for structure, dsc in methods.iterrows():
        missed = list(dsc.index[dsc < NOTHING])
        if missed:
            names = "every method" if len(missed) == methods.shape[1] else markdown_text(", ".join(missed))
            lines.append(f"- {markdown_text(structure)}: by {names}")
    if lines:
        yield style.note(f"Not found (own prompt, DSC below {NOTHING:.0f} %), which a mean over structures hides: "
                         f"{len(lines)} of {len(methods)} structures.\n\n" + "\n".join(lines))
