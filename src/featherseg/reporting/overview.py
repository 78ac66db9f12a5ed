"""The tables of the overview: what ran, how well, on which structures, and whether the prompt matters."""

from collections.abc import Iterator

import pandas as pd

from featherseg.core.markup import markdown_text
from featherseg.reporting import style
from featherseg.reporting.collapse import MARK, collapsed, described
from featherseg.reporting.frames import first_split
from featherseg.reporting.records import SEGMENTATION
from featherseg.reporting.study import Study
from featherseg.reporting.tables import FROM, METRICS, honest, made_here, own_means, show, source_of, unit_of
from featherseg.tasks.base import TASKS

COUNTED = ["seeds", "samples", "empty truth", "empty prediction"]
SPREAD = "± of DSC over seeds"
UNIT = "unit of HD95"
CLASS_NAME = "DSC, class name only"
NOTHING = 1.0  # DSC in % below which a structure counts as not found
MOST_NAMED = 6  # runs in a sentence
NOTABLE = 5.0  # points of DSC that the class name alone must gain to be named


def runs(study: Study) -> pd.DataFrame:
    """What ran: one line per run with its data, weights, hardware and commit, or the reason why it did not."""
    epochs = study.curves.groupby("run").epoch.max()
    lines = [{"recipe": row.recipe, "dataset": row.dataset, "seed": row.seed, "epochs": epochs.get(row.run),
              FROM: made_here(row), "data": row.data if row.status == "ok" else ""}
             for row in study.every_task.drop_duplicates("run").itertuples()]
    return honest(pd.DataFrame(lines).astype({"epochs": "Int64"}))


def other_tasks(study: Study) -> list:
    """For each task but segmentation its metrics by dataset and recipe, on each run's first split, mean over seeds,
    after a line that names the task; nothing where every run segments."""
    rows = first_split(study.every_task)
    shown = []
    for task in sorted(set(rows.task) - {SEGMENTATION}):
        shown += [style.heading(task), show(metrics_of(task, rows[rows.task == task]))]
    return shown


def metrics_of(task: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The metrics of one task: one line per dataset, recipe and condition, one column per metric.

    Args:
        task: its name.
        rows: records of its runs.
    """
    names = [metric.name for metric in TASKS[task].metrics if metric.average != "count"]
    lines = []
    for (dataset, _, condition), part in rows.groupby(["dataset", "recipe", "text_condition"], sort=False):
        first, means = part.iloc[0], part.groupby("metric")["mean"].mean()
        lines.append({"dataset": dataset, "method": first.title, "condition": condition,
                      **{name: means.get(name) for name in names}, "samples": first.n,
                      FROM: made_here(first), "data": first.data if first.status == "ok" else ""})
    frame = pd.DataFrame(lines, columns=["dataset", "method", "condition", *names, "samples", FROM, "data"])
    frame = frame.drop(columns="condition") if frame.condition.eq("").all() else frame
    return honest(frame.astype(dict.fromkeys(names, float) | {"samples": "Int64"}))


def unlisted(study: Study) -> str:
    """The runs on disk that the study does not list, named once; the empty string where there are none."""
    names = study.unlisted
    if not names:
        return ""
    shown = ", ".join(map(markdown_text, names[:MOST_NAMED])) + (", …" if len(names) > MOST_NAMED else "")
    count = "one run" if len(names) == 1 else f"{len(names)} runs"
    return (f"Not in these tables: {count} on disk that this study's params no longer list "
            f"({shown}). To show them, list their recipes, datasets and seeds again.")


def scores(study: Study) -> pd.DataFrame:
    """The main table, recipe by dataset: DSC and IoU in %, HD95 in its unit, with the own prompt, and DSC with the
    class name alone, where it was asked for.

    Means over samples (over every sentence of them, where each was scored) and seeds; the best DSC of a dataset
    comes first. Trainable parameters are those of the model that ran; samples with an empty mask are counted (mean
    over seeds). The split is named where it is another one than `test`. A collapsed model has a mark at its method.
    """
    return _scores(study).drop(columns="collapsed")


def verdict(study: Study) -> str:
    """One sentence per dataset: which method wins, at how many trainable parameters, by how much; collapsed models
    cannot win."""
    seeds = study.results.groupby("dataset").seed.nunique()
    sentences = [_winner(dataset, rows, seeds[dataset])
                 for dataset, rows in _scores(study).dropna(subset=["DSC"]).groupby("dataset")]
    return "\n\n".join(sentences) or "No run of this study has been made, so no method wins; the table says why."


def collapses(study: Study) -> str:
    """What the mark in the main table means, and for each marked line how many of its masks are empty or cover nearly
    all of the image; nothing where no model has collapsed."""
    lines = [f"{row.title} on {row.dataset}: {described(row)}"
             for row in _own_rows(study).itertuples() if collapsed(row)]
    if not lines:
        return ""
    listed = "\n".join(f"- {markdown_text(line)}" for line in lines)
    return (f"{MARK} Collapsed: most masks are empty although there is something to find, or cover nearly all of the "
            f"image although the structure does not. Such a model cannot be the best one, whatever its "
            f"mean.\n\n{listed}")


def language(study: Study) -> pd.DataFrame:
    """DSC in % with the sample's own prompt, with the class name alone, with an empty one and with another sample's,
    and what is lost.

    A model that reads its prompt loses much where language decides; one that only looks loses nothing.
    `no other prompt` counts samples that kept their own for want of a different one in the split.
    """
    scored = study.results[study.results.metric == "dsc"]
    lines = []
    for (dataset, _), rows in scored.groupby(["dataset", "recipe"]):
        mean = 100 * rows.groupby("text_condition")["mean"].mean()
        kept = rows[rows.text_condition == "other"].n_own_prompt.mean()
        lines.append({"dataset": dataset, "split": rows.split.iloc[0], "method": rows.title.iloc[0],
                      "own prompt": mean["own"], "class name only": mean.get("class_name"),
                      "empty prompt": mean["empty"], "another's prompt": mean["other"],
                      "lost without prompt": mean["own"] - mean["empty"],
                      "lost with another's": mean["own"] - mean["other"], "no other prompt": round(kept),
                      FROM: source_of(rows.iloc[0]), "data": rows.data.iloc[0]})
    columns = ["dataset", "split", "method", "own prompt", "class name only", "empty prompt", "another's prompt",
               "lost without prompt", "lost with another's", "no other prompt", FROM, "data"]
    frame = pd.DataFrame(lines, columns=columns).astype({"class name only": float})
    return honest(_told(frame).sort_values(["dataset", "lost with another's"], ascending=[True, False]))


def structures(study: Study) -> list:
    """For each dataset with several structures DSC in % by structure and method, with the own prompt and with the
    class name alone, and which structures a method does not find; each dataset after a line that names it."""
    rows = study.by_target[study.by_target.status == "ok"]
    shown = []
    for dataset, part in rows.groupby("dataset"):
        shown += [style.heading(f"{dataset} ({part.data.iloc[0]})"), *_by_structure(part)]
    return shown or [style.note("No dataset of this study that was scored has several structures.")]


def by_structure(rows: pd.DataFrame, condition: str) -> pd.DataFrame:
    """DSC in % of one dataset under one text condition, mean over seeds: one line per structure with its number of
    samples, one column per method, the best mean first.

    Args:
        rows: those of `Study.by_target`.
    """
    part = rows[rows.text_condition == condition]
    titles = dict(zip(part.recipe, part.title, strict=True))
    grid = 100 * part.pivot_table("mean", "target", "recipe", aggfunc="mean", sort=False)
    grid = grid[grid.mean().sort_values(ascending=False).index].rename(columns=titles)
    grid.insert(0, "samples", part.groupby("target").n.first().astype(int))
    return grid.rename_axis("structure").rename_axis(None, axis="columns").sort_index().reset_index()


def _by_structure(rows: pd.DataFrame) -> Iterator:
    """The tables and the remark of one dataset."""
    source = " / ".join(dict.fromkeys(source_of(row) for row in rows.itertuples()))
    own = by_structure(rows, "own")
    yield show(own, f"DSC in %, own prompt; {source}", digits=1)
    if "class_name" in set(rows.text_condition):
        yield show(by_structure(rows, "class_name"), f"DSC in %, class name only; {source}", digits=1)
    methods = own.drop(columns="samples").set_index("structure")
    missed = {structure: list(dsc.index[dsc < NOTHING]) for structure, dsc in methods.iterrows()}
    lines = [f"- {markdown_text(structure)}: by {_listed(names, methods.shape[1])}"
             for structure, names in missed.items() if names]
    if lines:
        yield style.note(f"Not found (own prompt, DSC below {NOTHING:.0f} %), which a mean over structures hides: "
                         f"{len(lines)} of {len(methods)} structures.\n\n" + "\n".join(lines))


def _listed(methods: list[str], count: int) -> str:
    return "every method" if len(methods) == count else markdown_text(", ".join(methods))


def _told(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame without its column `split` where that says `test` throughout, and without empty columns of the class
    name."""
    frame = frame.drop(columns="split") if frame.split.isin(["test", ""]).all() else frame
    asked = frame.columns.intersection([CLASS_NAME, "class name only"])
    return frame.drop(columns=[name for name in asked if frame[name].isna().all()])


def _own_rows(study: Study) -> pd.DataFrame:
    """DSC with the own prompt of every dataset and recipe that was scored, means over seeds."""
    made = study.results[(study.results.text_condition == "own") & (study.results.metric == "dsc")]
    counts = ["mean", "n", "n_empty_truth", "n_empty_prediction", "n_missed", "n_flooded"]
    return made.groupby(["dataset", "recipe", "title"], sort=False)[counts].mean().reset_index()


def _scores(study: Study) -> pd.DataFrame:
    """`scores`, with a column that says whether the model has collapsed."""
    fallen = {(row.dataset, row.recipe) for row in _own_rows(study).itertuples() if collapsed(row)}
    lines = [_scores_line(dataset, recipe, rows, (dataset, recipe) in fallen)
             for (dataset, recipe), rows in study.results.groupby(["dataset", "recipe"], sort=False)]
    columns = ["dataset", "split", "method", "recipe", "DSC", CLASS_NAME, "IoU", "HD95", UNIT, SPREAD, "trainable",
               "% of model", *COUNTED, FROM, "data", "collapsed"]
    frame = pd.DataFrame(lines).reindex(columns=columns)
    frame = frame.astype(dict.fromkeys(["trainable", *COUNTED], "Int64") | {CLASS_NAME: float, "collapsed": bool})
    if (frame.seeds.fillna(1) == 1).all():
        frame = frame.drop(columns=["seeds", SPREAD])
    units = frame[UNIT].dropna().unique()
    if len(units) == 1:
        frame = frame.drop(columns=UNIT).rename(columns={"HD95": f"HD95 ({units[0]})"})
    return honest(_told(frame).sort_values(["dataset", "DSC"], ascending=[True, False], na_position="last"))


def _scores_line(dataset: str, recipe: str, rows: pd.DataFrame, fallen: bool) -> dict:
    line = {"dataset": dataset, "split": rows.split.max(), "method": rows.title.iloc[0], "recipe": recipe,
            "collapsed": fallen}
    made = rows[rows.status == "ok"]
    if made.empty:
        return line | {FROM: f"not run: {rows.reason.iloc[0]}", "data": ""}
    scored = made[(made.text_condition == "own") & (made.metric == "dsc")]
    class_name = made[(made.text_condition == "class_name") & (made.metric == "dsc")]
    first = next(scored.itertuples())
    return line | {metric: own_means(made, metric).mean() for metric in METRICS} | {
        "method": f"{line['method']} {MARK}" if fallen else line["method"],
        UNIT: unit_of(made[made.text_condition == "own"], "HD95"), CLASS_NAME: 100 * class_name["mean"].mean(),
        "seeds": len(scored), SPREAD: own_means(made, "DSC").std(),
        "trainable": int(first.trainable_parameters),
        "% of model": 100 * first.trainable_parameters / first.total_parameters,
        "samples": round(scored.n.mean()),
        "empty truth": round(scored.n_empty_truth.mean()),
        "empty prediction": round(scored.n_empty_prediction.mean()),
        FROM: source_of(first), "data": first.data}


def _winner(dataset: str, rows: pd.DataFrame, seeds: int) -> str:
    tuned = rows[rows.trainable > 0]
    sound = tuned[~tuned.collapsed]
    where = f"On **{markdown_text(dataset)}** ({markdown_text(rows[FROM].iloc[0])})"
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
