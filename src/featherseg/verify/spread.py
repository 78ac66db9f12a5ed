"""How far seeds alone move a score: what a difference between two machines is measured against."""

import io
from pathlib import Path

import pandas as pd

from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, read_text
from featherseg.core.paths import REPORTS
from featherseg.verify.sides import KEYS, PLACES, one_side

SPREAD = REPORTS / "spread.csv"
STATED_FOR = ["recipe", "dataset", "condition", "metric"]


def deviations(scores: pd.DataFrame, runs: pd.DataFrame) -> pd.Series:
    """The standard deviation over seeds of each committed score, NaN where it is not known.

    Where a study has several seeds it is that of the committed values in the same place: recipe, dataset and all keys
    but the run. Where it has one, it is what `reports/spread.csv` states for the recipe, dataset,
    condition and metric.

    Args:
        scores: rows of `results.csv` as text.
        runs: recipe and dataset of each run.

    Returns:
        One number per row of `scores`, under its index.

    Raises:
        UserError: `reports/spread.csv` is not a table of deviations.
    """
    rows = _over_seeds(scores, runs)
    stated = rows.drop(columns="deviation").merge(_stated(), on=STATED_FOR, how="left").deviation
    return rows.deviation.fillna(stated).set_axis(scores.index)


def write_spread(study: str, source: str | None = None) -> pd.DataFrame:
    """State in `reports/spread.csv` how far seeds alone move the scores of a study with several.

    A recipe, dataset, condition and metric have one line there and many cells: one for each target, scope, split and
    threshold. The line is the largest of the cells' standard deviations over seeds (of a sample: n - 1), so that a cell
    beyond it lies further off than seeds move any cell of its kind. Lines of other recipes, datasets and metrics stay.

    Args:
        study: its name.
        source: a revision of git, or the path of a `results.csv`; the results that lie here where None.

    Returns:
        The lines of this study.

    Raises:
        UserError: the results are missing or cannot be read, no recipe has several seeds, or the file is not a table of
            deviations.
    """
    side = one_side(study, source)
    kinds = _over_seeds(side.scores, side.runs).groupby(STATED_FOR)
    found = kinds.deviation.max().dropna().round(PLACES).reset_index()
    if found.empty:
        raise UserError(f"the results of study '{study}' ({side.label}) hold no recipe with several seeds on one "
                        "dataset; run it with several: dvc exp run -S 'study.seeds=[0,1,2]'.")
    lines = pd.concat([found, _stated()]).drop_duplicates(STATED_FOR).sort_values(STATED_FOR)
    with atomic_path(SPREAD) as partial:
        lines.to_csv(partial, index=False, lineterminator="\n")
    return found


def _over_seeds(scores: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The scores with recipe and dataset of their runs, and the `deviation` over seeds of their place: recipe, dataset
    and all keys but the run; NaN where there is one seed."""
    rows = scores.merge(runs[["run", "recipe", "dataset"]], on="run", how="left")
    place = ["recipe", "dataset", *(key for key in KEYS if key != "run")]
    values = rows.assign(number=pd.to_numeric(rows.value, errors="coerce"))
    return rows.assign(deviation=values.groupby(place).number.transform("std"))


def _stated(path: Path = SPREAD) -> pd.DataFrame:
    """The deviations that the repository states; without rows where it states none."""
    columns = [*STATED_FOR, "deviation"]
    if not path.is_file():
        return pd.DataFrame(columns=columns).astype(dict.fromkeys(STATED_FOR, str) | {"deviation": float})
    text = read_text(path)
    try:
        table = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(STATED_FOR, str), keep_default_na=False)[columns]
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is not a table with the columns {', '.join(columns)} "
                        f"({' '.join(str(error).split())}); correct it.") from None
    numbers = pd.to_numeric(table.deviation, errors="coerce")
    wrong = table[~(numbers >= 0)]
    if len(wrong):
        raise UserError(f"{path}, line {wrong.index[0] + 2}: the deviation '{wrong.deviation.iloc[0]}' is not a number "
                        "of 0 or more; correct it.")
    if table.duplicated(STATED_FOR).any():
        line = table.index[table.duplicated(STATED_FOR)][0] + 2
        raise UserError(f"{path}, line {line}: this recipe, dataset, condition and metric have a "
                        "deviation above; remove one.")
    return table.assign(deviation=numbers)
