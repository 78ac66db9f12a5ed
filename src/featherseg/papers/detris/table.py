"""DETRIS's tables: the follow-up of ETRIS, published beside made here."""

import pandas as pd

from featherseg.describe import parameter_groups, without_weights
from featherseg.papers.detris import published
from featherseg.papers.etris import table as etris
from featherseg.papers.etris.table import Paper
from featherseg.reporting.study import Study

DETRIS = Paper("DETRIS", published.COLUMNS, published.PRINTED, published.rows)


def main_table(study: Study) -> pd.DataFrame:
    """DETRIS on each split, in the lines of `etris.main_table`."""
    return etris.main_table(study, DETRIS)


def parameters() -> pd.DataFrame:
    """Trainable parameters of DETRIS by size: of the released code, and counted at full size.

    Shares are those of both towers as they run, without CLIP's vision tower, beside the range of the abstract.
    """
    smallest, largest = published.shares()
    lines = []
    for column in published.COLUMNS:
        released, counted = published.released_counts()[column.title], _counted(column.recipes[0])
        ours = (counted["aligners"], counted["adapters"], counted["head"])
        its = tuple(released[part] for part in (*published.ADDED, "HA+GA+Projector"))
        lines.append({
            "model": column.title, "published, % of the backbone": f"{smallest:g} to {largest:g}",
            "released code, Dense Aligners": released["Dense Aligners"], "Dense Aligners": counted["aligners"],
            "released code, Text Adapters": released["Text Adapters"], "Text Adapters": counted["adapters"],
            "% of the backbone": 100 * (counted["aligners"] + counted["adapters"]) / counted["backbone"],
            "released code, head": released["HA+GA+Projector"], "head": counted["head"],
            "all trainable": counted["trainable"], "backbone": counted["backbone"],
            "equal": "yes" if ours == its else "NO"})
    return pd.DataFrame(lines)


def _counted(recipe: str) -> dict[str, int]:
    """Parameters of a recipe's full-size model by part."""
    network = without_weights(recipe)
    groups = parameter_groups(network)
    parts = {"aligners": "exchange.vision", "adapters": "exchange.text", "backbone": "net.backbone"}
    counted = {}
    for name, part in parts.items():
        counted[name] = sum(p.numel() for p in network.get_submodule(part).parameters())
    trainable = sum(group["trainable"] for group in groups.values())
    return counted | {"head": groups["decoder"]["trainable"], "trainable": trainable}
