"""MedVLSM's numbers, under this project's names for datasets and training regimes."""

from collections.abc import Mapping

import pandas as pd

from featherseg.reporting.published import read

SETS: Mapping[str, str] = {
    "Kvasir-SEG": "kvasir_seg", "ClinicDB": "clinicdb", "BKAI": "bkai", "CVC-300": "cvc300", "CVC-ColonDB": "colondb",
    "ETIS": "etis", "ISIC": "isic2016", "DFU": "dfu", "CAMUS": "camus", "BUSI": "busi", "CheXlocalize": "chexlocalize"}
REGIMES: Mapping[str, str] = {
    "finetuned on: Individual": "individual", "finetuned on: Endoscopy Pooled": "pooled: endoscopy",
    "finetuned on: Pooled": "pooled: all"}
STATE_OF_THE_ART = "best elsewhere"


def table_2() -> pd.DataFrame:
    """Table 2: DSC in % by regime and our dataset, one column per model; NaN where the table has no number."""
    rows = _rows()
    values = rows.pivot(index=["regime", "dataset"], columns="model", values="value")
    order = [(regime, dataset) for regime in REGIMES.values() for dataset in SETS.values()
             if (regime, dataset) in values.index]
    return values.loc[order, list(dict.fromkeys(rows.model))]


def source() -> str:
    """Where Table 2 was read: repository, file and commit."""
    return _rows().source.iloc[0].partition(" (")[0]


def _rows() -> pd.DataFrame:
    rows = read("medvlsm")
    rows = rows[rows.table == "Table 2"]
    models = rows.model.where(~rows.model.str.startswith("SOTA"), STATE_OF_THE_ART)
    return rows.assign(regime=rows.variant.map(dict(REGIMES)), model=models, dataset=rows.dataset.map(dict(SETS)))
