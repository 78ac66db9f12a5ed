"""The main table, recipe by dataset, and which method wins."""

from typing import Any

import pandas as pd

from featherseg.core.markup import markdown_text
from featherseg.overview.collapse import MARK, collapsed, described
from featherseg.reporting.study import Study
from featherseg.reporting.tables import FROM, METRICS, honest, own_means, source_of, unit_of, without_digests

COUNTED = ["seeds", "samples", "empty truth", "empty prediction"]
SPREAD = "± of DSC over seeds"
UNIT = "unit of HD95"
CLASS_NAME = "DSC, class name only"
NOTABLE = 5.0  # points of DSC that the class name alone must gain to be named


def table(study: Study) -> pd.DataFrame:
    """DSC and IoU in %, HD95 in its unit, with the own prompt, and DSC with the class name alone, where it was asked
    for.

    Means over samples (over every sentence of them, where each was scored) and seeds, by dataset. Trainable
    parameters are those of the model that ran; samples with an empty mask are counted (mean over seeds). The split is
    named where it is another one than `test`. A collapsed model has a mark at its method.
    """
    return _with_collapses(study).drop(columns="collapsed")


def verdict(study: Study) -> str:
    """One sentence per dataset: which method wins, at how many trainable parameters, by how much; collapsed models
    cannot win."""
    seeds = study.results.groupby("dataset").seed.nunique()
    scored = _with_collapses(study).dropna(subset=["DSC"]).sort_values("DSC", ascending=False, kind="stable")
    sentences = [_winner(str(dataset), rows, seeds[dataset]) for dataset, rows in scored.groupby("dataset")]
    nothing = "No run of this study that segments has been made, so no method wins; the table says why."
    return "\n\n".join(sentences) or nothing


def collapses(study: Study) -> str:
    """What the mark in the main table means, and for each marked line how many of its masks are empty or cover nearly
    all of the image; nothing where no model has collapsed."""
    lines = []
    for row in _own_rows(study).itertuples():
        if collapsed(row):
            lines.append(f"- {markdown_text(f'{row.title} on {row.dataset}: {described(row)}')}")
    if not lines:
        return ""
    listed = "\n".join(lines)
    return (f"{MARK} Collapsed: most masks are empty although there is something to find, or cover nearly all of the "
            f"image although the structure does not. Such a model cannot be the best one, whatever its "
            f"mean.\n\n{listed}")


def without_the_usual(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame without its column `split` where that says `test` throughout, and without empty columns of the class
    name."""
    if frame.split.isin(["test", ""]).all():
        frame = frame.drop(columns="split")
    optional = frame.columns.intersection([CLASS_NAME, "class name only"])
    return frame.drop(columns=[name for name in optional if frame[name].isna().all()])


def _own_rows(study: Study) -> pd.DataFrame:
    """DSC with the own prompt of every dataset and recipe that was scored, means over seeds."""
    made = study.results[(study.results.text_condition == "own") & (study.results.metric == "dsc")]
    counts = ["mean", "n", "n_empty_truth", "n_empty_prediction", "n_missed", "n_flooded"]
    return made.groupby(["dataset", "recipe", "title"], sort=False)[counts].mean().reset_index()


def _with_collapses(study: Study) -> pd.DataFrame:
    """`table`, with a column that says whether the model has collapsed."""
    fallen = {(row.dataset, row.recipe) for row in _own_rows(study).itertuples() if collapsed(row)}
    lines = []
    for (dataset, recipe), rows in study.results.groupby(["dataset", "recipe"], sort=False):
        lines.append(_line(dataset, recipe, rows, (dataset, recipe) in fallen))
    columns = ["dataset", "split", "method", "recipe", "DSC", CLASS_NAME, "IoU", "HD95", UNIT, SPREAD, "trainable",
               "% of model", *COUNTED, FROM, "data", "collapsed"]
    frame = pd.DataFrame(lines).reindex(columns=columns)
    whole = dict.fromkeys(["trainable", *COUNTED], "Int64")
    frame = frame.astype(whole | {CLASS_NAME: float, "collapsed": bool})
    if (frame.seeds.fillna(1) == 1).all():
        frame = frame.drop(columns=["seeds", SPREAD])
    units = frame[UNIT].dropna().unique()
    if len(units) == 1:
        frame = frame.drop(columns=UNIT).rename(columns={"HD95": f"HD95 ({units[0]})"})
    frame = without_the_usual(frame)
    return honest(frame.sort_values("dataset", kind="stable"))


def _line(dataset: str, recipe: str, rows: pd.DataFrame, fallen: bool) -> dict[str, Any]:
    """One recipe on one dataset.

    Args:
        rows: its results.
        fallen: whether the model has collapsed.
    """
    title = rows.title.iloc[0]
    line = {"dataset": dataset, "split": rows.split.max(), "method": f"{title} {MARK}" if fallen else title,
            "recipe": recipe, "collapsed": fallen}
    made = rows[rows.status == "ok"]
    if made.empty:
        return line | {FROM: f"not run: {rows.reason.iloc[0]}", "data": ""}
    own = made[made.text_condition == "own"]
    scored = own[own.metric == "dsc"]
    class_name = made[(made.text_condition == "class_only") & (made.metric == "dsc")]
    means = {metric: own_means(made, metric).mean() for metric in METRICS}
    first = scored.iloc[0]
    return line | means | {
        UNIT: unit_of(own, "HD95"),
        CLASS_NAME: 100 * class_name["mean"].mean(),
        "seeds": len(scored),
        SPREAD: own_means(made, "DSC").std(),
        "trainable": int(first.trainable_parameters),
        "% of model": 100 * first.trainable_parameters / first.total_parameters,
        "samples": round(scored.n.mean()),
        "empty truth": round(scored.n_empty_truth.mean()),
        "empty prediction": round(scored.n_empty_prediction.mean()),
        FROM: source_of(first),
        "data": first.data,
    }


def _winner(dataset: str, rows: pd.DataFrame, seeds: int) -> str:
    """The sentence of one dataset.

    Args:
        rows: its lines of `_with_collapses`, the best first.
        seeds: how many there are.
    """
    tuned = rows[rows.trainable > 0]
    sound = tuned[~tuned.collapsed]
    where = f"On **{markdown_text(dataset)}** ({markdown_text(without_digests(rows[FROM].iloc[0]))})"
    if (rows["empty truth"] == rows.samples).all():
        return f"{where} every true mask is empty: there is nothing to find, so no method is the best one."
    fallen = len(tuned) - len(sound)
    aside = f" {fallen} collapsed {'model is' if fallen == 1 else 'models are'} left out ({MARK})." if fallen else ""
    if len(sound) < 2:
        return f"{where} fewer than two tuned methods have {'given usable masks' if fallen else 'run'}.{aside}"
    best, second = sound.iloc[0], sound.iloc[1]
    caution = "one seed, so a small lead decides nothing" if seeds == 1 else f"means of {seeds} seeds"
    winner, runner_up = markdown_text(best.method), markdown_text(second.method)
    return (f"{where} the best tuned method is **{winner}**: DSC {best.DSC:.1f} % at {best.trainable:,} "
            f"trainable parameters ({best['% of model']:.1f} % of the model), "
            f"{best.DSC - second.DSC:.1f} points before {runner_up} ({second.trainable:,}); {caution}."
            f"{aside}{_class_name(best)}")


def _class_name(best: pd.Series) -> str:
    """What the best method scores with the class name alone, where that is notably more or less."""
    gain = best.get(CLASS_NAME, float("nan")) - best.DSC
    if not abs(gain) >= NOTABLE:
        return ""
    return (f" With the class name alone it scores {best[CLASS_NAME]:.1f} %, {abs(gain):.1f} points "
            f"{'more' if gain > 0 else 'less'} than with its own prompt.")
