"""Small prepared sets and runs of the suite on them, for tests of the reliance suite."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.data.synthetic import prepare_synthetic
from featherseg.reliance import suite
from featherseg.reliance.controls import Controls
from featherseg.reliance.scores import score
from featherseg.reliance.trials import plan


def halves(folder: Path, images: int = 8, height: int = 20, width: int = 30, group_of=lambda k: f"patient{k}",
           empty: tuple[int, ...] = ()) -> PreparedDataset:
    """Images of two structures: a block in the left half and one in the right; `empty` ones have empty left masks."""
    rng = np.random.default_rng(0)
    with PreparedWriter(folder, dataset="halves") as writer:
        for k in range(images):
            writer.add_image(f"im{k}", rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            for side, place in (("left", 0), ("right", width // 2)):
                mask = np.zeros((height, width), bool)
                mask[3 : 9 + k % 4, place + 2 : place + 9] = (k, side) not in {(number, "left") for number in empty}
                colour = ("red", "blue", "green")[k % 3]
                writer.add_sample(
                    image_id=f"im{k}", target=f"{side} block", mask=mask, split="test", group=group_of(k),
                    attributes={"number": "one", "colour": colour, "location": side},
                    prompts={"p0": "", "p1": f"{side} block", "p2": f"one {colour} {side} block, located in {side}"})
    return PreparedDataset.read(folder)


@cache
def drawn(root: Path, name: str, size: int = 48) -> PreparedDataset:
    """A synthetic set of about as many structures as every other."""
    prepare_synthetic(name, 30 if name == "lesions" else 14, size, 0, root / name)
    return PreparedDataset.read(root / name)


def control_trials(data: PreparedDataset, control: str, **chosen) -> pd.DataFrame:
    """The trials of a control on a dataset; without a choice only those that the verdict needs."""
    segment = Controls(data, data.samples, "fullest").segments()[control]
    return suite.run(segment, data, plan(data.samples, "fullest", 0, **({"text": (), "image": ()} | chosen)), seed=0)


def control_scores(data: PreparedDataset, control: str, **chosen) -> dict[str, Any]:
    """Their scores."""
    return score(control_trials(data, control, **chosen), seed=0)


def found(scores: dict[str, Any], condition: str) -> dict[str, Any]:
    """The record of one intervention."""
    return next(one for one in scores["conditions"] if one["condition"] == condition)
