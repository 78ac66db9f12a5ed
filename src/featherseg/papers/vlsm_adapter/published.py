"""VLSM-Adapter's numbers, under this project's names for methods and datasets."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from featherseg.reporting.beside import Column
from featherseg.reporting.published import counts_of_released_code, read

DATASETS: Mapping[str, str] = {
    "Kvasir-SEG": "kvasir_seg",
    "ClinicDB": "clinicdb",
    "BKAI": "bkai",
    "ISIC-16": "isic2016",
    "DFU": "dfu",
    "CAMUS": "camus",
    "BUSI": "busi",
    "CheXlocalize": "chexlocalize",
}


@dataclass(frozen=True)
class Method(Column):
    """A column of Table 1.

    Attributes:
        model, variant: its names in `data/published/vlsm_adapter.csv`.
    """

    model: str = ""
    variant: str = ""


END_TO_END = "end-to-end fine-tune (upper bound)"
TABLE_1 = (
    # the released code trains the decoder alone under this name, as 90_audit shows
    Method("CLIPSeg end-to-end", ("clipseg-decoder",), "clipseg-decoder-published", "CLIPSeg", END_TO_END),
    Method("CRIS end-to-end", ("cris-full",), "cris-full-published", "CRIS", END_TO_END),
    Method("SAN", ("san-decoder",), "san-decoder-published", "SAN", "adapter fine-tune"),
    Method("SA (shallow, VLC)", ("clipseg-vlsm_shallow-vlc",), "clipseg-vlsm_shallow-vlc-published",
           "CLIPSeg SA", "shallow adapter (ours)"),
    Method("DA (dense, VL)", ("clipseg-vlsm_dense-vl",), "clipseg-vlsm_dense-vl-published",
           "CLIPSeg DA", "dense adapter (ours)"),
)
FULL = Column("full (both towers)", ("clipseg-full",))


def table_1(metric: str) -> pd.DataFrame:
    """Table 1 for one metric (`DSC`, `IoU` or `HD95`): our dataset names by method titles."""
    rows = _rows()
    rows = rows[rows.metric == metric]
    values = rows.pivot(index="dataset", columns="method", values="value")
    return values.reindex(index=list(DATASETS.values()), columns=[method.title for method in TABLE_1])


def source() -> str:
    """Where Table 1 was read: repository, file and commit."""
    return _rows().source.iloc[0].partition(" (")[0]


def millions() -> dict[str, float]:
    """Trainable parameters in millions by method title, as Table 1 prints them."""
    rows = _rows().drop_duplicates("method")
    return dict(zip(rows.method, rows.train_params_m.astype(float), strict=True))


def released_counts() -> dict[str, int]:
    """Exact trainable parameters by title (`DA-V`, `SA-VLC`, ...), counted from the released code."""
    rows = counts_of_released_code("VLSM-Adapter")
    return dict(zip(rows.part, rows.parameters, strict=True))


def printed_parameters(recipe: str) -> str | None:
    """Trainable parameters of a recipe's row in Table 1, as printed; None without a row."""
    for method in TABLE_1:
        if recipe in (*method.recipes, method.released):
            return f"{millions()[method.title]:g} M (VLSM-Adapter, Table 1: {method.title})"
    return None


def position_means() -> list[tuple[str, str, str, float, str]]:
    """Published mean DSC in % by adapter and position: (adapter, positions, datasets, DSC, source).

    Table 1 holds one position of each adapter, a later paper quotes one more; all are means of five sets. Where both
    give a number for one position and disagree, as for SA at VLC, the quoted line says so.
    """
    adapters = {"CLIPSeg DA": ("vlsm_dense", "VL"), "CLIPSeg SA": ("vlsm_shallow", "VLC")}
    derived, quoted = read("derived"), read("vlsm_adapter")
    derived = derived[
        derived.table.str.endswith("mean over 5 datasets of Table 1") & derived.model.isin(adapters)
    ]
    quoted = quoted[quoted.table.str.startswith("Position ablation")]
    lines = [(*adapters[row.model], "mean of 5 sets", row.value, f"Table 1 ({source()}), averaged here")
             for row in derived.itertuples()]
    averaged = {line[:2]: line[3] for line in lines}
    for row in quoted.itertuples():
        place, note = (adapters[row.model][0], row.variant), ""
        if place in averaged and abs(averaged[place] - row.value) >= 0.005:
            note = (f"; the five values of Table 1 average to {averaged[place]:.2f}, so the quoted figure is "
                    f"{row.value - averaged[place]:+.2f} off them")
        lines.append((*place, "mean of 5 sets", row.value, f"{row.source}, quoting the paper{note}"))
    return sorted(lines)


def _rows() -> pd.DataFrame:
    """The rows of Table 1 with our names: `dataset`, and `method` for its title."""
    rows = read("vlsm_adapter")
    rows = rows[rows.table == "Table 1"]
    titles = {(method.model, method.variant): method.title for method in TABLE_1}
    keys = zip(rows.model, rows.variant, strict=True)
    return rows.assign(method=[titles[key] for key in keys], dataset=rows.dataset.map(dict(DATASETS)))
