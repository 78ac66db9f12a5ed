"""A run on a tiny random model and a few drawn discs, written the way the stages write it."""

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from featherseg import adapters, checkpoint, models
from featherseg.config import ModelConfig, Run
from featherseg.core.files import write_status
from featherseg.data.prepared import PreparedWriter
from featherseg.models.base import SegmentationModel
from featherseg.models.clipseg.model import CLIPSeg, small_config
from featherseg.tasks.segmentation.config import SegmentationEvaluate, SegmentationTrain

HEIGHT, WIDTH = 40, 70
TARGETS = ("left disc", "middle disc", "right disc")
TRAINED: dict[tuple[object, ...], SegmentationModel] = {}


def write_weights(folder: Path) -> ModelConfig:
    """Random weights, so large that masks are not trivial, of a CLIPSeg for 32 px, in a folder."""
    architecture, tensors, digest = _weights()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(architecture)
    (folder / "model.safetensors").write_bytes(tensors)
    return ModelConfig(name="clipseg", weights=str(folder), sha256=digest, image_size=32)


@functools.cache
def _weights() -> tuple[str, bytes, str]:
    """Contents of `config.json` and `model.safetensors`, and the SHA-256 of the latter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPSeg(small_config(width=32, text_width=32, depth=4, image_size=32, taps=(0, 1, 2)), 32)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    tensors = save({name: tensor.contiguous() for name, tensor in model.net.state_dict().items()})
    return json.dumps(model.net.config.to_dict(), default=str), tensors, hashlib.sha256(tensors).hexdigest()


def write_dataset(folder: Path, images: int = 5, targets: tuple[str, ...] = TARGETS) -> None:
    """Images of 40 x 70 pixels with a disc for each target, all in split test; the first mask is empty."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    with PreparedWriter(folder, dataset="discs") as writer:
        for k in range(images):
            tiles = rng.integers(0, 256, (4, 7, 3), dtype=np.uint8)
            writer.add_image(f"image{k}", tiles.repeat(10, axis=0).repeat(10, axis=1))
            for place, target in enumerate(targets):
                mask = (rows - 20) ** 2 + (columns - 15 - 20 * place) ** 2 < (6 + k) ** 2
                mask &= (k, place) != (0, 0)
                writer.add_sample(image_id=f"image{k}", target=target, mask=mask, split="test", prompts={
                    "p0": "", "p1": target, "p2": [f"the {target} of row {k}", f"row {k}, {target}"]})


def make_run(model: ModelConfig, adapter: str = "decoder", **evaluate) -> Run:
    """A run of a method on the discs."""
    knobs = adapters.resolve({"name": adapter}).knobs()
    return Run(study="study", recipe=f"clipseg-{adapter}", dataset="discs", seed=3, model=model,
               adapter=knobs, train=None if adapter == "zero_shot" else SegmentationTrain(),
               evaluate=SegmentationEvaluate(**evaluate))


def write_training(run: Run, folder: Path) -> None:
    """What training leaves behind, its trainable weights moved at random."""
    folder.mkdir(parents=True, exist_ok=True)
    if run.train is not None:
        checkpoint.save(folder / "checkpoint.safetensors", _trained(run), run)
    write_status(folder)


def _trained(run: Run) -> SegmentationModel:
    """A run's model with its trainable weights moved, made once for all runs on the same weights."""
    key = run.model.sha256 or run.model.weights, run.model.image_size, json.dumps(run.adapter), run.seed
    if key not in TRAINED:
        model = adapters.apply(models.build(run.model, run.seed), run.adapter, run.seed)
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in adapters.trainable(model).values():
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        TRAINED[key] = model
    return TRAINED[key]
