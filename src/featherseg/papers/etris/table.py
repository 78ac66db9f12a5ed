"""ETRIS's tables: published beside made here, every measure under its own name."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch.nn import Parameter

from featherseg.config import ModelConfig
from featherseg.core.markup import markdown_text
from featherseg.describe import without_weights
from featherseg.models import having
from featherseg.models.etris.config import HEAD_PARTS
from featherseg.reporting import published
from featherseg.reporting.experiments import with_experiments
from featherseg.reporting.published import AS_RELEASED, BACKBONES, IOU_PRINTED
from featherseg.reporting.study import Study, first_split, title_of
from featherseg.reporting.tables import FROM, comparable, honest, made_here, source_of
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
        models: title -> our model.
        method: what tunes it.
        measure: the name of the printed numbers.
        values: the printed numbers in %, by our data set and split, a column a title.
        sources: where those of a data set and split were read.
    """

    name: str
    models: Mapping[str, str]
    method: str
    measure: str
    values: Callable[[], pd.DataFrame]
    sources: Callable[[str, str], str]

    def recipes(self, suffix: str) -> dict[str, str]:
        """Title -> the recipe of its row."""
        return {title: f"{model}-{self.method}{suffix}" for title, model in self.models.items()}


ETRIS = Paper("ETRIS", BACKBONES, BRIDGER, IOU_PRINTED, published.etris, published.etris_sources)


def named(measure: str, threshold: float, sentences: str = ALL) -> str:
    """A measure under its whole name: `mIoU@0.35, all sentences`."""
    return f"{measure} at {threshold:g}, {SETS[sentences]}"


def main_table(study: Study, paper: Paper = ETRIS) -> pd.DataFrame:
    """A paper on each split: the published number, and below it what was made here, by the measures of `MAIN`.

    The distance to the published number stands in brackets beside mIoU at 0.35 over all sentences, which is what
    the released code prints as IoU. Data sets that the paper lacks follow, without a published line; those that
    were not scored sentence by sentence have the mean IoU at the run's threshold.
    """
    values, lines = paper.values(), []
    recipes = {*paper.recipes("").values(), *paper.recipes(AS_RELEASED).values()}
    declared = set(study.every_result.dataset[study.every_result.recipe.isin(recipes)])
    for (dataset, split), row in values.iterrows():
        theirs = row.dropna().to_dict()
        lines.append({"dataset": dataset, "split": split, "measure": paper.measure, "": "published", "data": "",
                      FROM: f"published: {paper.sources(dataset, split)}"}
                     | {title: f"{theirs[title]:.2f}" if title in theirs else "not verified" for title in paper.models})
        lines += _lines_here(study, paper, dataset, split, theirs) if dataset in declared else []
    for dataset in values.index.unique("dataset"):
        if dataset not in declared:
            lines.append({"dataset": dataset, "split": "all", "measure": "all", "": "here", "data": "",
                          FROM: f"not run: no {paper.name} on '{dataset}' in study '{study.name}'"}
                         | dict.fromkeys(paper.models, "not run"))
    own = study.every_result[study.every_result.dataset.isin(declared - set(values.index.unique("dataset")))]
    for dataset, split in own[["dataset", "split"]].drop_duplicates().itertuples(index=False):
        lines += _lines_here(study, paper, dataset, split, {})
    columns = ["dataset", "split", "measure", "", *paper.models, FROM, "data"]
    return honest(pd.DataFrame(lines, columns=columns))


def measures(study: Study) -> pd.DataFrame:
    """Every measure in % of every run that was scored sentence by sentence: a line for each data set, split, method,
    set of sentences and threshold; means over seeds. What was not run follows, a line for each reason."""
    rows = study.every_result
    scored = rows[rows.sentences != ""].sort_values(["dataset", "split"], kind="stable")
    lines = []
    for (dataset, split, recipe), part in scored.groupby(["dataset", "split", "recipe"], sort=False):
        for (sentences, threshold), of in sorted(part.groupby(["sentences", "threshold"]), key=_first_first):
            mean = of.groupby("metric")[["mean", "n", "n_empty_truth", "n_empty_prediction"]].mean()
            lines.append({"dataset": dataset, "split": split, "method": title_of(recipe), "sentences": SETS[sentences],
                          "threshold": f"{threshold:g}", **{name: 100 * mean.loc[name, "mean"] for name in MEASURES},
                          "expressions": mean.n.iloc[0], "empty truth": mean.n_empty_truth.iloc[0],
                          "empty prediction": mean.n_empty_prediction.iloc[0],
                          FROM: source_of(part.iloc[0]), "data": part.data.iloc[0]})
    for (dataset, reason), part in _not_scored(study).groupby(["dataset", "why"], sort=False):
        methods = sorted({title_of(recipe) for recipe in part.recipe})
        lines.append({"dataset": dataset, "method": methods[0] if len(methods) == 1 else f"{len(methods)} methods",
                      FROM: reason, "data": ""})
    counts = ["expressions", "empty truth", "empty prediction"]
    columns = ["dataset", "split", "method", "sentences", "threshold", *MEASURES, *counts, FROM, "data"]
    frame = pd.DataFrame(lines, columns=columns)
    return honest(frame.assign(**{name: frame[name].astype(float).round().astype("Int64") for name in counts}))


def elsewhere() -> pd.DataFrame:
    """What other papers print on the same splits, in %, each under the name that its source gives the measure."""
    return published.referring_elsewhere()


def parameters() -> pd.DataFrame:
    """Trainable parameters of ETRIS by backbone: published, of the released code, and counted at full size.

    Shares are those of CLIP's own parameters, of which the ResNets' `connect` is none. The published number is
    looked for among the Bridgers of all widths of the ablation.
    """
    printed, released = published.etris_millions(), published.etris_counts()
    lines = []
    for title, model in BACKBONES.items():
        counted, theirs = full_size(model), released[title]
        widths = [f"a Bridger of dim {dim}" for dim in KNOBS["dim"]
                  if round(full_size(model, dim=dim)["bridger"] / 1e6, 2) == printed[title]]
        lines.append({
            "backbone": title, "published": f"{printed[title]:g}M", "which is": "; ".join(widths) or "none of ours",
            "released code, Bridger": theirs["Bridger"],
            "Bridger": counted["bridger"], "% of CLIP": 100 * counted["bridger"] / counted["clip"],
            "positions": counted["positions"],
            "with positions, %": 100 * (counted["bridger"] + counted["positions"]) / counted["clip"],
            "released code, head": theirs["HA+GA+Projector"], "head": counted["head"],
            "all trainable": counted["trainable"], "CLIP": counted["clip"],
            "equal": "yes" if (theirs["Bridger"], theirs["HA+GA+Projector"]) == (counted["bridger"], counted["head"])
            else "NO"})
    return pd.DataFrame(lines)


def bridger_shares() -> pd.DataFrame:
    """The trained part of the backbone as a share of all that could be called the backbone, at full size.

    Returns:
        backbone, trained (Bridger, or with the positions that train along), counted as backbone, parameters of both,
        and the share in %.
    """
    lines = []
    for title, model in BACKBONES.items():
        counted = full_size(model)
        clip, vision, connect = (counted[part] for part in ("clip", "vision", "connect"))
        wholes = {"CLIP": clip, "CLIP with connect": clip + connect,
                  "its vision tower": vision, "its vision tower with connect": vision + connect}
        for trained, count in (("Bridger", counted["bridger"]),
                               ("Bridger and positions", counted["bridger"] + counted["positions"])):
            lines += [{"backbone": title, "trained": trained, "parameters": count, "counted as backbone": whole,
                       "of": of, "% of it": 100 * count / of}
                      for whole, of in wholes.items() if connect or "connect" not in whole]
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
    """One accuracy in % a run on its first split: mIoU at 0.35 over all sentences where they were scored, else the
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
    rows = rows[rows.model.isin(having("head_parts")) & ~rows.recipe.str.endswith(AS_RELEASED)]
    ablated = pd.Series(False, rows.index)
    for _, part in rows[rows.adapter == BRIDGER].groupby("model"):
        usual = _usual(part)
        for knob in ABLATED:
            ablated |= part[knob].ne(usual[knob]).reindex(rows.index, fill_value=False)
    return rows[~ablated]


def tuning(study: Study) -> pd.DataFrame:
    """Tuning methods of each model on each data set: accuracy, what they train beyond the head, their budget, speed
    and memory.

    `beyond the head` is what a method trains more than the model's `decoder` run does. Memory is the accelerator's
    where one was used, else the process's.
    """
    rows = methods(accuracy(study.every_result))
    budgets = {run.name: budget(run) for run in study.runs}
    lines = []
    for (dataset, _), part in rows.groupby(["dataset", "model"], sort=False):
        head = part[part.adapter == "decoder"].trainable_parameters.max()
        for recipe, of in part.groupby("recipe", sort=False):
            first = next(of.itertuples())
            facts = [study.facts(run) for run in of.run]
            lines.append({
                "dataset": dataset, "split": first.split, "method": title_of(recipe), "measure": first.measure,
                "accuracy": of.accuracy.mean(), "trainable": int(first.trainable_parameters),
                "beyond the head": None if pd.isna(head) else int(first.trainable_parameters - head),
                "budget": budgets[first.run], "images/s": _mean(fact.get("images_per_second") for fact in facts),
                "memory (MiB)": _mean(memory_of(fact) for fact in facts), FROM: source_of(first), "data": first.data})
    unmade = methods(study.results[study.results.status != "ok"])
    for (dataset, reason), part in unmade.groupby(["dataset", "reason"], sort=False):
        lines += [{"dataset": dataset, "method": title_of(recipe), FROM: f"not run: {reason}", "data": ""}
                  for recipe in dict.fromkeys(part.recipe)]
    columns = ["dataset", "split", "method", "measure", "accuracy", "trainable", "beyond the head", "budget",
               "images/s", "memory (MiB)", FROM, "data"]
    frame = pd.DataFrame(lines, columns=columns)
    frame["memory (MiB)"] = frame["memory (MiB)"].astype(float).round()
    whole = dict.fromkeys(["trainable", "beyond the head", "memory (MiB)"], "Int64")
    return honest(frame.astype(whole | dict.fromkeys(["accuracy", "images/s"], float)))


def equal_budget(study: Study) -> str:
    """One sentence a data set: whether its tuning methods had the same budget."""
    frame, said = tuning(study).dropna(subset="accuracy"), []
    for dataset, rows in frame.groupby("dataset"):
        budgets = rows.budget.unique()
        where = f"On **{markdown_text(dataset)}**"
        said.append(f"{where} all {len(rows)} methods had one budget: {budgets[0]}." if len(budgets) == 1
                    else f"{where} the budgets are NOT equal: {'; '.join(budgets)}.")
    return "\n\n".join(said) or "No tuning method of ETRIS has been run in this study; the table says why."


def budget(run) -> str:
    """What a run may spend: epochs, batch size, rate and optimiser; nothing where nothing is trained."""
    if run.train is None:
        return "no training"
    train = run.train
    return f"{train.epochs} epochs, batch {train.batch_size}, {train.optimizer} at {train.lr:g}, {train.schedule}"


def memory_of(facts: Mapping[str, Any]) -> float | None:
    """Peak memory in MiB of a run, the accelerator's where one was used; None where it was not recorded."""
    peak = facts.get("peak_memory_mib") or {}
    return peak.get("accelerator", peak.get("process"))


def ablations(study: Study) -> pd.DataFrame:
    """What the Bridger's width, stages and direction and the head's parts change: parameters at full size; accuracy in
    %, trainable parameters and memory of this study's runs that differ in nothing else from its Bridger. Values that
    were not run say so.

    Runs are those of this study, and of the experiments of this commit that changed these knobs alone; memory is known
    of the former only.
    """
    results = with_experiments(study, [f"{'model' if knob == 'head_parts' else 'adapter'}.{knob}" for knob in KNOBS])
    declared = results[(results.adapter == BRIDGER) & ~results.recipe.str.endswith(AS_RELEASED)]
    rows, here = accuracy(declared), set(_settings(study.every_result))
    rows = rows.assign(memory=[memory_of(study.facts(setting[0])) if setting in here else None
                               for setting in _settings(rows)])
    if rows.empty:
        reasons = "; ".join(sorted(set(declared.reason) - {""})) or f"no Bridger in study '{study.name}'"
        lines = _ablation_lines({}, rows, f"not run: {reasons}")
    else:
        lines = [line for (dataset, model), part in rows.groupby(["dataset", "model"], sort=False)
                 for line in _ablation_lines({"dataset": dataset, "model": model}, part, "not run")]
    counted = [f"{part}, {model}" for model in COUNTED_FOR for part in ("Bridger", "head")]
    made = ["measure", "accuracy", "trainable", "memory (MiB)"]
    columns = ["dataset", "model", "knob", "value", *counted, *made, FROM, "data"]
    frame = pd.DataFrame(lines, columns=columns if len(rows) else columns[2:])
    frame["memory (MiB)"] = frame["memory (MiB)"].astype(float).round()
    whole = dict.fromkeys([*counted, "trainable", "memory (MiB)"], "Int64")
    return honest(frame.astype(whole | {"accuracy": float}))


def _settings(rows: pd.DataFrame) -> Iterable[tuple]:
    """What tells a run from one of the same name in an experiment: its name and knobs."""
    return rows[["run", *KNOBS]].itertuples(index=False, name=None)


def _usual(rows: pd.DataFrame) -> pd.Series:
    """The row of the Bridger with nothing changed: of the recipe that is called so, or the first."""
    named_so = rows[rows.recipe.str.fullmatch(rf"\w+-{BRIDGER}")]
    return (rows if named_so.empty else named_so).iloc[0]


def _ablation_lines(known: dict[str, Any], rows: pd.DataFrame, absent: str) -> list[dict[str, Any]]:
    """A line for each value of each knob, in the runs of one model on one data set; `absent` where there is none."""
    lines = []
    for knob, values in KNOBS.items():
        alike = rows if rows.empty else rows[_alike(rows, _usual(rows), knob)]
        found = {value: of for value, of in alike.groupby(knob)}
        for value in [*values, *sorted(set(found) - set(values))]:
            sizes = {f"{part}, {model}": _size(model, knob, value, part.lower())
                     for model in COUNTED_FOR for part in ("Bridger", "head")}
            lines.append(known | {"knob": knob.replace("_", " "), "value": _said(knob, value)} | sizes
                         | _ablation(found.get(value), absent))
    return lines


def _said(knob: str, value: Any) -> str:
    """A knob's value as tables call it."""
    if knob != "head_parts":
        return value if isinstance(value, str) else f"{value:g}"
    missing = [part.replace("_", " ") for part in PARTS if part not in value.split("+")]
    return f"without {' and '.join(missing)}" if value else "all three parts"


def _ablation(rows: pd.DataFrame | None, absent: str) -> dict[str, Any]:
    if rows is None:
        return {FROM: absent, "data": ""}
    first = rows.iloc[0]
    return {"measure": first.measure, "accuracy": rows.accuracy.mean(), "data": first.data,
            "trainable": int(first.trainable_parameters), "memory (MiB)": _mean(rows.memory.dropna()),
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
                theirs: Mapping[str, float]) -> list[dict[str, Any]]:
    """Lines for what a study made on a split: the correct recipes, then those as released."""
    rows = study.every_result[study.every_result.dataset == dataset]
    lines = []
    for label, suffix in (("here", ""), ("here, as released", AS_RELEASED)):
        recipes = paper.recipes(suffix)
        declared = rows[rows.recipe.isin(recipes.values())]
        if declared.empty:
            continue
        made = declared[(declared["split"] == split) & (declared.status == "ok")]
        if made.empty:
            reasons = sorted(set(declared.reason) - {""}) or [f"split '{split}' was not scored"]
            lines.append({"dataset": dataset, "split": split, "measure": "all", "": label, "data": "",
                          FROM: f"not run: {'; '.join(reasons)}"} | dict.fromkeys(paper.models, "not run"))
            continue
        said = list(dict.fromkeys(made_here(study, row) for row in made.drop_duplicates("run").itertuples()))
        known = {"dataset": dataset, "split": split, "": label, FROM: "; ".join(said), "data": made.data.iloc[0]}
        lines += [known | {"measure": name} | {
            title: _cell(values[values.recipe == recipe], theirs.get(title) if name == named(*MAIN[0]) else None)
            for title, recipe in recipes.items()} for name, values in _by_measure(made)]
    return lines


def _by_measure(made: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows by the name of their measure: those of `MAIN`, or the mean IoU where sentences were not scored."""
    found = [(named(measure, threshold), made[(made.metric == measure) & (made.threshold == threshold)
                                              & (made.sentences == ALL)]) for measure, threshold in MAIN]
    if found[0][1].empty:
        plain = made[(made.metric == "iou") & (made.text_condition == "own")]
        return [(f"{MIOU} at {threshold:g}, one prompt", of) for threshold, of in plain.groupby("threshold")]
    return found


def _cell(rows: pd.DataFrame, theirs: float | None) -> str:
    """Mean over seeds in %, with the distance to the published number where data and weights are the paper's."""
    if rows.empty:
        return "not run"
    ours = 100 * rows["mean"].mean()
    return f"{ours:.2f}" + (f" ({ours - theirs:+.2f})" if theirs is not None and comparable(rows) else "")


def _not_scored(study: Study) -> pd.DataFrame:
    """Runs without sentence scores, with the reason in column `why`."""
    rows = study.every_result
    unscored = rows[~rows.run.isin(rows[rows.sentences != ""].run)].drop_duplicates("run")
    prompts = {run.name: run.evaluate.prompts for run in study.runs}
    once = [f"not scored sentence by sentence: evaluate.prompts is '{prompts[run]}'" for run in unscored.run]
    return unscored.assign(why=("not run: " + unscored.reason).where(unscored.status != "ok", once))


def _first_first(group: tuple[tuple[str, float], pd.DataFrame]) -> tuple[int, float]:
    (sentences, threshold), _ = group
    return list(SETS).index(sentences), threshold


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
