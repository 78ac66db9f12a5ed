"""The tables of the overview: what ran, how well, and whether the prompt matters."""

import pandas as pd

from featherseg.markup import markdown_text
from featherseg.reporting.study import Study, title_of
from featherseg.reporting.tables import FROM, METRICS, honest, made_here, own_means, source_of

COUNTED = ["seeds", "samples", "empty truth", "empty prediction"]
SPREAD = "± of DSC over seeds"


def runs(study: Study) -> pd.DataFrame:
    """What ran: one line a run with its data, weights, hardware and commit, or the reason why it did not."""
    epochs = study.curves.groupby("run").epoch.max()
    lines = [{"recipe": row.recipe, "dataset": row.dataset, "seed": row.seed, "epochs": epochs.get(row.run),
              FROM: made_here(study, row), "data": row.data if row.status == "ok" else ""}
             for row in study.results.drop_duplicates("run").itertuples()]
    return honest(pd.DataFrame(lines).astype({"epochs": "Int64"}))


def scores(study: Study) -> pd.DataFrame:
    """The main table, recipe by dataset: DSC and IoU in %, HD95 in pixels, with the own prompt.

    Means over samples (over every sentence of them, where each was scored) and seeds; the best DSC of a dataset
    comes first. Trainable parameters are those of the model that ran; samples with an empty mask are counted (mean
    over seeds). The split is named where it is another one than `test`.
    """
    lines = [_scores_line(dataset, recipe, rows)
             for (dataset, recipe), rows in study.results.groupby(["dataset", "recipe"], sort=False)]
    columns = ["dataset", "split", "method", "recipe", *METRICS, SPREAD, "trainable", "% of model", *COUNTED, FROM,
               "data"]
    frame = pd.DataFrame(lines).reindex(columns=columns)
    frame = frame.astype(dict.fromkeys(["trainable", *COUNTED], "Int64"))
    if (frame.seeds.fillna(1) == 1).all():
        frame = frame.drop(columns=["seeds", SPREAD])
    return honest(_named_split(frame).sort_values(["dataset", "DSC"], ascending=[True, False], na_position="last"))


def verdict(study: Study) -> str:
    """One sentence a dataset: which method wins, at how many trainable parameters, by how much."""
    seeds = study.results.groupby("dataset").seed.nunique()
    said = [_winner(dataset, rows, seeds[dataset])
            for dataset, rows in scores(study).dropna(subset=["DSC"]).groupby("dataset")]
    return "\n\n".join(said) or "No run of this study has been made, so no method wins; the table says why."


def language(study: Study) -> pd.DataFrame:
    """DSC in % with the sample's own prompt, with an empty one and with another sample's, and what is lost.

    A model that reads its prompt loses much where language decides; one that only looks loses nothing.
    `no other prompt` counts samples that kept their own for want of a different one in the split.
    """
    scored = study.results[study.results.metric == "dsc"]
    lines = []
    for (dataset, recipe), rows in scored.groupby(["dataset", "recipe"]):
        mean = 100 * rows.groupby("text_condition")["mean"].mean()
        kept = rows[rows.text_condition == "other"].n_own_prompt.mean()
        lines.append({"dataset": dataset, "split": rows.split.iloc[0], "method": title_of(recipe),
                      "own prompt": mean["own"], "empty prompt": mean["empty"], "another's prompt": mean["other"],
                      "lost without prompt": mean["own"] - mean["empty"],
                      "lost with another's": mean["own"] - mean["other"], "no other prompt": round(kept),
                      FROM: source_of(rows.iloc[0]), "data": rows.data.iloc[0]})
    columns = ["dataset", "split", "method", "own prompt", "empty prompt", "another's prompt", "lost without prompt",
               "lost with another's", "no other prompt", FROM, "data"]
    frame = pd.DataFrame(lines, columns=columns)
    return honest(_named_split(frame).sort_values(["dataset", "lost with another's"], ascending=[True, False]))


def _named_split(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame without its column `split` where that says `test` throughout."""
    return frame.drop(columns="split") if frame.split.isin(["test", ""]).all() else frame


def _scores_line(dataset: str, recipe: str, rows: pd.DataFrame) -> dict:
    line = {"dataset": dataset, "split": rows.split.max(), "method": title_of(recipe), "recipe": recipe}
    made = rows[rows.status == "ok"]
    if made.empty:
        return line | {FROM: f"not run: {rows.reason.iloc[0]}", "data": ""}
    scored = made[(made.text_condition == "own") & (made.metric == "dsc")]
    first = next(scored.itertuples())
    return line | {metric: own_means(made, metric).mean() for metric in METRICS} | {
        "seeds": len(scored), SPREAD: own_means(made, "DSC").std(),
        "trainable": int(first.trainable_parameters),
        "% of model": 100 * first.trainable_parameters / first.total_parameters,
        "samples": round(scored.n.mean()),
        "empty truth": round(scored.n_empty_truth.mean()),
        "empty prediction": round(scored.n_empty_prediction.mean()),
        FROM: source_of(first), "data": first.data}


def _winner(dataset: str, rows: pd.DataFrame, seeds: int) -> str:
    trained = rows[rows.trainable > 0]
    where = f"On **{markdown_text(dataset)}** ({markdown_text(rows[FROM].iloc[0])})"
    if len(trained) < 2:
        return f"{where} fewer than two tuned methods have run."
    best, second = trained.iloc[0], trained.iloc[1]
    caution = "one seed, so a small lead decides nothing" if seeds == 1 else f"means of {seeds} seeds"
    winner, runner_up = markdown_text(best.method), markdown_text(second.method)
    return (f"{where} the best tuned method is **{winner}**: DSC {best.DSC:.1f} % at {best.trainable:,} "
            f"trainable parameters ({best['% of model']:.1f} % of the model), "
            f"{best.DSC - second.DSC:.1f} points before {runner_up} ({second.trainable:,}); {caution}.")
