"""MedVLSM's tables: training regimes, published beside made here, and what a model scores where it was not trained.

A regime follows from a run: `zero-shot` where nothing is trained, `individual` where the training images are of one
dataset, `left out: <domain>` and `pooled: <name>` by the name of a pooled set (`data.pooled` of params.yaml). Where a
domain is left out, a set for testing only of a domain that stayed in stands apart: `unseen set: <domain> left out`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from featherseg.config import PoolParams, read_params
from featherseg.data.raw.spec import DatasetSpec
from featherseg.data.raw.specs import SPECS
from featherseg.papers.medvlsm import published
from featherseg.papers.medvlsm.published import REGIMES, SETS, STATE_OF_THE_ART
from featherseg.reporting import beside, tables
from featherseg.reporting.beside import HERE, RELEASED
from featherseg.reporting.study import Study
from featherseg.reporting.tables import FROM, NOT_RUN, PUBLISHED, honest

ZERO_SHOT, INDIVIDUAL, POOLED, LEFT_OUT, UNSEEN = "zero-shot", "individual", "pooled: ", "left out: ", "unseen set: "
ALL_BUT = "all_but_"
NOTHING_TRAINED = "nothing"
MOST_REASONS = 3
# columns of the results that `scores` takes over
CARRIED = ("run", "recipe", "title", "released", "model", "adapter", "seed", "n", "data", "data_kind", "weights_kind",
           "commit", "status", "reason")


@dataclass(frozen=True)
class Column(beside.Column):
    """A column of Table 2.

    Attributes:
        model: its name in `data/published/medvlsm.csv`; empty where the paper has no such column.
        zero_shot: the recipe that trains nothing.
    """

    model: str = ""
    zero_shot: str = ""

    def made_in(self, label: str, regime: str) -> tuple[str, ...]:
        """The recipes of a line's label and regime."""
        if regime != ZERO_SHOT:
            return self.made_by(label)
        return (self.zero_shot,) if label == HERE and self.zero_shot else ()


COLUMNS = (
    Column("CRIS", ("cris-full-medvlsm", "cris-full"), "cris-full-medvlsm-published", "CRIS", "cris-zero_shot"),
    # the released code trains the decoder alone under this name, as 90_audit shows
    Column("CLIPSeg", ("clipseg-decoder",), "clipseg-decoder-medvlsm-published", "CLIPSeg", "clipseg-zero_shot"),
    Column("CLIPSeg, full", ("clipseg-full",)),
    Column("BiomedCLIPSeg", ("biomedclipseg-full", "biomedclipseg-decoder"), "biomedclipseg-decoder-published"),
    Column("BiomedCLIPSeg-D", ("biomedclipseg_d-full", "biomedclipseg_d-decoder"),
           "biomedclipseg_d-decoder-published", "", "biomedclipseg_d-zero_shot"),
    Column("U-Net", ("unet-full",), model="UNet"),
    Column("U-Net++", ("unetplusplus-full",), model="UNet++"),
    Column("DeepLabV3+", ("deeplabv3plus-full",), model="DeepLabv3+"),
    Column(STATE_OF_THE_ART, model=STATE_OF_THE_ART),
)


def regime_of(dataset: str, adapter: str, pools: Mapping[str, PoolParams], tested: str) -> str:
    """The training regime of a run on a dataset, for a dataset that it is tested on, by its method and the declared
    pools."""
    if adapter == "zero_shot":
        return ZERO_SHOT
    if dataset in pools and dataset.startswith(ALL_BUT):
        domain = dataset.removeprefix(ALL_BUT)
        return f"{UNSEEN}{domain} left out" if _stayed_in(tested, pools[dataset]) else f"{LEFT_OUT}{domain}"
    return f"{POOLED}{dataset}" if dataset in pools and len(pools[dataset].train) > 1 else INDIVIDUAL


def _stayed_in(tested: str, pool: PoolParams) -> bool:
    """Whether a set is for testing only, and of the domain of a set that the pool trains on."""
    spec = SPECS.get(tested)
    if not isinstance(spec, DatasetSpec) or not spec.test_only:
        return False
    return any(getattr(SPECS.get(name), "field", None) == spec.field for name in pool.train)


def scores(study: Study) -> pd.DataFrame:
    """DSC in % of every declared run on every dataset that it is tested on, own prompts.

    Returns:
        run, recipe, title, released, model, adapter, regime, trained (the one dataset, the pool's name, or `nothing`),
        tested, seed, dsc (NaN where it was not run), n (masks), data, data_kind, weights_kind, commit, status, reason.
        A dataset that several runs of one recipe, regime and seed with the same training images are tested on counts
        once.
    """
    pools = read_params("study").data.pooled
    lines = []
    for rows in (study.results, study.by_member):
        own = rows[((rows.text_condition == "own") & (rows.metric == "dsc")) | (rows.status != "ok")]
        for row in own.to_dict("records"):
            lines += _scores_of(row, pools)
    frame = pd.DataFrame(lines, columns=[*CARRIED, "regime", "trained", "tested", "dsc"])
    frame = frame.astype({"dsc": float, "released": bool})
    frame = frame.sort_values("status", key=lambda status: status != "ok", kind="stable")
    return frame.drop_duplicates(["recipe", "regime", "trained", "tested", "seed"]).sort_index()


def _scores_of(row: Mapping[str, Any], pools: Mapping[str, PoolParams]) -> list[dict[str, Any]]:
    """The lines of `scores` that one row of the results adds: one for each dataset that the run is tested on."""
    pool, made = pools.get(row["dataset"]), row["status"] == "ok"
    if pool and not made:
        tests = list(pool.test)
    elif pool and not row["member"]:
        tests = []  # the mean over a pool belongs to no dataset
    else:
        tests = [row["member"] or row["dataset"]]
    carried = {name: row[name] for name in CARRIED}
    lines = []
    for tested in tests:
        regime = regime_of(row["dataset"], row["adapter"], pools, tested)
        trained = {ZERO_SHOT: NOTHING_TRAINED, INDIVIDUAL: pool.train[0] if pool else row["dataset"]}
        lines.append(carried | {"regime": regime, "trained": trained.get(regime, row["dataset"]), "tested": tested,
                                "dsc": 100 * row["mean"] if made else None})
    return lines


def on_its_own(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `scores` that a table by regime shows: a run trained on one dataset counts on that dataset alone."""
    return rows[(rows.regime != INDIVIDUAL) | (rows.trained == rows.tested)]


def table_2(study: Study) -> pd.DataFrame:
    """Table 2, DSC in %, by regime and dataset: a published line, and below it what was made here.

    Regimes and datasets in which something was made come first. A line says why numbers are missing, datasets of one
    regime with the same reason in one line. Regimes and datasets that the paper lacks have no published line.
    """
    values, here = published.table_2(), scores(study)
    lines = []
    for regime in dict.fromkeys([*REGIMES.values(), *in_order(here.regime)]):
        printed = values.loc[regime] if regime in REGIMES.values() else values.droplevel("regime").iloc[:0]
        lines += beside.ran_first(_regime_lines(study, regime, printed, on_its_own(here[here.regime == regime])))
    lines = beside.ran_first(lines, "trained")
    declared = {run.recipe for run in study.runs}
    titles = [column.title for column in COLUMNS if column.model or declared & {
        *column.recipes, column.released, column.zero_shot}]
    frame = pd.DataFrame(lines, columns=["trained", "dataset", "", *titles, FROM, "data"])
    return honest(frame.fillna(dict.fromkeys(titles, "–")))


def table_2_by_regime(study: Study) -> list[tables.Table]:
    """Table 2 for a notebook: one table per regime, without the columns in which a regime has nothing."""
    parts = []
    for regime, rows in table_2(study).groupby("trained", sort=False):
        empty = [column.title for column in COLUMNS if column.title in rows and (rows[column.title] == "–").all()]
        parts.append(tables.show(rows.drop(columns=["trained", *empty]), f"{regime} (DSC in %)"))
    return parts


def regimes(study: Study) -> pd.DataFrame:
    """DSC in % of every recipe on every dataset, one column per regime: what pooling, leaving out or no training
    changes.

    What was not run follows, one line for each reason.
    """
    here = scores(study)
    made = on_its_own(here[here.status == "ok"])
    order, tests = in_order(made.regime), known_first(made.tested)
    lines = []
    groups = sorted(made.groupby(["tested", "recipe"], sort=False), key=lambda group: tests.index(group[0][0]))
    for (tested, _), rows in groups:
        data = " and ".join(sorted(set(rows.data)))
        lines.append({"dataset": tested, "method": named(rows.iloc[0]), **rows.groupby("regime").dsc.mean(),
                      FROM: data, "data": data})
    lines += _not_run(here, "dataset", "tested")
    columns = ["dataset", "method", *order, FROM, "data"]
    return honest(pd.DataFrame(lines, columns=columns).astype(dict.fromkeys(order, float)))


def domain_shift(study: Study) -> pd.DataFrame:
    """DSC in % by training and test set: one line for each method and training set, one column per test set.

    What was not run follows, one line for each reason.
    """
    here = scores(study)
    made = here[here.status == "ok"]
    tests, lines = known_first(made.tested), []
    for (_, trained), rows in made.groupby(["recipe", "trained"], sort=False):
        data = " and ".join(sorted(set(rows.data)))
        lines.append({"method": named(rows.iloc[0]), "trained": trained, **rows.groupby("tested").dsc.mean(),
                      FROM: data, "data": data})
    lines += _not_run(here, "trained", "trained")
    frame = pd.DataFrame(lines, columns=["method", "trained", *tests, FROM, "data"])
    return honest(frame.astype(dict.fromkeys(tests, float)))


def named(row: pd.Series) -> str:
    """The title of a run's recipe with its model's name, which CLIPSeg's recipes leave out."""
    return f"CLIPSeg, {row.title}" if row.model == "clipseg" and not row.title.startswith("CLIPSeg") else row.title


def known_first(names: Iterable[str]) -> list[str]:
    """Each name once, the paper's datasets in the paper's order before all others."""
    names = list(dict.fromkeys(names))
    known = [name for name in SETS.values() if name in names]
    return known + [name for name in names if name not in known]


def in_order(regimes: Iterable[str]) -> list[str]:
    """Each regime once, from no training to training on everything."""
    return sorted(set(regimes), key=_order)


def _regime_lines(study: Study, regime: str, printed: pd.DataFrame, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of Table 2 for one regime.

    Args:
        regime: the regime.
        printed: the published DSC, one row per dataset and one column per model; empty where nothing is published.
        rows: this study's scores in this regime.
    """
    lines: list[dict[str, Any]] = []
    unmade: dict[tuple[str, str], list[str]] = {}
    for dataset in dict.fromkeys([*printed.index, *known_first(rows.tested)]):
        place = {"trained": regime, "dataset": dataset}
        tested = rows[rows.tested == dataset]
        numbers = printed.loc[dataset].dropna().to_dict() if dataset in printed.index else {}
        if numbers:
            cells = {column.title: f"{numbers[column.model]:.2f}" for column in COLUMNS if column.model in numbers}
            lines.append(beside.line(place, PUBLISHED, f"published: {published.source()}", cells))
        for label in (HERE, RELEASED):
            made = _line_here(study, place, label, tested, numbers)
            if made:
                lines.append(made)
                continue
            for reason in _why(study, regime, label, tested):
                unmade.setdefault((label, reason), []).append(dataset)
    for (label, reason), datasets in sorted(unmade.items()):
        cells = {column.title: NOT_RUN for column in COLUMNS if column.made_in(label, regime)}
        lines.append(beside.line({"trained": regime, "dataset": _sets(datasets)}, label, f"not run: {reason}", cells))
    return lines


def _line_here(study: Study, place: dict[str, str], label: str, rows: pd.DataFrame,
               printed: Mapping[str, float]) -> dict[str, Any] | None:
    """The line for what a study made under a regime on a dataset, None where it made nothing.

    Args:
        place: regime and dataset.
        label: `HERE` or `RELEASED`.
        rows: the study's scores there.
        printed: the published numbers there, by model.
    """
    cells: dict[str, str] = {}
    parts: list[pd.DataFrame] = []
    unmade: dict[str, list[str]] = {}
    for column in COLUMNS:
        recipes = column.made_in(label, place["trained"])
        published_dsc = printed.get(column.model)
        declared = beside.rows_of(rows, recipes)
        made = declared[declared.status == "ok"]
        if len(made):
            cells[column.title] = beside.cell(made, made.dsc.mean(), published_dsc)
            parts.append(made)
        elif len(declared) or (label == HERE and recipes and published_dsc is not None):
            cells[column.title] = NOT_RUN
            reason = "; ".join(sorted(set(declared.reason))) or f"no such run in study '{study.name}'"
            unmade.setdefault(_short(reason), []).append(column.title)
    if not parts:
        return None
    runs = pd.concat(parts)
    labels = sorted(set(runs.data))
    commits = sorted({(commit or "not recorded")[:12] for commit in runs.commit})
    source = [f"{' and '.join(labels)}; commit {', '.join(commits)}; weights and hardware: 00_overview"]
    source += [f"not run: {', '.join(titles)}: {reason}" for reason, titles in unmade.items()]
    return beside.line(place, label, "; ".join(source), cells, labels[0] if len(labels) == 1 else "")


def _why(study: Study, regime: str, label: str, rows: pd.DataFrame) -> list[str]:
    """Why a line of Table 2 has no number here; nothing where no recipe makes it."""
    recipes = {recipe for column in COLUMNS for recipe in column.made_in(label, regime)}
    reasons = sorted(set(rows[rows.recipe.isin(recipes)].reason) - {""})
    if reasons:
        return [_short("; ".join(reasons))]
    if regime == ZERO_SHOT or (regime not in REGIMES.values()) or label == RELEASED:
        return []
    return [f"no such run in study '{study.name}'"]


def _not_run(here: pd.DataFrame, head: str, column: str) -> list[dict[str, Any]]:
    """One line for each reason for which runs were not made: how many methods, and in `head` which sets of `column`."""
    lines = []
    for reason, rows in here[here.status != "ok"].groupby("reason", sort=False):
        methods = list(dict.fromkeys(named(row) for row in rows.itertuples()))
        lines.append({"method": methods[0] if len(methods) == 1 else f"{len(methods)} methods",
                      head: _sets(known_first(rows[column])), FROM: f"not run: {_short(reason)}", "data": ""})
    return lines


def _sets(datasets: list[str]) -> str:
    return ", ".join(datasets) if len(datasets) <= MOST_REASONS else f"{len(datasets)} sets"


def _short(reason: str) -> str:
    """A reason of many parts cut after the first ones; 00_overview has the whole."""
    parts = reason.split("; ")
    more = len(parts) - MOST_REASONS
    return reason if more <= 0 else f"{'; '.join(parts[:MOST_REASONS])}; and {more} more reasons (00_overview)"


def _order(regime: str) -> tuple[int, str]:
    starts = (ZERO_SHOT, LEFT_OUT, UNSEEN, INDIVIDUAL, POOLED)
    return next(place for place, start in enumerate(starts) if regime.startswith(start)), regime
