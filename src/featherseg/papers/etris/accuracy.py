"""One accuracy per run, of the methods that ETRIS and DETRIS are compared by."""

import pandas as pd

from featherseg.models import having
from featherseg.papers.etris.counts import BRIDGER
from featherseg.papers.etris.table import ETRIS, named
from featherseg.reporting.beside import HERE
from featherseg.reporting.frames import first_split
from featherseg.tasks.segmentation.referring import ALL, MIOU

ABLATED = ("dim", "stages", "head_parts")  # what makes a Bridger's run one of an ablation, not of a method


def accuracy(results: pd.DataFrame) -> pd.DataFrame:
    """One accuracy in % per run, on its first split: mIoU at 0.35 over all sentences where they were scored, else the
    mean IoU at the run's threshold with its one prompt.

    Returns:
        the rows of `results` that hold it, with the columns `accuracy` (%) and `measure` (its whole name).
    """
    first = results.groupby("run")["split"].transform("first")
    own = results[(results["split"] == first) & (results.text_condition == "own")]
    referring = own[(own.sentences == ALL) & (own.threshold == 0.35) & (own.metric == MIOU)]
    referring = referring.assign(measure=named(MIOU, 0.35))
    plain = first_split(own)
    plain = plain[(plain.metric == "iou") & ~plain.run.isin(set(referring.run))]
    plain = plain.assign(measure=[f"{MIOU} at {threshold:g}, one prompt" for threshold in plain.threshold])
    both = pd.concat([referring, plain], ignore_index=True)
    return both.assign(accuracy=100 * both["mean"])


def methods(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of ETRIS's and DETRIS's tuning methods: no recipe as released, and of the Bridger's only the usual one
    of each model and those in one direction, no other ablation."""
    rows = rows[rows.model.isin(having("head_parts")) & ~rows.released]
    ablated = pd.Series(False, rows.index)
    for _, part in rows[rows.adapter == BRIDGER].groupby("model"):
        usual = usual_bridger(part)
        for knob in ABLATED:
            ablated |= part[knob].ne(usual[knob]).reindex(rows.index, fill_value=False)
    return rows[~ablated]


def usual_bridger(rows: pd.DataFrame) -> pd.Series:
    """The row of the Bridger with nothing changed: of a recipe of the main table, or the first."""
    usual = rows[rows.recipe.isin(ETRIS.recipes(HERE))]
    return (rows if usual.empty else usual).iloc[0]
