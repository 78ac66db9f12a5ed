"""MedVLSM's tables: training regimes, published beside made here, and what a model scores where it was not trained.

A regime follows from a run: `zero-shot` where nothing is trained, `individual` where the training images are of one
set, `left out: <domain>` and `pooled: <name>` by the name of a pooled set (`data.pooled` of params.yaml). Where a
domain is left out, a set for testing only of a domain that stayed in stands apart: `unseen set: <domain> left out`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from featherseg.config import PoolParams, read_params
from featherseg.data.raw.spec import DatasetSpec
from featherseg.data.raw.specs import SPECS
from featherseg.reporting import published, style, tables
from featherseg.reporting.published import AS_RELEASED, MEDVLSM_REGIMES, MEDVLSM_SETS, STATE_OF_THE_ART
from featherseg.reporting.study import Study, title_of
from featherseg.reporting.tables import FROM, honest

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

ZERO_SHOT, INDIVIDUAL, POOLED, LEFT_OUT, UNSEEN = "zero-shot", "individual", "pooled: ", "left out: ", "unseen set: "
ALL_BUT = "all_but_"
HERE, RELEASED = "here", "here, as released"
ENDOSCOPY = ("kvasir_seg", "clinicdb", "bkai")
NOTHING_TRAINED = "nothing"
MOST_REASONS = 3


@dataclass(frozen=True)
class Column:
    """A column of Table 2.

    Attributes:
        title: how reports call it.
        model: how `data/published/medvlsm.csv` calls it; empty where the paper has no such column.
        correct: the recipes that make it here, the first one that a study declares.
        released: the recipe that does what the released code did.
        zero_shot: the recipe that trains nothing.
    """

    title: str
    model: str = ""
    correct: tuple[str, ...] = ()
    released: str = ""
    zero_shot: str = ""

    def recipes(self, label: str, regime: str) -> tuple[str, ...]:
        """The recipes of a line's label and regime."""
        if regime == ZERO_SHOT:
            return (self.zero_shot,) if label == HERE else ()
        return self.correct if label == HERE else (self.released,)


COLUMNS = (
    Column("CRIS", "CRIS", ("cris-full-medvlsm", "cris-full"), "cris-full-medvlsm-published", "cris-zero_shot"),
    # the released code trains the decoder alone under this name, as 90_audit shows
    Column("CLIPSeg", "CLIPSeg", ("clipseg-decoder",), "clipseg-decoder-medvlsm-published", "clipseg-zero_shot"),
    Column("CLIPSeg, full", "", ("clipseg-full",)),
    Column("BiomedCLIPSeg", "", ("biomedclipseg-full", "biomedclipseg-decoder"), "biomedclipseg-decoder-published"),
    Column("BiomedCLIPSeg-D", "", ("biomedclipseg_d-full", "biomedclipseg_d-decoder"),
           "biomedclipseg_d-decoder-published", "biomedclipseg_d-zero_shot"),
    Column("U-Net", "UNet", ("unet-full",)),
    Column("U-Net++", "UNet++", ("unetplusplus-full",)),
    Column("DeepLabV3+", "DeepLabv3+", ("deeplabv3plus-full",)),
    Column(STATE_OF_THE_ART, STATE_OF_THE_ART),
)


def regime_of(dataset: str, adapter: str, pools: Mapping[str, PoolParams], tested: str) -> str:
    """The training regime of a run on a data set, for a set that it is tested on, by its method and the pools that
    are declared."""
    if adapter == "zero_shot":
        return ZERO_SHOT
    if dataset in pools and dataset.startswith(ALL_BUT):
        domain = dataset.removeprefix(ALL_BUT)
        return f"{UNSEEN}{domain} left out" if _stayed_in(tested, pools[dataset]) else f"{LEFT_OUT}{domain}"
    return f"{POOLED}{dataset}" if dataset in pools and len(pools[dataset].train) > 1 else INDIVIDUAL


def _stayed_in(tested: str, pool: PoolParams) -> bool:
    """Whether a set is for testing only, and of the domain of a set that the pool trains on."""
    spec = SPECS.get(tested)
    return isinstance(spec, DatasetSpec) and spec.test_only and any(
        getattr(SPECS.get(name), "field", None) == spec.field for name in pool.train)


def scores(study: Study) -> pd.DataFrame:
    """DSC in % of every declared run on every set that it is tested on, own prompts.

    Returns:
        run, recipe, adapter, regime, trained (the one set, the pool's name, or `nothing`), tested, seed, dsc (NaN
        where it was not run), n (masks), data, status, reason. A set that several runs of one recipe, regime and seed
        with the same training images are tested on counts once.
    """
    pools = read_params("study").data.pooled
    lines = []
    for rows in (study.results, study.by_member):
        own = rows[((rows.text_condition == "own") & (rows.metric == "dsc")) | (rows.status != "ok")]
        for row in own.itertuples():
            pool = pools.get(row.dataset)
            if row.status == "ok" and pool and not row.member:
                continue  # the mean over a pool is of no set
            for tested in [row.member or row.dataset] if row.status == "ok" or not pool else pool.test:
                regime = regime_of(row.dataset, row.adapter, pools, tested)
                trained = {ZERO_SHOT: NOTHING_TRAINED, INDIVIDUAL: pool.train[0] if pool else row.dataset}
                lines.append({"run": row.run, "recipe": row.recipe, "adapter": row.adapter, "regime": regime,
                              "trained": trained.get(regime, row.dataset), "tested": tested, "seed": row.seed,
                              "dsc": 100 * row.mean if row.status == "ok" else None, "n": row.n, "data": row.data,
                              "status": row.status, "reason": row.reason})
    columns = ["run", "recipe", "adapter", "regime", "trained", "tested", "seed", "dsc", "n", "data", "status",
               "reason"]
    frame = pd.DataFrame(lines, columns=columns).astype({"dsc": float})
    frame = frame.sort_values("status", key=lambda status: status != "ok", kind="stable")
    return frame.drop_duplicates(["recipe", "regime", "trained", "tested", "seed"]).sort_index()


def table_2(study: Study) -> pd.DataFrame:
    """Table 2, DSC in %, by regime and set: a published line, and below it what was made here.

    The distance to the published number stands in brackets; what was not made says why, sets of one regime with the
    same reason in one line. Regimes and sets that the paper lacks follow, without a published line.
    """
    values, here = published.medvlsm(), scores(study)
    regimes = dict.fromkeys([*MEDVLSM_REGIMES.values(), *sorted(set(here.regime), key=_order)])
    lines = []
    for regime in regimes:
        there = list(values.loc[regime].index) if regime in MEDVLSM_REGIMES.values() else []
        rows, unmade = here[(here.regime == regime) & ((regime != INDIVIDUAL) | (here.trained == here.tested))], {}
        for dataset in dict.fromkeys([*there, *_known_first(rows.tested)]):
            theirs = values.loc[(regime, dataset)].dropna().to_dict() if dataset in there else {}
            if theirs:
                lines.append(_line(regime, dataset, "published", f"published: {published.medvlsm_source()}", {
                    column.title: f"{theirs[column.model]:.2f}" for column in COLUMNS if column.model in theirs}))
            made = _lines_here(study, regime, dataset, rows[rows.tested == dataset], theirs)
            lines += made
            for label in {HERE, RELEASED} - {line[""] for line in made}:
                for reason in _why(study, regime, label, rows[rows.tested == dataset]):
                    unmade.setdefault((label, reason), []).append(dataset)
        for (label, reason), datasets in sorted(unmade.items()):
            lines.append(_line(regime, _sets(datasets), label, f"not run: {reason}", {
                column.title: "not run" for column in COLUMNS if any(column.recipes(label, regime))}))
    declared = {run.recipe for run in study.runs}
    titles = [column.title for column in COLUMNS if column.model or declared & {
        *column.correct, column.released, column.zero_shot}]
    frame = pd.DataFrame(lines, columns=["trained", "dataset", "", *titles, FROM, "data"])
    return honest(frame.fillna(dict.fromkeys(titles, "–")))


def table_2_by_regime(study: Study) -> list["Styler"]:
    """Table 2 for a notebook, a table a regime, without the columns that a regime has nothing of."""
    parts = []
    for regime, rows in table_2(study).groupby("trained", sort=False):
        empty = [column.title for column in COLUMNS if column.title in rows and (rows[column.title] == "–").all()]
        parts.append(tables.show(rows.drop(columns=["trained", *empty]), f"{regime} (DSC in %)"))
    return parts


def regimes(study: Study) -> pd.DataFrame:
    """DSC in % of every recipe on every set, a column a regime: what pooling, leaving out or no training changes.

    What was not run follows, a line for each reason.
    """
    found = scores(study)
    made = found[(found.status == "ok") & ((found.regime != INDIVIDUAL) | (found.trained == found.tested))]
    order = sorted(set(made.regime), key=_order)
    lines, tests = [], _known_first(made.tested)
    groups = sorted(made.groupby(["tested", "recipe"]), key=lambda group: tests.index(group[0][0]))
    for (tested, recipe), rows in groups:
        means, data = rows.groupby("regime").dsc.mean(), " and ".join(sorted(set(rows.data)))
        lines.append({"dataset": tested, "method": _named(recipe), **{name: means.get(name) for name in order},
                      FROM: data, "data": data})
    lines += _not_run(found, "dataset", "tested")
    columns = ["dataset", "method", *order, FROM, "data"]
    return honest(pd.DataFrame(lines, columns=columns).astype(dict.fromkeys(order, float)))


def domain_shift(study: Study) -> pd.DataFrame:
    """DSC in % by what was trained on and what was tested: a line for each method and training set, a column a set.

    What was not run follows, a line for each reason.
    """
    found = scores(study)
    made = found[found.status == "ok"]
    tested, lines = _known_first(made.tested), []
    for (recipe, trained), rows in made.groupby(["recipe", "trained"], sort=False):
        means, data = rows.groupby("tested").dsc.mean(), " and ".join(sorted(set(rows.data)))
        lines.append({"method": _named(recipe), "trained": trained, **{name: means.get(name) for name in tested},
                      FROM: data, "data": data})
    lines.sort(key=lambda line: line["method"])
    lines += _not_run(found, "trained", "trained")
    frame = pd.DataFrame(lines, columns=["method", "trained", *tested, FROM, "data"])
    return honest(frame.astype(dict.fromkeys(tested, float)))


def regime_figure(study: Study) -> "Figure":
    """DSC in % by training regime, a line a method: the paper's means, then a panel for each set tested here."""
    here = scores(study)
    here = here[(here.status == "ok") & ((here.regime != INDIVIDUAL) | (here.trained == here.tested))]
    sets = _known_first(here.tested)
    figure, axes = style.panels(2 + len(sets), width=4.3, height=3.4)
    values = published.medvlsm().drop(columns=STATE_OF_THE_ART)
    for axis, names, title in ((axes[0], ENDOSCOPY, "published: mean of 3 endoscopy sets"),
                               (axes[1], None, "published: mean of 8 sets")):
        kept = names or list(values.loc[INDIVIDUAL].index)
        means = values[values.index.get_level_values("dataset").isin(kept)].groupby(level="regime", sort=False)
        means = means.mean()[means.size() == len(kept)]
        for place, model in enumerate(means.columns):
            axis.plot([_short_regime(name) for name in means.index], means[model], marker="os^vD"[place % 5],
                      label=f"{model} (published)", color=str(0.15 + 0.12 * place), markerfacecolor="white")
        axis.set(title=title)
    order = sorted(set(here.regime), key=_order)
    for axis, tested in zip(axes[2:], sets, strict=True):
        rows = here[here.tested == tested]
        for recipe, of in rows.groupby("recipe", sort=False):
            means = of.groupby("regime").dsc.mean().reindex([name for name in order if name in set(of.regime)])
            adapter = of.adapter.iloc[0]
            axis.plot([order.index(name) for name in means.index], means, marker=style.marker(adapter), alpha=0.85,
                      label=f"{_named(recipe)} (here)", **_look(recipe, here))
        axis.set_xticks(range(len(order)), [_short_regime(name) for name in order],
                        rotation=20 if len(order) > 3 else 0)
        axis.set(title=f"tested: {tested} ({rows.data.iloc[0]})", xlim=(-0.5, len(order) - 0.5))
    for axis in axes:
        axis.margins(x=0.12, y=0.12)
        axis.set_ylabel("DSC (%)")
    _legend(figure, axes)
    return figure


def shift_figure(study: Study) -> "Figure | Markdown":
    """Trained here, tested there: a panel a method, of those that were tested on a set of which they saw no image."""
    found = scores(study)
    made = found[(found.status == "ok") & (found.regime != ZERO_SHOT)]
    tested = _known_first(made.tested)
    crossed = [recipe for recipe, rows in made.groupby("recipe", sort=False)
               if (rows.trained != rows.tested).any() and rows.tested.nunique() * rows.trained.nunique() > 1]
    if not crossed:
        return style.note("No run of this study was tested on another set than it was trained on. A pooled set does "
                          "it: one of `data.pooled` in params.yaml, named in `study.datasets`.")
    trained = [name for name in dict.fromkeys([*tested, *made.trained]) if name in set(made.trained)]
    wide = max(3.2, 1.6 + 0.62 * len(tested))
    figure, axes = style.panels(len(crossed), width=wide, height=1.5 + 0.38 * len(trained),
                                columns=max(1, int(13 / wide)))
    for axis, recipe in zip(axes, crossed, strict=True):
        rows = made[made.recipe == recipe]
        grid = rows.pivot_table(index="trained", columns="tested", values="dsc").reindex(index=trained, columns=tested)
        style.heat(axis, grid, 0, 100)
        axis.set(title=f"{_named(recipe)}\n({', '.join(sorted(set(rows.data)))})", xlabel="tested on",
                 ylabel="trained on")
    return figure


def _line(regime: str, dataset: str, label: str, said: str, cells: Mapping[str, str], data: str = "") -> dict[str, Any]:
    return {"trained": regime, "dataset": dataset, "": label, FROM: said, "data": data} | dict(cells)


def _lines_here(study: Study, regime: str, dataset: str, rows: pd.DataFrame,
                theirs: Mapping[str, float]) -> list[dict[str, Any]]:
    """Lines for what a study made under a regime on a set: the correct recipes, then those as released."""
    lines = []
    for label in (HERE, RELEASED):
        cells, runs, unmade = {}, [], {}
        for column in COLUMNS:
            recipes = column.recipes(label, regime)
            of = next((part for name in recipes if len(part := rows[rows.recipe == name])), rows[:0])
            made, theirs_here = of[of.status == "ok"], theirs.get(column.model)
            if len(made):
                ours = made.dsc.mean()
                cells[column.title] = f"{ours:.2f}" + ("" if theirs_here is None else f" ({ours - theirs_here:+.2f})")
                runs += list(made.run)
            elif len(of) or (label == HERE and any(recipes) and theirs_here is not None):
                cells[column.title] = "not run"
                reason = "; ".join(sorted(set(of.reason))) or f"no such run in study '{study.name}'"
                unmade.setdefault(_short(reason), []).append(column.title)
        if runs:
            labels = sorted(set(rows[rows.run.isin(runs)].data))
            commits = sorted({(study.facts(run).get("commit") or "not recorded")[:12] for run in runs})
            said = [f"{' and '.join(labels)}; commit {', '.join(commits)}; weights and hardware: 00_overview"]
            said += [f"not run: {', '.join(titles)}: {reason}" for reason, titles in unmade.items()]
            lines.append(_line(regime, dataset, label, "; ".join(said), cells, labels[0] if len(labels) == 1 else ""))
    return lines


def _why(study: Study, regime: str, label: str, rows: pd.DataFrame) -> list[str]:
    """Why a line of Table 2 has no number here; nothing where no recipe makes it."""
    recipes = {name for column in COLUMNS for name in column.recipes(label, regime) if name}
    reasons = sorted(set(rows[rows.recipe.isin(recipes)].reason) - {""})
    if reasons:
        return [_short("; ".join(reasons))]
    if regime == ZERO_SHOT or (regime not in MEDVLSM_REGIMES.values()) or label == RELEASED:
        return []
    return [f"no such run in study '{study.name}'"]


def _not_run(found: pd.DataFrame, head: str, column: str) -> list[dict[str, Any]]:
    """A line for each reason for which runs were not made: how many methods, and in `head` which sets of `column`."""
    lines = []
    for reason, rows in found[found.status != "ok"].groupby("reason", sort=False):
        methods = list(dict.fromkeys(map(_named, rows.recipe)))
        lines.append({"method": methods[0] if len(methods) == 1 else f"{len(methods)} methods",
                      head: _sets(_known_first(rows[column])), FROM: f"not run: {_short(reason)}", "data": ""})
    return lines


def _named(recipe: str) -> str:
    """A recipe's title with its model's name, which those of CLIPSeg leave out."""
    title = title_of(recipe)
    return f"CLIPSeg, {title}" if recipe.startswith("clipseg-") and not title.startswith("CLIPSeg") else title


def _sets(datasets: list[str]) -> str:
    return ", ".join(datasets) if len(datasets) <= MOST_REASONS else f"{len(datasets)} sets"


def _short(reason: str) -> str:
    """A reason of many parts cut after the first ones; 00_overview has the whole."""
    parts = reason.split("; ")
    more = len(parts) - MOST_REASONS
    return reason if more <= 0 else f"{'; '.join(parts[:MOST_REASONS])}; and {more} more reasons (00_overview)"


def _known_first(names: Iterable[str]) -> list[str]:
    """Each name once, the paper's sets in the paper's order before all others."""
    names = list(dict.fromkeys(names))
    return [name for name in MEDVLSM_SETS.values() if name in names] + [
        name for name in names if name not in MEDVLSM_SETS.values()]


def _order(regime: str) -> tuple[int, str]:
    starts = (ZERO_SHOT, LEFT_OUT, UNSEEN, INDIVIDUAL, POOLED)
    return next(place for place, start in enumerate(starts) if regime.startswith(start)), regime


def _short_regime(regime: str) -> str:
    return regime.replace(": ", ":\n")


def _look(recipe: str, rows: pd.DataFrame) -> dict[str, Any]:
    """One colour a recipe, and a dashed line for one as released."""
    recipes = list(dict.fromkeys(rows.recipe))
    return {"color": f"C{recipes.index(recipe) % 10}", "linestyle": "--" if recipe.endswith(AS_RELEASED) else "-"}


def _legend(figure: "Figure", axes: list) -> None:
    found = [axis.get_legend_handles_labels() for axis in axes]
    handles = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 4))
