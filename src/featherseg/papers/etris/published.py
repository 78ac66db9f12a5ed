"""ETRIS's numbers, and those of other papers on the same splits, under this project's names for models and datasets."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from featherseg.reporting.beside import Column
from featherseg.reporting.published import counts_of_released_code, read

# title -> its name in data/published
TOWERS: Mapping[str, str] = {
    "ETRIS RN50": "CLIP ResNet-50", "ETRIS RN101": "CLIP ResNet-101", "ETRIS ViT-B/16": "CLIP ViT-B/16"}
# title -> our model
BACKBONES: Mapping[str, str] = {"ETRIS RN50": "etris_r50", "ETRIS RN101": "etris_r101", "ETRIS ViT-B/16": "etris_vit"}
COLUMNS = (
    Column("ETRIS RN50", ("etris_r50-bridger",), "etris_r50-bridger-published"),
    Column("ETRIS RN101", ("etris_r101-bridger",), "etris_r101-bridger-published"),
    Column("ETRIS ViT-B/16", ("etris_vit-bridger",), "etris_vit-bridger-published"),
)
SPLITS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("RefCOCO", "val"): ("refcoco", "val"), ("RefCOCO", "testA"): ("refcoco", "testA"),
    ("RefCOCO", "testB"): ("refcoco", "testB"), ("RefCOCO+", "val"): ("refcoco_plus", "val"),
    ("RefCOCO+", "testA"): ("refcoco_plus", "testA"), ("RefCOCO+", "testB"): ("refcoco_plus", "testB"),
    ("G-Ref", "val(u)"): ("refcocog_umd", "val"), ("G-Ref", "test(u)"): ("refcocog_umd", "test"),
    ("G-Ref", "val(g)"): ("refcocog_google", "val")}
PRINTED = "IoU, as printed (mIoU at 0.35, all sentences, in the released code)"
ADDED = "Bridger"  # what the method adds to the towers, as data/published/derived.csv calls it


def rows() -> pd.DataFrame:
    """ETRIS's IoU in %, one row per backbone (`title`) and split of ours (`dataset`, `split`), with its source."""
    table = read("etris")
    table = table[(table.model == "ETRIS") & (table.metric == "IoU")]
    titles = {name: title for title, name in TOWERS.items()}
    return at_our_splits(table.assign(title=table.variant.map(titles)))


def millions() -> dict[str, float]:
    """Trainable parameters in millions by backbone, as the paper's table is quoted."""
    printed = rows().drop_duplicates("title")
    return dict(zip(printed.title, printed.train_params_m.astype(float), strict=True))


def released_counts() -> dict[str, dict[str, int]]:
    """Exact parameters by backbone and part (`Bridger`, `HA+GA+Projector`, ...), counted from the released code."""
    counts = parts_by_variant("ETRIS")
    return {title: counts[name] for title, name in TOWERS.items()}


def printed_parameters(recipe: str) -> str | None:
    """Trainable parameters of a recipe's backbone, as printed; None for a recipe without a column."""
    title = title_of_column(COLUMNS, recipe)
    return title and f"{millions()[title]:g} M (ETRIS, {TOWERS[title]}, without the head)"


def released_parameters(recipe: str) -> dict[str, int]:
    """Trainable parameters of the released code by group or module; empty for a recipe without a column."""
    title = title_of_column(COLUMNS, recipe)
    return by_group(released_counts()[title], (ADDED,)) if title else {}


def elsewhere() -> pd.DataFrame:
    """What other papers print on the same splits, in %, each under the name that its source gives the measure.

    Returns:
        one row per model and measure, one column per split, with the source.
    """
    table = pd.concat([read("etris"), read("detris")])
    keys = list(zip(table.dataset, table.split, strict=True))
    table = table.assign(place=[f"{dataset} {split}" for dataset, split in keys])
    table = table[[key in SPLITS for key in keys]]
    table = table[~table.table.str.startswith("Main table rows of ETRIS")]
    lines = []
    for (model, variant, metric), part in table.groupby(["model", "variant", "metric"], sort=False):
        lines.append({"model": model, "variant": re.sub(r" \([mo]IoU\)", "", variant), "measure as printed": metric,
                      **part.set_index("place").value.to_dict(), "where from": f"published: {sources(part)}"})
    columns = [f"{dataset} {split}" for dataset, split in SPLITS]
    return pd.DataFrame(lines, columns=["model", "variant", "measure as printed", *columns, "where from"])


# shared with DETRIS, whose tables have the same splits and whose released code has the same head


def sources(rows: "pd.DataFrame") -> str:
    """Where the numbers of some rows were read, each source once."""
    parts = [part for source in rows.source for part in source.split("; ")]
    return "; ".join(dict.fromkeys(parts))


def at_our_splits(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with our names of dataset and split."""
    places = [SPLITS[key] for key in zip(table.dataset, table.split, strict=True)]
    datasets = [dataset for dataset, _ in places]
    splits = [split for _, split in places]
    return table.assign(dataset=datasets, split=splits)


def by_split(table: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Values by our dataset and split, one column per title; NaN where no source could be verified."""
    order = pd.MultiIndex.from_tuples(SPLITS.values(), names=["dataset", "split"])
    values = table.pivot(index=["dataset", "split"], columns="title", values="value")
    return values.reindex(index=order, columns=[column.title for column in columns])


def parts_by_variant(paper: str) -> dict[str, dict[str, int]]:
    """Exact parameters of a paper's released code, by variant and part."""
    counts = counts_of_released_code(paper)
    return {variant: dict(zip(part.part, part.parameters, strict=True)) for variant, part in counts.groupby("variant")}


def by_group(counts: Mapping[str, int], added: Sequence[str]) -> dict[str, int]:
    """Parameters of the released code by the groups and modules that `featherseg describe` prints.

    Args:
        counts: by part, as data/published/derived.csv calls them.
        added: the parts that the method adds to the towers.
    """
    return {"adapter": sum(counts[part] for part in added), "decoder": counts["HA+GA+Projector"],
            "  neck": counts["HA (neck)"], "  decoder": counts["GA (decoder)"], "  proj": counts["Projector"]}


def title_of_column(columns: Sequence[Column], recipe: str) -> str | None:
    """The title of the column that a recipe makes, correct or as released; None without one."""
    for column in columns:
        if recipe in (*column.recipes, column.released):
            return column.title
    return None
