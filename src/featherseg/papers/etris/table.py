"""ETRIS's tables: published beside made here, every measure under its own name."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch.nn import Parameter

from featherseg.config import ModelConfig, Run
from featherseg.core.markup import markdown_text
from featherseg.describe import without_weights
from featherseg.models import having
from featherseg.models.etris.config import HEAD_PARTS
from featherseg.papers.etris import published
from featherseg.papers.etris.published import BACKBONES
from featherseg.reporting import beside
from featherseg.reporting.beside import HERE, NOT_RUN, PUBLISHED, RELEASED, Column
from featherseg.reporting.experiments import with_experiments
from featherseg.reporting.frames import first_split
from featherseg.reporting.published import sources
from featherseg.reporting.study import Study
from featherseg.reporting.tables import FROM, honest, made_here, source_of
from featherseg.tasks.segmentation.referring import ALL, FIRST, MEASURES, MIOU, OIOU

SETS = {FIRST: "first sentence", ALL: "all sentences"}
MAIN = ((MIOU, 0.35), (OIOU, 0.5), ("P@0.5", 0.5))
BRIDGER = "bridger"
PARTS = HEAD_PARTS
KNOBS: Mapping[str, tuple] = {
    "dim": (8, 16, 32, 64, 128), "stages": (1, 2, 3), "direction": ("both", "text_to_vision", "vision_to_text"),
    "head_parts": ("", *("+".join(other for other in PARTS if other != part) for part in PARTS))}
ABLATED = ("dim", "stages", "head_parts")  # what makes a Bridger's run one of an ablation, not of a method
COUNTED_FOR = ("etris_r50", "etris_vit")
CONNECT = "attnpool.connect"


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
    IoU. Datasets that the paper lacks follow, without a published line; those that were not scored sentence by sentence
    have the mean IoU at the run's threshold.
    """
    rows = paper.rows()
    values = published.by_split(rows, paper.columns)
    ran = study.every_result
    declared = set(ran.dataset[ran.recipe.isin(paper.recipes(HERE, RELEASED))])
    lines = []
    for (dataset, split), row in values.iterrows():
        printed = row.dropna().to_dict()
        place = {"dataset": dataset, "split": split, "measure": paper.printed}
        read_from = sources(rows[(rows.dataset == dataset) & (rows.split == split)])
        cells = {title: f"{printed[title]:.2f}" if title in printed else "not verified" for title in paper.titles}
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
    return honest(pd.DataFrame(lines, columns=columns))


def measures(study: Study) -> pd.DataFrame:
    """Every measure in % of every run that was scored sentence by sentence: a line for each dataset, split, method,
    set of sentences and threshold; means over seeds. What was not run follows, a line for each reason."""
    rows = study.every_result
    scored = rows[rows.sentences != ""].sort_values(["dataset", "split"], kind="stable")
    lines = []
    for (dataset, split, _), part in scored.groupby(["dataset", "split", "recipe"], sort=False):
        first = part.iloc[0]
        for (sentences, threshold), group in sorted(part.groupby(["sentences", "threshold"]), key=_first_first):
            mean = group.groupby("metric")[["mean", "n", "n_empty_truth", "n_empty_prediction"]].mean()
            measured = {name: 100 * mean.loc[name, "mean"] for name in MEASURES}
            lines.append({"dataset": dataset, "split": split, "method": first.title, "sentences": SETS[sentences],
                          "threshold": f"{threshold:g}", **measured,
                          "expressions": mean.n.iloc[0], "empty truth": mean.n_empty_truth.iloc[0],
                          "empty prediction": mean.n_empty_prediction.iloc[0],
                          FROM: source_of(first), "data": first.data})
    for (dataset, reason), part in _not_scored(study).groupby(["dataset", "why"], sort=False):
        methods = sorted(set(part.title))
        lines.append({"dataset": dataset, "method": methods[0] if len(methods) == 1 else f"{len(methods)} methods",
                      FROM: reason, "data": ""})
    counts = ["expressions", "empty truth", "empty prediction"]
    columns = ["dataset", "split", "method", "sentences", "threshold", *MEASURES, *counts, FROM, "data"]
    frame = pd.DataFrame(lines, columns=columns)
    return honest(frame.assign(**{name: frame[name].astype(float).round().astype("Int64") for name in counts}))


def elsewhere() -> pd.DataFrame:
    """What other papers print on the same splits, in %, each under the name that its source gives the measure."""
    return published.elsewhere()


def parameters() -> pd.DataFrame:
    """Trainable parameters of ETRIS by backbone: published, of the released code, and counted at full size.

    Shares are those of CLIP's own parameters, without the ResNets' `connect`, which CLIP lacks. The published number is
    looked for among the Bridgers of all widths of the ablation.
    """
    lines = []
    for title, model in BACKBONES.items():
        millions, released = published.millions()[title], published.released_counts()[title]
        counted = full_size(model)
        widths = [f"a Bridger of dim {dim}" for dim in KNOBS["dim"]
                  if round(full_size(model, dim=dim)["bridger"] / 1e6, 2) == millions]
        equal = (released["Bridger"], released["HA+GA+Projector"]) == (counted["bridger"], counted["head"])
        lines.append({
            "backbone": title, "published": f"{millions:g}M", "which is": "; ".join(widths) or "none of ours",
            "released code, Bridger": released["Bridger"],
            "Bridger": counted["bridger"], "% of CLIP": 100 * counted["bridger"] / counted["clip"],
            "positions": counted["positions"],
            "with positions, %": 100 * (counted["bridger"] + counted["positions"]) / counted["clip"],
            "released code, head": released["HA+GA+Projector"], "head": counted["head"],
            "all trainable": counted["trainable"], "CLIP": counted["clip"], "equal": "yes" if equal else "NO"})
    return pd.DataFrame(lines)


def bridger_shares() -> pd.DataFrame:
    """The trained part of the backbone as a share of everything that could be called the backbone, at full size.

    Returns:
        backbone, trained (Bridger, or with the positions that train along), counted as backbone, parameters of both,
        and the share in %.
    """
    lines = []
    for title, model in BACKBONES.items():
        counted = full_size(model)
        clip, vision, connect = (counted[part] for part in ("clip", "vision", "connect"))
        wholes = {"CLIP": clip, "its vision tower": vision}
        if connect:
            wholes = {"CLIP": clip, "CLIP with connect": clip + connect,
                      "its vision tower": vision, "its vision tower with connect": vision + connect}
        trained = {"Bridger": counted["bridger"], "Bridger and positions": counted["bridger"] + counted["positions"]}
        for name, count in trained.items():
            for whole, size in wholes.items():
                lines.append({"backbone": title, "trained": name, "parameters": count, "counted as backbone": whole,
                              "of": size, "% of it": 100 * count / size})
    return pd.DataFrame(lines)


@functools.cache
def full_size(model: str, head_parts: str = "", **knobs: Any) -> dict[str, int]:
    """Parameters of a full-size ETRIS with its Bridger, whose knobs are the paper's but for those given: bridger,
    positions, head, connect, clip (without connect), vision (without connect) and trainable. `head_parts` are those of
    the head, joined by `+`, or nothing for all."""
    config = ModelConfig(name=model, head_parts=tuple(head_parts.split("+")) if head_parts else None)
    network = without_weights(f"{model}-{BRIDGER}", config, {"name": BRIDGER, **knobs})

    def count(wanted: Callable[[str, Parameter], bool]) -> int:
        return sum(p.numel() for name, p in network.named_parameters() if wanted(name, p))

    return {
        "bridger": count(lambda name, p: name.startswith("exchange.")),
        "positions": count(lambda name, p: "positional_embedding" in name),
        "head": count(lambda name, p: name.startswith(network.decoder_modules)),
        "connect": count(lambda name, p: CONNECT in name),
        "clip": count(lambda name, p: name.startswith("net.backbone.") and CONNECT not in name),
        "vision": count(lambda name, p: name.startswith("net.backbone.visual.") and CONNECT not in name),
        "trainable": count(lambda name, p: p.requires_grad)}


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
        usual = _usual(part)
        for knob in ABLATED:
            ablated |= part[knob].ne(usual[knob]).reindex(rows.index, fill_value=False)
    return rows[~ablated]


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


def ablations(study: Study) -> pd.DataFrame:
    """What the Bridger's width, stages and direction and the head's parts change: parameters at full size; accuracy in
    %, trainable parameters and memory of this study's runs that differ in nothing else from its Bridger. A line says
    which values were not run.

    Runs are those of this study, and of the experiments of this commit that changed these knobs alone.
    """
    results = with_experiments(study, [f"{'model' if knob == 'head_parts' else 'adapter'}.{knob}" for knob in KNOBS])
    declared = results[(results.adapter == BRIDGER) & ~results.released]
    rows = accuracy(declared)
    if rows.empty:
        reasons = "; ".join(sorted(set(declared.reason) - {""})) or f"no Bridger in study '{study.name}'"
        lines = _ablation_lines({}, rows, f"not run: {reasons}")
    else:
        lines = []
        for (dataset, model), part in rows.groupby(["dataset", "model"], sort=False):
            lines += _ablation_lines({"dataset": dataset, "model": model}, part, "not run")
    counted = [f"{part}, {model}" for model in COUNTED_FOR for part in ("Bridger", "head")]
    made = ["measure", "accuracy", "trainable", "memory (MiB)"]
    columns = ["dataset", "model", "knob", "value", *counted, *made, FROM, "data"]
    frame = pd.DataFrame(lines, columns=columns if len(rows) else columns[2:])
    frame["memory (MiB)"] = frame["memory (MiB)"].astype(float).round()
    whole = dict.fromkeys([*counted, "trainable", "memory (MiB)"], "Int64")
    return honest(frame.astype(whole | {"accuracy": float}))


def _usual(rows: pd.DataFrame) -> pd.Series:
    """The row of the Bridger with nothing changed: of a recipe of the main table, or the first."""
    usual = rows[rows.recipe.isin(ETRIS.recipes(HERE))]
    return (rows if usual.empty else usual).iloc[0]


def _ablation_lines(known: dict[str, Any], rows: pd.DataFrame, missing: str) -> list[dict[str, Any]]:
    """A line for each value of each knob, in the runs of one model on one dataset.

    Args:
        known: the columns that all lines share.
        rows: the runs' accuracy.
        missing: what a line says where its value was not run.
    """
    lines = []
    for knob, values in KNOBS.items():
        alike = rows if rows.empty else rows[_alike(rows, _usual(rows), knob)]
        by_value = dict(iter(alike.groupby(knob)))
        for value in [*values, *sorted(set(by_value) - set(values))]:
            sizes = {f"{part}, {model}": _size(model, knob, value, part.lower())
                     for model in COUNTED_FOR for part in ("Bridger", "head")}
            lines.append(known | {"knob": knob.replace("_", " "), "value": _value_text(knob, value)} | sizes
                         | _ablation(by_value.get(value), missing))
    return lines


def _value_text(knob: str, value: Any) -> str:
    """A knob's value as tables call it."""
    if knob != "head_parts":
        return value if isinstance(value, str) else f"{value:g}"
    missing = [part.replace("_", " ") for part in PARTS if part not in value.split("+")]
    return f"without {' and '.join(missing)}" if value else "all three parts"


def _ablation(rows: pd.DataFrame | None, missing: str) -> dict[str, Any]:
    if rows is None:
        return {FROM: missing, "data": ""}
    first = rows.iloc[0]
    return {"measure": first.measure, "accuracy": rows.accuracy.mean(), "data": first.data,
            "trainable": int(first.trainable_parameters), "memory (MiB)": rows.memory.mean(),
            FROM: f"{first.data}, split {first.split}"}


def _size(model: str, knob: str, value: Any, part: str) -> int:
    return full_size(model, **{knob: value if isinstance(value, str) else int(value)})[part]


def _alike(rows: pd.DataFrame, usual: pd.Series, knob: str) -> pd.Series:
    """Which rows differ from the usual Bridger's in this knob at most."""
    alike = pd.Series(True, rows.index)
    for other in set(KNOBS) - {knob}:
        alike &= rows[other] == usual[other]
    return alike


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
    measured = [(named(measure, threshold), whole[(whole.metric == measure) & (whole.threshold == threshold)])
                for measure, threshold in MAIN]
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
