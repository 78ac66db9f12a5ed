"""DETRIS's numbers, under this project's names for models and datasets."""

from collections.abc import Mapping

import pandas as pd

from featherseg.papers.etris.published import SPLITS, at_our_splits, by_group, parts_by_variant, title_of_column
from featherseg.reporting.beside import Column
from featherseg.reporting.published import read

# title -> our model, and its name in data/published
MODELS: Mapping[str, str] = {"DETRIS-B": "detris_b", "DETRIS-L": "detris_l"}
TOWERS: Mapping[str, str] = {"DETRIS-B": "DINOv2-B + CLIP text", "DETRIS-L": "DINOv2-L + CLIP text"}
COLUMNS = (
    Column("DETRIS-B", ("detris_b-dense_aligner",), "detris_b-dense_aligner-published"),
    Column("DETRIS-L", ("detris_l-dense_aligner",), "detris_l-dense_aligner-published"),
)
PRINTED = "mIoU, as printed (at 0.35, all sentences, in the released code)"
ADDED = ("Dense Aligners", "Text Adapters")  # as data/published/derived.csv calls what the method adds to the towers


def rows() -> pd.DataFrame:
    """DETRIS's mIoU in %, one row per size (`title`) and split of ours (`dataset`, `split`), with its source."""
    table = read("detris")
    named = table.dataset.isin({dataset for dataset, _ in SPLITS})
    table = table[table.model.isin(MODELS) & (table.metric == "mIoU") & named]
    return at_our_splits(table.assign(title=table.model))


def shares() -> tuple[float, float]:
    """The smallest and the largest share of the backbone's parameters that DETRIS updates, in %, from its abstract."""
    table = read("detris")
    table = table[table.model.eq("DETRIS") & table.table.eq("Abstract")]
    return table.value.min(), table.value.max()


def released_counts() -> dict[str, dict[str, int]]:
    """Exact parameters by size and part (`Dense Aligners`, ...), counted from the released code."""
    counts = parts_by_variant("DETRIS")
    return {title: counts[name] for title, name in TOWERS.items()}


def printed_parameters(recipe: str) -> str | None:
    """The printed share of trainable parameters; None for a recipe without a column."""
    if title_of_column(COLUMNS, recipe) is None:
        return None
    return "{:g} % to {:g} % of the backbone (DETRIS, abstract)".format(*shares())


def released_parameters(recipe: str) -> dict[str, int]:
    """Trainable parameters of the released code by group or module; empty for a recipe without a column."""
    title = title_of_column(COLUMNS, recipe)
    return by_group(released_counts()[title], ADDED) if title else {}
