"""VLSM-Adapter's tables: published beside made here, never one for the other."""

from collections.abc import Mapping

import pandas as pd

from featherseg.reporting import published
from featherseg.reporting.published import AS_RELEASED, FULL, TABLE_1, Method
from featherseg.reporting.study import Study, title_of
from featherseg.reporting.tables import FROM, comparable, honest, made_here, own_dsc, own_means, source_of, unit_of
from featherseg.tasks.segmentation.metrics import MILLIMETRE


def table_1(study: Study, metric: str = "DSC") -> pd.DataFrame:
    """Table 1 for one metric: a published line for each dataset, and below it what was made here.

    The distance to the published number stands in brackets where the weights are the paper's too; what was not made
    says why. Datasets of the study that the paper lacks follow, without a published line.
    """
    values, lines = published.table_1(metric), []
    for dataset in values.index:
        theirs = values.loc[dataset].dropna().to_dict()
        said = f"published: {published.source()}"
        lines.append({"dataset": dataset, "": "published", FROM: said, "data": ""}
                     | {title: f"{value:.2f}" for title, value in theirs.items()})
        lines += _lines_here(study, dataset, metric, theirs) or [_not_declared(study, dataset)]
    for dataset in sorted(set(study.results.dataset) - set(values.index)):
        lines += _lines_here(study, dataset, metric, {})
    columns = ["dataset", "", *(method.title for method in TABLE_1), FROM, "data"]
    return honest(pd.DataFrame(lines, columns=columns))


def gains(study: Study) -> pd.DataFrame:
    """Mean DSC of each method, published and here, the gain over the decoder, and how far both are apart.

    Tuning the decoder is what the paper's end-to-end row does. Here means over the study's sets of one provenance,
    there over the same sets of the paper, or over all eight where the study has none of them; both are subtracted
    only where data and weights are the paper's.
    """
    sets = published.table_1("DSC")
    base, lines = TABLE_1[0], []
    for data, here in study.results.groupby("data"):
        for method, recipe, suffix in _methods(here):
            made = here[(here.recipe == recipe) & (here.status == "ok")]
            same = [name for name in sets.index if name in set(made.dataset)]
            paper = sets.loc[same or sets.index].mean()
            ours, theirs = _mean_dsc(here, recipe), paper.get(method.title)
            reference = _mean_dsc(here, f"{base.recipe}{suffix}")
            said = "not in the paper" if theirs is None else f"published: mean of {len(same) or len(sets)} sets"
            line = {"method": method.title + (", as released" if suffix else ""), "published DSC": theirs,
                    "published gain": None if theirs is None else theirs - paper[base.title], "data": ""}
            if ours is None:
                line[FROM] = f"{said}; here not run: {_reason(study, here, recipe)}"
            else:
                line |= {"here DSC": ours,
                         "here − published": None if theirs is None else _distance(made, ours - theirs),
                         "here gain": None if reference is None else ours - reference, "data": data,
                         FROM: f"{said}; here: {data} ({', '.join(sorted(made.dataset.unique()))}); "
                               f"weights {', '.join(sorted(made.weights.unique()))}"}
            lines.append(line)
    columns = ["method", "published DSC", "here DSC", "here − published", "published gain", "here gain", FROM,
               "data"]
    return honest(pd.DataFrame(lines, columns=columns))


def parameters(study: Study, counted: pd.DataFrame) -> pd.DataFrame:
    """Trainable parameters by recipe: as Table 1 prints them, as the released code makes them, as counted.

    Args:
        study: the study whose own model's counts stand beside, at whatever size it ran.
        counted: `trainable` and `total` parameters of the full-size models, by recipe name.
    """
    released, millions = published.counts_of_released_code(), published.published_millions()
    printed = {method.recipe: f"{millions[method.title]:g}M" for method in TABLE_1}
    ran = study.results.dropna(subset="trainable_parameters").groupby("recipe").trainable_parameters.first()
    lines = []
    for recipe, trainable, total in counted.itertuples():
        exact = released.get(title_of(recipe))
        lines.append({"method": title_of(recipe), "recipe": recipe,
                      "Table 1": printed.get(recipe, "not in Table 1"),
                      "released code": exact, "counted at full size": trainable,
                      "% of model": 100 * trainable / total,
                      "equal": {None: "nothing to compare", trainable: "yes"}.get(exact, "NO"),
                      "this study's model": ran.get(recipe)})
    whole = ["released code", "counted at full size", "this study's model"]
    return pd.DataFrame(lines).astype(dict.fromkeys(whole, "Int64"))


def positions(study: Study) -> pd.DataFrame:
    """V, VL and VLC of the dense and shallow adapters: DSC in %, published means first, then this study's."""
    lines = [{"adapter": adapter, "positions": where, "dataset": sets, "DSC": dsc,
              FROM: f"published: {source}", "data": ""}
             for adapter, where, sets, dsc, source in published.position_means()]
    own = own_dsc(study.results)
    own = own[own.adapter.str.startswith("vlsm_")].sort_values(["adapter", "dataset", "positions"])
    lines += [{"adapter": row.adapter, "positions": row.positions, "dim": row.dim, "dataset": row.dataset,
               "DSC": row.dsc, "trainable": row.trainable_parameters, FROM: source_of(row), "data": row.data}
              for row in own.itertuples()]
    columns = ["adapter", "positions", "dim", "dataset", "DSC", "trainable", FROM, "data"]
    return honest(pd.DataFrame(lines, columns=columns).astype({"dim": "Int64", "trainable": "Int64"}))


def _methods(here: pd.DataFrame) -> list[tuple[Method, str, str]]:
    """Methods of Table 1 and full tuning with their recipes and, where declared, those as released."""
    found = []
    for method in (*TABLE_1, FULL):
        found.append((method, method.recipe, ""))
        if f"{method.recipe}{AS_RELEASED}" in set(here.recipe):
            found.append((method, f"{method.recipe}{AS_RELEASED}", AS_RELEASED))
    return found


def _lines_here(study: Study, dataset: str, metric: str, theirs: Mapping[str, float]) -> list[dict]:
    """Lines for what a study made on a dataset: the correct recipes, then those as released."""
    rows = study.results[study.results.dataset == dataset]
    lines = []
    for label, suffix in (("here", ""), ("here, as released", AS_RELEASED)):
        recipes = {method.title: f"{method.recipe}{suffix}" for method in TABLE_1}
        declared = rows[rows.recipe.isin(recipes.values())]
        if declared.empty:
            continue
        cells = {title: _cell_here(declared[declared.recipe == recipe], metric, theirs.get(title))
                 for title, recipe in recipes.items()}
        made = declared[declared.status == "ok"].drop_duplicates("run")
        absent = sorted(set(recipes.values()) - set(declared.recipe))
        reasons = sorted(set(declared.reason) - {""}) + [f"{name} is not in this study" for name in absent]
        said = list(dict.fromkeys(made_here(study, row) for row in made.itertuples()))
        said += [f"not run: {reason}" for reason in reasons]
        lines.append({"dataset": dataset, "": label, FROM: "; ".join(said),
                      "data": made.data.iloc[0] if len(made) else ""} | cells)
    return lines


def _not_declared(study: Study, dataset: str) -> dict:
    """The line of a dataset that the study does not declare."""
    return {"dataset": dataset, "": "here", FROM: f"not run: '{dataset}' is not in study '{study.name}'",
            "data": ""} | {method.title: "not run" for method in TABLE_1}


def _cell_here(rows: pd.DataFrame, metric: str, theirs: float | None) -> str:
    """Mean over seeds, with the distance to the published number where it can be compared; or that there is none."""
    ours = own_means(rows, metric)
    if ours.empty:
        return "not run"
    unit = unit_of(rows, metric)
    if unit == MILLIMETRE:  # the paper's distances are in pixels
        return f"{ours.mean():.2f} {unit}"
    near = theirs is not None and comparable(rows)
    return f"{ours.mean():.2f}" + (f" ({ours.mean() - theirs:+.2f})" if near else "")


def _distance(made: pd.DataFrame, difference: float) -> str:
    """A distance to a published number, or that there is none to be read from these runs."""
    return f"{difference:+.2f}" if comparable(made) else "not comparable: stand-in"


def _mean_dsc(results: pd.DataFrame, recipe: str) -> float | None:
    """Mean DSC in % of a recipe over datasets and seeds, None where nothing was scored."""
    values = own_means(results[results.recipe == recipe], "DSC")
    return float(values.mean()) if len(values) else None


def _reason(study: Study, here: pd.DataFrame, recipe: str) -> str:
    reasons = sorted(set(here[here.recipe == recipe].reason) - {""})
    if len(reasons) > 1:
        return "each dataset's reason stands in Table 1"
    return reasons[0] if reasons else f"'{recipe}' is not in study '{study.name}'"
