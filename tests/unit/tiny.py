"""A tiny model, a tiny prepared dataset and a run on them, for tests of what trains and scores.

As a script, `tiny.py <run.json> <data> <out>`, it trains in a process of its own.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from featherseg.config import ModelConfig, Run
from featherseg.core.files import sha256_file
from featherseg.data.prepared import PreparedWriter
from featherseg.models.clipseg.model import CLIPSeg, small_config
from featherseg.tasks.segmentation.config import SegmentationEvaluate, SegmentationTrain

SIZE = 32


def tiny_model(seed: int = 3) -> CLIPSeg:
    """A random CLIPSeg of four narrow blocks at 32 px."""
    torch.manual_seed(seed)
    config = small_config(width=32, text_width=32, depth=4, image_size=SIZE, taps=(0, 1, 2), reduce_dim=16)
    return CLIPSeg(config, SIZE).eval()


def tiny_weights(folder: Path) -> str:
    """Write the tiny model's weights as a folder in transformers' layout; returns their SHA-256."""
    folder.mkdir(parents=True)
    net = tiny_model().net
    net.config.to_json_file(folder / "config.json")
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()},
              folder / "model.safetensors")
    return sha256_file(folder / "model.safetensors")


def tiny_data(folder: Path, train: int = 10, val: int = 5) -> Path:
    """Write squares on noise: two targets, so two samples, an image; prompts p0 to p2."""
    rng = np.random.default_rng(0)
    with PreparedWriter(folder, dataset="squares") as writer:
        for number in range((train + val + 1) // 2):
            name, pixels = f"{number:03}", rng.integers(0, 120, (40, 48, 3), dtype=np.uint8)
            writer.add_image(name, pixels)
            for side in range(2):
                if 2 * number + side >= train + val:
                    continue
                top, left = rng.integers(0, 20, 2)
                mask = np.zeros((40, 48), bool)
                mask[top : top + 14, left + 4 * side : left + 4 * side + 16] = True
                split = "train" if 2 * number + side < train else "val"
                writer.add_sample(image_id=name, target=f"square{side}", mask=mask, split=split, prompts={
                    "p0": "", "p1": "square", "p2": [f"square number {side}", f"a square, the {side}th"]})
    return folder


def tiny_run(weights: Path, sha256: str, adapter: dict[str, Any] | None = None, **train: Any) -> Run:
    """A run on the tiny model; `train` overrides a short constant-rate training."""
    settings = {"epochs": 3, "batch_size": 4, "schedule": "constant", "lr": 1e-2, **train}
    return Run(study="tests", recipe="tiny", dataset="squares", seed=1, train=SegmentationTrain(**settings),
               evaluate=SegmentationEvaluate(splits=("val",)),
               adapter=adapter or {"name": "vlsm_dense", "positions": "VLC", "dim": 8, "cond_dim": 8},
               model=ModelConfig(name="clipseg", weights=str(weights), sha256=sha256, image_size=SIZE))


def tiny_environment() -> dict[str, str]:
    """Environment of a process that runs this file with the package of this checkout and as many threads."""
    source = Path(__file__).parent.parent.parent / "src"
    return {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(torch.get_num_threads())}


if __name__ == "__main__":
    from featherseg.engine import train

    plan, data, out = map(Path, sys.argv[1:])
    train(Run.model_validate_json(plan.read_text()), data, out, out.with_suffix(".json"))
