"""ETRIS's tables: published beside made here, every measure under its own name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from featherseg.papers.etris import published
from featherseg.reporting import beside
from featherseg.reporting.beside import HERE, RELEASED, Column
from featherseg.reporting.study import Study
from featherseg.reporting.tables import FROM, NOT_RUN, NOT_VERIFIED, PUBLISHED, honest, made_here, source_of
from featherseg.tasks.segmentation.referring import ALL, FIRST, MEASURES, MIOU, OIOU

SETS = {FIRST: "first sentence", ALL: "all sentences"}
COUNTS = {"expressions": "n", "empty truth": "n_empty_truth", "empty prediction": "n_empty_prediction"}
MAIN = ((MIOU, 0.35), (OIOU, 0.5), ("P@0.5", 0.5))


@dataclass(frozen=True)
class Paper:
    """A paper's rows beside ours.

    Attributes:
        name: of the paper's model.
        columns: of its table.
        printed: the name of the measure that it prints.
        rows: the printed numbers in %, with the columns title, dataset, split, value and source.
    """

    name: str
    columns: tuple[Column, ...]
    printed: str
    rows: Callable[[], pd.DataFrame]

    @property
    def titles(self) -> list[str]:
        """The titles of its columns."""
        return [column.title for column in self.columns]

    def recipes(self, *labels: str) -> set[str]:
        """The recipes that make its columns, of lines with these labels."""
        return {recipe for column in self.columns for label in labels for recipe in column.made_by(label)}


ETRIS = Paper("ETRIS", published.COLUMNS, published.PRINTED, published.rows)


def named(measure: str, threshold: float, sentences: str = ALL) -> str:
    """A measure under its whole name: `mIoU@0.35, all sentences`."""
    return f"{measure} at {threshold:g}, {SETS[sentences]}"


def main_table(study: Study, paper: Paper = ETRIS) -> pd.DataFrame:
    """A paper on each split: the published number, and below it what was made here, by the measures of `MAIN`.

    The published number is compared with mIoU at 0.35 over all sentences, which is what the released code prints as
    IoU. Datasets on which something was made come first, and those that the paper lacks have no published line; those
    that were not scored sentence by sentence have the mean IoU at the run's threshold.
    """
    rows = paper.rows()
    values = published.by_split(rows, paper.columns)
    ran = study.every_result
    declared = set(ran.dataset[ran.recipe.isin(paper.recipes(HERE, RELEASED))])
    lines = []
    for (dataset, split), row in values.iterrows():
        printed = row.dropna().to_dict()
        place = {"dataset": dataset, "split": split, "measure": paper.printed}
        read_from = published.sources(rows[(rows.dataset == dataset) & (rows.split == split)])
        cells = {title: f"{printed[title]:.2f}" if title in printed else NOT_VERIFIED for title in paper.titles}
        lines.append(beside.line(place, PUBLISHED, f"published: {read_from}", cells))
        if dataset in declared:
            lines += _lines_here(study, paper, dataset, split, printed)
    for dataset in values.index.unique("dataset"):
        if dataset not in declared:
            place = {"dataset": dataset, "split": "all", "measure": "all"}
            reason = f"not run: no {paper.name} on '{dataset}' in study '{study.name}'"
            lines.append(beside.line(place, HERE, reason, dict.fromkeys(paper.titles, NOT_RUN)))
    own = ran[ran.dataset.isin(declared - set(values.index.unique("dataset")))]
    for dataset, split in own[["dataset", "split"]].drop_duplicates().itertuples(index=False):
        lines += _lines_here(study, paper, dataset, split, {})
    columns = ["dataset", "split", "measure", "", *paper.titles, FROM, "data"]
    return honest(pd.DataFrame(beside.ran_first(lines), columns=columns))


def measures(study: Study) -> pd.DataFrame:
    """Every measure in % of every run that was scored sentence by sentence: a line for each dataset, split, method,
    set of sentences and threshold; means over seeds. What was not run follows, a line for each reason."""
    rows = study.every_result
    scored = rows[rows.sentences != ""].sort_values(["dataset", "split"], kind="stable")
    lines = []
    for _, part in scored.groupby(["dataset", "split", "recipe"], sort=False):
        for _, group in sorted(part.groupby(["sentences", "threshold"]), key=_first_first):
            lines.append(_measured(group))
    for (dataset, reason), part in _not_scored(study).groupby(["dataset", "why"], sort=False):
        titles = sorted(set(part.title))
        lines.append({"dataset": dataset, "method": titles[0] if len(titles) == 1 else f"{len(titles)} methods",
                      FROM: reason, "data": ""})
    columns = ["dataset", "split", "method", "sentences", "threshold", *MEASURES, *COUNTS, FROM, "data"]
    frame = pd.DataFrame(lines, columns=columns)
    whole = {name: frame[name].astype(float).round().astype("Int64") for name in COUNTS}
    return honest(frame.assign(**whole))


def _measured(group: pd.DataFrame) -> dict[str, Any]:
    """The line of one method on one split, for one set of sentences and one threshold."""
    first = group.iloc[0]
    mean = group.groupby("metric")[["mean", *COUNTS.values()]].mean()
    measured = {name: 100 * mean.loc[name, "mean"] for name in MEASURES}
    counts = {name: mean[column].iloc[0] for name, column in COUNTS.items()}
    return {"dataset": first.dataset, "split": first.split, "method": first.title,
            "sentences": SETS[first.sentences], "threshold": f"{first.threshold:g}", **measured, **counts,
            FROM: source_of(first), "data": first.data}


def _lines_here(study: Study, paper: Paper, dataset: str, split: str,
                printed: Mapping[str, float]) -> list[dict[str, Any]]:
    """Lines for what a study made on a split: the correct recipes, then those as released."""
    rows = study.every_result[study.every_result.dataset == dataset]
    lines = []
    for label in (HERE, RELEASED):
        declared = rows[rows.recipe.isin(paper.recipes(label))]
        if declared.empty:
            continue
        place = {"dataset": dataset, "split": split}
        made = declared[(declared["split"] == split) & (declared.status == "ok")]
        if made.empty:
            reasons = sorted(set(declared.reason) - {""}) or [f"split '{split}' was not scored"]
            cells = dict.fromkeys(paper.titles, NOT_RUN)
            lines.append(beside.line(place | {"measure": "all"}, label, f"not run: {'; '.join(reasons)}", cells))
            continue
        runs = made.drop_duplicates("run")
        source = "; ".join(dict.fromkeys(made_here(row) for row in runs.itertuples()))
        for measure, values in _by_measure(made):
            comparable = printed if measure == named(*MAIN[0]) else {}
            cells = {column.title: _cell(beside.rows_of(values, column.made_by(label)), comparable.get(column.title))
                     for column in paper.columns}
            lines.append(beside.line(place | {"measure": measure}, label, source, cells, made.data.iloc[0]))
    return lines


def _by_measure(made: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows by the name of their measure: those of `MAIN`, or the mean IoU where sentences were not scored."""
    whole = made[made.sentences == ALL]
    measured = []
    for measure, threshold in MAIN:
        rows = whole[(whole.metric == measure) & (whole.threshold == threshold)]
        measured.append((named(measure, threshold), rows))
    if len(measured[0][1]):
        return measured
    plain = made[(made.metric == "iou") & (made.text_condition == "own")]
    return [(f"{MIOU} at {threshold:g}, one prompt", rows) for threshold, rows in plain.groupby("threshold")]


def _cell(rows: pd.DataFrame, printed: float | None) -> str:
    """Mean over seeds in %, beside the published number."""
    return NOT_RUN if rows.empty else beside.cell(rows, 100 * rows["mean"].mean(), printed)


def _not_scored(study: Study) -> pd.DataFrame:
    """Runs without sentence scores, with the reason in column `why`."""
    rows = study.every_result
    unscored = rows[~rows.run.isin(rows[rows.sentences != ""].run)].drop_duplicates("run")
    whole = [f"not scored sentence by sentence: evaluate.prompts is '{prompts}'" for prompts in unscored.prompts]
    return unscored.assign(why=("not run: " + unscored.reason).where(unscored.status != "ok", whole))


def _first_first(group: tuple[tuple[str, float], pd.DataFrame]) -> tuple[int, float]:
    (sentences, threshold), _ = group
    return list(SETS).index(sentences), threshold
