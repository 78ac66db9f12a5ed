"""VLSM-Adapter's tables: published beside made here, never one for the other."""

from collections.abc import Mapping

import pandas as pd

from featherseg.papers.vlsm_adapter import published
from featherseg.papers.vlsm_adapter.published import FULL, TABLE_1
from featherseg.recipes import declared
from featherseg.reporting import beside
from featherseg.reporting.beside import HERE, RELEASED, Column
from featherseg.reporting.study import Study
from featherseg.reporting.tables import (
    FROM,
    NOT_RUN,
    PUBLISHED,
    honest,
    made_here,
    own_dsc,
    own_means,
    source_of,
    unit_of,
)
from featherseg.tasks.segmentation.metrics import MILLIMETRE

SMALL_ADAPTERS = ("vlsm_dense", "vlsm_shallow")


def table_1(study: Study, metric: str = "DSC") -> pd.DataFrame:
    """Table 1 for one metric: a published line for each dataset, and below it what was made here; datasets on which
    something was come first.

    A line says why numbers are missing. Datasets of the study that the paper lacks have no published line.
    """
    values, lines = published.table_1(metric), []
    for dataset in values.index:
        printed = values.loc[dataset].dropna().to_dict()
        cells = {title: f"{value:.2f}" for title, value in printed.items()}
        lines.append(beside.line({"dataset": dataset}, PUBLISHED, f"published: {published.source()}", cells))
        lines += _lines_here(study, dataset, metric, printed) or [_not_declared(study, dataset)]
    for dataset in sorted(set(study.results.dataset) - set(values.index)):
        lines += _lines_here(study, dataset, metric, {})
    columns = ["dataset", "", *(method.title for method in TABLE_1), FROM, "data"]
    return honest(pd.DataFrame(beside.ran_first(lines), columns=columns))


def gains(study: Study) -> pd.DataFrame:
    """Mean DSC of each method, published and here, the gain over the decoder, and the difference between both.

    Tuning the decoder is what the paper's end-to-end row does. Here means over the study's datasets of one origin,
    there over the same datasets of the paper, or over all eight where the study has none of them.
    """
    lines = []
    for data, here in study.results.groupby("data"):
        for method in (*TABLE_1, FULL):
            lines += _gain_lines(study, str(data), here, method)
    columns = ["method", "published DSC", "here DSC", "here − published", "published gain", "here gain", FROM,
               "data"]
    return honest(pd.DataFrame(lines, columns=columns))


def parameters(study: Study, counted: pd.DataFrame) -> pd.DataFrame:
    """Trainable parameters by recipe: as Table 1 prints them, as the released code makes them, as counted.

    Args:
        study: its own models' counts stand beside the others, at whatever size they ran.
        counted: `trainable` and `total` parameters of the full-size models, by recipe name.
    """
    released, millions = published.released_counts(), published.millions()
    printed = {recipe: f"{millions[method.title]:g}M" for method in TABLE_1 for recipe in method.recipes}
    ran = study.results.dropna(subset="trainable_parameters").groupby("recipe").trainable_parameters.first()
    lines = []
    for recipe, trainable, total in counted.itertuples():
        title = declared(recipe).title
        exact = released.get(title)
        lines.append({"method": title, "recipe": recipe,
                      "Table 1": printed.get(recipe, "not in Table 1"),
                      "released code": exact, "counted at full size": trainable,
                      "% of model": 100 * trainable / total,
                      "equal": {None: "nothing to compare", trainable: "yes"}.get(exact, "NO"),
                      "this study's model": ran.get(recipe)})
    whole = ["released code", "counted at full size", "this study's model"]
    return pd.DataFrame(lines).astype(dict.fromkeys(whole, "Int64"))


def positions(study: Study) -> pd.DataFrame:
    """V, VL and VLC of the dense and shallow adapters: DSC in %, this study's, then published means."""
    printed = [{"adapter": adapter, "positions": where, "dataset": sets, "DSC": dsc,
                FROM: f"published: {source}", "data": ""}
               for adapter, where, sets, dsc, source in published.position_means()]
    own = own_dsc(study.results)
    own = own[own.adapter.isin(SMALL_ADAPTERS)].sort_values(["adapter", "dataset", "positions"])
    lines = [{"adapter": row.adapter, "positions": row.positions, "dim": row.dim, "dataset": row.dataset,
               "DSC": row.dsc, "trainable": row.trainable_parameters, FROM: source_of(row), "data": row.data}
              for row in own.itertuples()]
    columns = ["adapter", "positions", "dim", "dataset", "DSC", "trainable", FROM, "data"]
    return honest(pd.DataFrame(lines + printed, columns=columns).astype({"dim": "Int64", "trainable": "Int64"}))


def _gain_lines(study: Study, data: str, here: pd.DataFrame, method: Column) -> list[dict]:
    """The lines of `gains` for one method: the correct recipe, and the one as released where the study declares it.

    Args:
        data: where the datasets of these runs come from.
        here: the results of runs on data of this origin.
    """
    sets, base = published.table_1("DSC"), TABLE_1[0]
    lines = []
    for label in (HERE, RELEASED):
        recipes = method.made_by(label)
        rows = here[here.recipe.isin(recipes)]
        if label == RELEASED and rows.empty:
            continue
        made = rows[rows.status == "ok"]
        same = [name for name in sets.index if name in set(made.dataset)]
        paper = sets.loc[same or sets.index].mean()
        printed = paper.get(method.title)
        source = "not in the paper" if printed is None else f"published: mean of {len(same) or len(sets)} sets"
        line = {"method": method.title + (", as released" if label == RELEASED else ""), "published DSC": printed,
                "published gain": None if printed is None else printed - paper[base.title], "data": ""}
        ours = _mean_dsc(made)
        if ours is None:
            line[FROM] = f"{NOT_RUN}: {_reason(study, rows, recipes)}; {source}"
        else:
            reference = _mean_dsc(here[here.recipe.isin(base.made_by(label))])
            origin = f"{data} ({', '.join(sorted(made.dataset.unique()))})"
            weights = ", ".join(sorted(made.weights.unique()))
            line |= {"here DSC": ours, "here − published": _apart(made, ours, printed),
                     "here gain": None if reference is None else ours - reference, "data": data,
                     FROM: f"{source}; here: {origin}; weights {weights}"}
        lines.append(line)
    return lines


def _lines_here(study: Study, dataset: str, metric: str, printed: Mapping[str, float]) -> list[dict]:
    """Lines for what a study made on a dataset: the correct recipes, then those as released."""
    rows = study.results[study.results.dataset == dataset]
    lines = []
    for label in (HERE, RELEASED):
        recipes = {recipe for method in TABLE_1 for recipe in method.made_by(label)}
        declared = rows[rows.recipe.isin(recipes)]
        if declared.empty:
            continue
        cells = {}
        for method in TABLE_1:
            own = beside.rows_of(declared, method.made_by(label))
            cells[method.title] = _cell_here(own, metric, printed.get(method.title))
        made = declared[declared.status == "ok"].drop_duplicates("run")
        reasons = sorted(set(declared.reason) - {""})
        reasons += [f"{name} is not in this study" for name in sorted(recipes - set(declared.recipe))]
        sources = list(dict.fromkeys(made_here(row) for row in made.itertuples()))
        sources += [f"not run: {reason}" for reason in reasons]
        data = made.data.iloc[0] if len(made) else ""
        lines.append(beside.line({"dataset": dataset}, label, "; ".join(sources), cells, data))
    return lines


def _not_declared(study: Study, dataset: str) -> dict:
    """The line of a dataset that the study does not declare."""
    cells = dict.fromkeys([method.title for method in TABLE_1], NOT_RUN)
    return beside.line({"dataset": dataset}, HERE, f"not run: '{dataset}' is not in study '{study.name}'", cells)


def _cell_here(rows: pd.DataFrame, metric: str, printed: float | None) -> str:
    """Mean over seeds beside the published number; distances in millimetres alone, since the paper's are in pixels."""
    values = own_means(rows, metric)
    if values.empty:
        return NOT_RUN
    if unit_of(rows, metric) == MILLIMETRE:
        return f"{values.mean():.2f} {MILLIMETRE}"
    return beside.cell(rows, values.mean(), printed)


def _apart(made: pd.DataFrame, ours: float, printed: float | None) -> str | None:
    """A difference from a published number, or that these runs cannot be compared with it."""
    if printed is None:
        return None
    apart = beside.difference(made, ours, printed)
    return "not comparable: stand-in" if apart is None else f"{apart:+.2f}"


def _mean_dsc(rows: pd.DataFrame) -> float | None:
    """Mean DSC in % over datasets and seeds, None where nothing was scored."""
    values = own_means(rows, "DSC")
    return float(values.mean()) if len(values) else None


def _reason(study: Study, rows: pd.DataFrame, recipes: tuple[str, ...]) -> str:
    """Why a method was not run on any dataset."""
    reasons = sorted(set(rows.reason) - {""})
    if len(reasons) > 1:
        return "each dataset's reason stands in Table 1"
    return reasons[0] if reasons else f"'{recipes[0]}' is not in study '{study.name}'"
