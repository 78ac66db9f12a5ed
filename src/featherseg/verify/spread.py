"""How far seeds alone move a score: what a difference between two machines is measured against."""

import io
from pathlib import Path

import pandas as pd

from featherseg.core.errors import UserError
from featherseg.core.files import read_text
from featherseg.core.paths import REPORTS
from featherseg.verify.sides import KEYS

SPREAD = REPORTS / "spread.csv"
STATED_FOR = ["recipe", "dataset", "metric"]


def deviations(scores: pd.DataFrame, runs: pd.DataFrame) -> pd.Series:
    """The standard deviation over seeds of each committed score, NaN where it is not known.

    Where a study has several seeds it is that of the committed values in the same place: recipe, dataset and all keys
    but the run. Where it has one, it is what `reports/spread.csv` states for the recipe, dataset and metric.

    Args:
        scores: rows of `results.csv` as text.
        runs: recipe and dataset of each run.

    Returns:
        One number per row of `scores`, under its index.

    Raises:
        UserError: `reports/spread.csv` is not a table of deviations.
    """
    rows = scores.merge(runs[["run", "recipe", "dataset"]], on="run", how="left")
    place = ["recipe", "dataset", *(key for key in KEYS if key != "run")]
    values = rows.assign(number=pd.to_numeric(rows.value, errors="coerce"))
    over_seeds = values.groupby(place).number.transform("std")
    stated = rows.merge(_stated(), on=STATED_FOR, how="left").deviation
    return over_seeds.fillna(stated).set_axis(scores.index)


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
        raise UserError(f"{path}, line {line}: this recipe, dataset and metric have a deviation above; remove one.")
    return table.assign(deviation=numbers)
