"""DETRIS's tables: the follow-up of ETRIS, published beside made here."""

import pandas as pd

from featherseg.describe import parameter_groups, without_weights
from featherseg.papers.etris import table as etris
from featherseg.papers.etris.table import Paper
from featherseg.reporting import published
from featherseg.reporting.study import Study

DENSE_ALIGNER = "dense_aligner"
DETRIS = Paper("DETRIS", published.DETRIS, DENSE_ALIGNER, published.MIOU_PRINTED, published.detris,
               published.detris_sources)


def main_table(study: Study) -> pd.DataFrame:
    """DETRIS on each split, in the lines of `etris.main_table`."""
    return etris.main_table(study, DETRIS)


def parameters() -> pd.DataFrame:
    """Trainable parameters of DETRIS by size: of the released code, and counted at full size.

    Shares are those of both towers as they run, CLIP's vision tower not among them, beside the range of the abstract.
    """
    released, (least, most) = published.released_counts("DETRIS"), published.detris_shares()
    lines = []
    for title, model in published.DETRIS.items():
        theirs, network = released[published.DETRIS_TOWERS[model]], without_weights(f"{model}-{DENSE_ALIGNER}")
        aligners, adapters = (sum(p.numel() for p in part.parameters())
                              for part in (network.exchange.vision, network.exchange.text))
        groups = parameter_groups(network)
        backbone, head = sum(p.numel() for p in network.net.backbone.parameters()), groups["decoder"]["trainable"]
        lines.append({
            "model": title, "published, % of the backbone": f"{least:g} to {most:g}",
            "released code, Dense Aligners": theirs["Dense Aligners"], "Dense Aligners": aligners,
            "released code, Text Adapters": theirs["Text Adapters"], "Text Adapters": adapters,
            "% of the backbone": 100 * (aligners + adapters) / backbone,
            "released code, head": theirs["HA+GA+Projector"], "head": head,
            "all trainable": sum(group["trainable"] for group in groups.values()), "backbone": backbone,
            "equal": "yes" if (theirs["Dense Aligners"], theirs["Text Adapters"], theirs["HA+GA+Projector"])
            == (aligners, adapters, head) else "NO"})
    return pd.DataFrame(lines)
