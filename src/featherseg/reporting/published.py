"""Published numbers: the rows of data/published whose source was seen."""

from pathlib import Path
from typing import TYPE_CHECKING

from featherseg.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path("data/published")


def read(name: str) -> "pd.DataFrame":
    """The verified rows of `data/published/<name>.csv`; DSC and IoU are percentages, HD95 is in pixels.

    Columns: paper, table, model, variant, train_params_m, dataset, split, metric, value, source.

    Raises:
        UserError: the file is missing or lacks a column.
    """
    import pandas as pd

    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist; restore it from git.")
    frame = pd.read_csv(path, dtype={"verified": str})
    if "verified" not in frame:
        raise UserError(f"{path} lacks the column 'verified'; restore it from git.")
    return frame[frame.verified == "yes"].drop(columns="verified").reset_index(drop=True)


def counts_of_released_code(paper: str) -> "pd.DataFrame":
    """Exact parameters that a paper's released code builds, one row per variant and part.

    Columns: variant, part, parameters.
    """
    rows = read("derived")
    rows = rows[(rows.paper == paper) & (rows.metric == "parameters")]
    rows = rows[["variant", "model", "value"]].rename(columns={"model": "part", "value": "parameters"})
    return rows.astype({"parameters": int}).reset_index(drop=True)
