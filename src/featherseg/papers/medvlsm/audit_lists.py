"""Evidence, computed on the spot, for faults in MedVLSM's published lists of splits and prompts.

As in `audit.py`, the verdict is read off its measurement.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from featherseg.config import read_params
from featherseg.core.files import write_json
from featherseg.data.folder.list_faults import KINDS, downloaded_lists, list_faults, lists_of_medvlsm

if TYPE_CHECKING:
    import pandas as pd

DRAWN_LISTS, PUBLISHED_LISTS = "drawn here", "published"
FAULTY = {  # by dataset and list: file name of each row's image, of its mask, and P1; each kind of fault occurs once
    "bkai": {"train": [("a", "a", "polyp"), ("a", "a", "polyp"), ("b", "b", "polyp")], "test": [("b", "b", "polyp")]},
    "busi": {"train": [("a", "a", "No tumor."), ("b", "b", "tumor")]},
    "camus": {name: [("patient0001_2CH_ED.png", "mask_1/patient0001_2CH_ED_gt.png", prompt)]
              for name, prompt in (("val", "of a man"), ("test", "of a woman"))},
    "colondb": {"test": [("c", "c", "polyp")]}, "cvc300": {"test": [("c", "c", "polyp")]},
    "etis": {"train": [("a", "a", "polyp")], "test": [("b", "b", "polyp")]},
    "kvasir_seg": {"test": [("a", "a", "polyp")], "testB": [("a", "a", "polyp")]},
}
SOUND = {"isic2016": {"train": [("a", "a", "skin")], "val": [("b", "b", "skin")], "test": [("c", "c", "skin")]}}


def faults_of_lists(folders: Mapping[str, Path] | None = None) -> "pd.DataFrame":
    """Trap 11: faults of the lists that are drawn here and of the published lists that are here, one per line.

    Args:
        folders: dataset -> the folder of its published lists; None for the downloaded ones and those of the mirror.

    Returns:
        lists (drawn here, published), dataset, kind (of fault), rows, fault, what prepare does.
    """
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        faults = [(DRAWN_LISTS, fault) for fault in list_faults(_draw_lists(Path(folder)))]
    faults += [(PUBLISHED_LISTS, fault) for fault in list_faults(_lists_here() if folders is None else folders)]
    return pd.DataFrame([{"lists": lists, "dataset": fault.dataset, "kind": fault.kind, "rows": fault.count,
                          "fault": fault.found, "what prepare does": fault.corrected} for lists, fault in faults],
                        columns=["lists", "dataset", "kind", "rows", "fault", "what prepare does"])


def lists_verdict(frame: "pd.DataFrame") -> str:
    """Whether every kind of fault is found where it was drawn and nowhere else, and what the published lists have."""
    drawn, published = (frame[frame.lists == lists] for lists in (DRAWN_LISTS, PUBLISHED_LISTS))
    kinds = set(KINDS)
    unseen, alarms = sorted(kinds - set(drawn.kind)), sorted(set(drawn.dataset) & set(SOUND))
    if unseen or alarms or len(drawn) > len(kinds):
        text = (f"NOT SHOWN: in drawn lists {len(drawn)} faults are found where there are {len(kinds)}; kinds that are "
                f"not found: {', '.join(unseen) or 'none'}; sound lists with a fault: {', '.join(alarms) or 'none'}. ")
    else:
        text = f"Each of the {len(kinds)} kinds of fault is found where it was drawn, and none in lists drawn without. "
    if published.empty:
        text += ("No published list is here, or none has a fault: `featherseg download kvasir_seg` (or another set) "
                 "fetches its lists, `data.mirror` reads them from a folder. ")
    else:
        text += (f"{len(published)} faults in the published lists of {published.dataset.nunique()} sets: "
                 f"{', '.join(published.dataset.unique())}. ")
    return (f"{text}`featherseg prepare` corrects those that can be, `featherseg check` tells them; "
            "`data.keep_published_faults` keeps the rows as they are.")


def _draw_lists(root: Path) -> dict[str, Path]:
    """Write the lists of `FAULTY` and `SOUND`; their folders by dataset."""
    for dataset, lists in (FAULTY | SOUND).items():
        for name, rows in lists.items():
            write_json(root / dataset / f"{name}.json",
                       [{"img_name": image, "mask_name": mask, "prompts": {"p1": text}} for image, mask, text in rows])
    return {dataset: root / dataset for dataset in FAULTY | SOUND}


def _lists_here() -> dict[str, Path]:
    mirror = read_params("study").data.mirror
    return (lists_of_medvlsm(Path(mirror) / "medvlsm") if mirror else {}) | downloaded_lists()
