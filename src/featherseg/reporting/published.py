"""The papers' numbers, under this project's names for methods and datasets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featherseg.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path("data/published")
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
class Method:
    """A column of VLSM-Adapter's Table 1 and the recipe that makes it here.

    Attributes:
        title: how reports call it.
        model, variant: how `data/published/vlsm_adapter.csv` calls it; empty where the paper has no such row.
        recipe: the correct recipe; the one that follows the released code is `<recipe>-published`.
        counted: its name in `data/published/derived.csv`, whose counts come from the released code.
    """

    title: str
    model: str
    variant: str
    recipe: str
    counted: str | None = None


AS_RELEASED = "-published"
END_TO_END = "end-to-end fine-tune (upper bound)"
TABLE_1 = (
    # the released code trains the decoder alone under this name, as 90_audit shows
    Method("CLIPSeg end-to-end", "CLIPSeg", END_TO_END, "clipseg-decoder"),
    Method("CRIS end-to-end", "CRIS", END_TO_END, "cris-full"),
    Method("SAN", "SAN", "adapter fine-tune", "san-decoder"),
    Method("SA (shallow, VLC)", "CLIPSeg SA", "shallow adapter (ours)", "clipseg-vlsm_shallow-vlc", "SA-VLC"),
    Method("DA (dense, VL)", "CLIPSeg DA", "dense adapter (ours)", "clipseg-vlsm_dense-vl", "DA-VL"),
)

FULL = Method("full (both towers)", "", "", "clipseg-full")


def read(name: str) -> "pd.DataFrame":
    """The verified rows of `data/published/<name>.csv`; DSC and IoU are percentages, HD95 is in pixels.

    Columns: paper, table, model, variant, train_params_m, dataset, split, metric, value, source.

    Raises:
        UserError: the file is absent or lacks a column.
    """
    import pandas as pd

    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist; restore it from git.")
    frame = pd.read_csv(path, dtype={"verified": str})
    if "verified" not in frame:
        raise UserError(f"{path} lacks the column 'verified'; restore it from git.")
    return frame[frame.verified == "yes"].drop(columns="verified").reset_index(drop=True)


def table_1(metric: str) -> "pd.DataFrame":
    """VLSM-Adapter's Table 1 for one metric (`DSC`, `IoU` or `HD95`): our dataset names by method titles."""
    rows = read("vlsm_adapter")
    rows = rows[(rows.table == "Table 1") & (rows.metric == metric)]
    titles = {(method.model, method.variant): method.title for method in TABLE_1}
    rows = rows.assign(
        method=[titles[key] for key in zip(rows.model, rows.variant, strict=True)],
        dataset=rows.dataset.map(dict(DATASETS)),
    )
    values = rows.pivot(index="dataset", columns="method", values="value")
    return values.reindex(index=list(DATASETS.values()), columns=[method.title for method in TABLE_1])


def source() -> str:
    """Where Table 1 was read: repository, file and commit."""
    rows = read("vlsm_adapter")
    return rows[rows.table == "Table 1"].source.iloc[0].partition(" (")[0]


def position_means() -> list[tuple[str, str, str, float, str]]:
    """Published mean DSC in % by adapter and position: (adapter, positions, datasets, DSC, source).

    Table 1 holds one position of each adapter, a later paper quotes one more; all are means of five sets. Where both
    speak of one position and disagree, as they do for SA at VLC, the quoted line says so.
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


def published_millions() -> dict[str, float]:
    """Trainable parameters in millions by method title, as Table 1 prints them."""
    rows = read("vlsm_adapter")
    rows = rows[rows.table == "Table 1"].drop_duplicates(["model", "variant"])
    printed = {(row.model, row.variant): float(row.train_params_m) for row in rows.itertuples()}
    return {method.title: printed[method.model, method.variant] for method in TABLE_1}


def counts_of_released_code() -> dict[str, int]:
    """Exact trainable parameters by title (`DA-V`, `SA-VLC`, ...), computed from the released code."""
    rows = read("derived")
    rows = rows[(rows.paper == "VLSM-Adapter") & (rows.metric == "parameters")]
    return {row.model: int(row.value) for row in rows.itertuples()}


# ETRIS: title -> our model; how data/published/etris.csv calls the backbones
BACKBONES: Mapping[str, str] = {"ETRIS RN50": "etris_r50", "ETRIS RN101": "etris_r101", "ETRIS ViT-B/16": "etris_vit"}
_CLIP = {"CLIP ResNet-50": "ETRIS RN50", "CLIP ResNet-101": "ETRIS RN101", "CLIP ViT-B/16": "ETRIS ViT-B/16"}
REFERRING: Mapping[tuple[str, str], tuple[str, str]] = {
    ("RefCOCO", "val"): ("refcoco", "val"), ("RefCOCO", "testA"): ("refcoco", "testA"),
    ("RefCOCO", "testB"): ("refcoco", "testB"), ("RefCOCO+", "val"): ("refcoco_plus", "val"),
    ("RefCOCO+", "testA"): ("refcoco_plus", "testA"), ("RefCOCO+", "testB"): ("refcoco_plus", "testB"),
    ("G-Ref", "val(u)"): ("refcocog_umd", "val"), ("G-Ref", "test(u)"): ("refcocog_umd", "test"),
    ("G-Ref", "val(g)"): ("refcocog_google", "val")}
IOU_PRINTED = "IoU, as printed (mIoU at 0.35, all sentences, in the released code)"


def etris() -> "pd.DataFrame":
    """ETRIS's IoU in % by our data set and split, a column a backbone; NaN where no source could be verified."""
    return _by_split(_etris_rows(), list(BACKBONES))


def etris_sources(dataset: str, split: str) -> str:
    """Where the numbers of a split were read, each source once."""
    return _sources(_etris_rows(), dataset, split)


def etris_millions() -> dict[str, float]:
    """Trainable parameters in millions by backbone, as the paper's table is quoted."""
    rows = _etris_rows().drop_duplicates("title")
    return {row.title: float(row.train_params_m) for row in rows.itertuples()}


def etris_counts() -> dict[str, dict[str, int]]:
    """Exact parameters by backbone and part (`Bridger`, `HA+GA+Projector`, ...), counted from the released code."""
    return {_CLIP[variant]: counts for variant, counts in released_counts("ETRIS").items()}


def released_counts(paper: str) -> dict[str, dict[str, int]]:
    """Exact parameters by variant and part, counted from a paper's released code."""
    rows = read("derived")
    rows = rows[(rows.paper == paper) & (rows.metric == "parameters")]
    return {variant: {row.model: int(row.value) for row in of.itertuples()} for variant, of in rows.groupby("variant")}


# DETRIS: title -> our model; how data/published calls its towers
DETRIS: Mapping[str, str] = {"DETRIS-B": "detris_b", "DETRIS-L": "detris_l"}
DETRIS_TOWERS: Mapping[str, str] = {"detris_b": "DINOv2-B + CLIP text", "detris_l": "DINOv2-L + CLIP text"}
MIOU_PRINTED = "mIoU, as printed (at 0.35, all sentences, in the released code)"


def detris() -> "pd.DataFrame":
    """DETRIS's mIoU in % by our data set and split, a column a size."""
    return _by_split(_detris_rows(), list(DETRIS))


def detris_sources(dataset: str, split: str) -> str:
    """Where the numbers of a split were read, each source once."""
    return _sources(_detris_rows(), dataset, split)


def detris_shares() -> tuple[float, float]:
    """The least and the greatest share of the backbone's parameters that DETRIS updates, in %, as its abstract says."""
    rows = read("detris")
    rows = rows[rows.model.eq("DETRIS") & rows.table.eq("Abstract")]
    return rows.value.min(), rows.value.max()


def referring_elsewhere() -> "pd.DataFrame":
    """Other papers' numbers on the referring sets, a line a model and measure, a column a split, with its source."""
    import pandas as pd

    rows = pd.concat([read("etris"), read("detris")])
    keys = list(zip(rows.dataset, rows.split, strict=True))
    rows = rows.assign(place=[f"{dataset} {split}" for dataset, split in keys])[[key in REFERRING for key in keys]]
    rows = rows[~rows.table.str.startswith("Main table rows of ETRIS")]
    lines = []
    for (model, variant, metric), of in rows.groupby(["model", "variant", "metric"], sort=False):
        sources = dict.fromkeys(part for source in of.source for part in source.split("; "))
        lines.append({"model": model, "variant": re.sub(r" \([mo]IoU\)", "", variant), "measure as printed": metric,
                      **of.set_index("place").value.to_dict(), "where from": f"published: {'; '.join(sources)}"})
    columns = [f"{dataset} {split}" for dataset, split in REFERRING]
    return pd.DataFrame(lines, columns=["model", "variant", "measure as printed", *columns, "where from"])


def _etris_rows() -> "pd.DataFrame":
    rows = read("etris")
    rows = rows[(rows.model == "ETRIS") & (rows.metric == "IoU")]
    return _at_our_splits(rows.assign(title=rows.variant.map(_CLIP)))


def _detris_rows() -> "pd.DataFrame":
    rows = read("detris")
    rows = rows[rows.model.isin(DETRIS) & (rows.metric == "mIoU") & rows.dataset.isin({name for name, _ in REFERRING})]
    return _at_our_splits(rows.assign(title=rows.model))


def _at_our_splits(rows: "pd.DataFrame") -> "pd.DataFrame":
    places = [REFERRING[key] for key in zip(rows.dataset, rows.split, strict=True)]
    return rows.assign(dataset=[dataset for dataset, _ in places], split=[split for _, split in places])


def _by_split(rows: "pd.DataFrame", titles: list[str]) -> "pd.DataFrame":
    import pandas as pd

    order = pd.MultiIndex.from_tuples(REFERRING.values(), names=["dataset", "split"])
    values = rows.pivot(index=["dataset", "split"], columns="title", values="value")
    return values.reindex(index=order, columns=titles)


def _sources(rows: "pd.DataFrame", dataset: str, split: str) -> str:
    rows = rows[(rows.dataset == dataset) & (rows.split == split)]
    return "; ".join(dict.fromkeys(part for source in rows.source for part in source.split("; ")))


# MedVLSM: how data/published/medvlsm.csv calls our data sets and the training regimes of Table 2
MEDVLSM_SETS: Mapping[str, str] = {
    "Kvasir-SEG": "kvasir_seg", "ClinicDB": "clinicdb", "BKAI": "bkai", "CVC-300": "cvc300", "CVC-ColonDB": "colondb",
    "ETIS": "etis", "ISIC": "isic2016", "DFU": "dfu", "CAMUS": "camus", "BUSI": "busi", "CheXlocalize": "chexlocalize"}
MEDVLSM_REGIMES: Mapping[str, str] = {
    "finetuned on: Individual": "individual", "finetuned on: Endoscopy Pooled": "pooled: endoscopy",
    "finetuned on: Pooled": "pooled: all"}
STATE_OF_THE_ART = "best elsewhere"


def medvlsm() -> "pd.DataFrame":
    """MedVLSM's Table 2: DSC in % by regime and our data set, a column a model; NaN where the table has none."""
    rows = _medvlsm_rows()
    values = rows.pivot(index=["regime", "dataset"], columns="model", values="value")
    order = [(regime, dataset) for regime in MEDVLSM_REGIMES.values() for dataset in MEDVLSM_SETS.values()
             if (regime, dataset) in values.index]
    return values.loc[order, list(dict.fromkeys(rows.model))]


def medvlsm_source() -> str:
    """Where Table 2 was read: repository, file and commit."""
    return _medvlsm_rows().source.iloc[0].partition(" (")[0]


def _medvlsm_rows() -> "pd.DataFrame":
    rows = read("medvlsm")
    rows = rows[rows.table == "Table 2"]
    models = rows.model.where(~rows.model.str.startswith("SOTA"), STATE_OF_THE_ART)
    return rows.assign(regime=rows.variant.map(dict(MEDVLSM_REGIMES)), model=models,
                       dataset=rows.dataset.map(dict(MEDVLSM_SETS)))
