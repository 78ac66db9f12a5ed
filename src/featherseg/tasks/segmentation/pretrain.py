"""How the embedded weights came to be: small models taught to find what a prompt names in `scenes`.

Every object of an image is asked for at once, so that the vision tower, where the time goes, runs once for
all of them. Half of the prompts are the object's shortest one, often its shape alone; the other half is any of
those that single it out, most of which name its colour or place and can be followed without knowing shapes.
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from featherseg.config import PretrainParams
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, sha256_file, write_json
from featherseg.data.synthetic import draw, scene_prompts
from featherseg.models import having, small_model
from featherseg.models.base import SegmentationModel
from featherseg.models.weights import read_state
from featherseg.tasks.segmentation.config import LossConfig
from featherseg.tasks.segmentation.losses import per_sample_loss
from featherseg.tasks.segmentation.metrics import dice

SEED, HELD_OUT_SEED, HELD_OUT_IMAGES = 0, 1, 300
SHORTEST = 0.5
LOGGED = ("epoch", "loss", "dsc_unique_prompt", "dsc_other_prompt", "minutes")
WORDS = 32  # tokens a prompt, for models that keep the number fixed: the longest wording of `scenes` fits


@dataclass(frozen=True)
class Scenes:
    """Drawn scenes: pixels uint8 (N, S, S, 3), and for each image its masks (K, S, S) and K lists of prompts."""

    pixels: Tensor
    masks: list[Tensor]
    prompts: list[list[list[str]]]


def draw_scenes(images: int, seed: int, size: int) -> Scenes:
    """Draw `images` scenes at `size` pixels."""
    pixels, masks, prompts = [], [], []
    for index in tqdm(range(images), desc="scenes", mininterval=10):
        scene = draw("scenes", index, seed, size)
        pixels.append(scene.image)
        masks.append(torch.from_numpy(np.stack([target.mask for target in scene.targets])))
        prompts.append([scene_prompts(scene, k) for k in range(len(scene.targets))])
    return Scenes(torch.from_numpy(np.stack(pixels)), masks, prompts)


def pretrain(params: PretrainParams, out_dir: Path, start: Path | None = None) -> None:
    """Pretrain a small model and write config.json, model.safetensors (half precision), SHA256 and log.csv.

    The log holds the mean loss of every epoch and the DSC on held-out scenes after it. The learning rate
    follows one cycle over all steps. With `start`, a folder that an earlier pretraining wrote, training goes on
    from its weights with a new cycle, and its log is continued.

    Raises:
        UserError: `start` holds no weights of this model, or no log.
    """
    torch.manual_seed(SEED)
    knobs = {"word_length": WORDS} if params.model in having("word_length") else {}
    model = small_model(params.model, params.size, **knobs)
    log = []
    if start is not None:
        log = _read_log(start / "log.csv")
        model.load_base(read_state(start), str(start))
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr, weight_decay=params.weight_decay)
    steps = params.epochs * (params.images // params.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, params.lr, total_steps=steps, pct_start=0.05)
    scenes = draw_scenes(params.images, SEED, params.size)
    held_out = draw_scenes(HELD_OUT_IMAGES, HELD_OUT_SEED, params.size)
    done, minutes = len(log), log[-1]["minutes"] if log else 0.0
    rng, begun = random.Random(f"{SEED}/{done}"), time.monotonic()
    for epoch in range(done + 1, done + params.epochs + 1):
        loss = _epoch(model, scenes, optimizer, schedule, params.batch_size, rng)
        own, other = held_out_dice(model, held_out)
        spent = minutes + (time.monotonic() - begun) / 60
        log.append(dict(zip(LOGGED, (epoch, loss, own, other, spent), strict=True)))
        print({key: round(value, 4) for key, value in log[-1].items()}, flush=True)
        _write(model, log, out_dir)


def _read_log(path: Path) -> list[dict[str, float]]:
    try:
        log = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); --start names a folder that an earlier pretraining wrote, "
                        "its log.csv included.") from None
    missing = [name for name in LOGGED if name not in log]
    if missing or not all(log[name].dtype.kind in "if" for name in LOGGED):
        raise UserError(f"{path} is not the log of a pretraining, whose columns are the numbers {', '.join(LOGGED)}; "
                        "--start names a folder that an earlier pretraining wrote.")
    return log[list(LOGGED)].to_dict("records")


def _epoch(model: SegmentationModel, scenes: Scenes, optimizer: torch.optim.Optimizer,
           schedule: torch.optim.lr_scheduler.LRScheduler, batch_size: int, rng: random.Random) -> float:
    model.train()
    order, losses = list(range(len(scenes.masks))), []
    rng.shuffle(order)
    for first in range(0, len(order) - batch_size + 1, batch_size):
        images = order[first : first + batch_size]
        rows = torch.tensor([k for k, image in enumerate(images) for _ in scenes.masks[image]])
        masks = torch.cat([scenes.masks[image] for image in images])
        prompts = [wordings[0] if rng.random() < SHORTEST else rng.choice(wordings)
                   for image in images for wordings in scenes.prompts[image]]
        features = model.encode_image(model.normalise(scenes.pixels[images])).index(rows)
        logits = model.to_input(model.decode(features, model.encode_text(model.tokenize(prompts))))
        loss = per_sample_loss(logits, masks.unsqueeze(1), LossConfig()).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def held_out_dice(model: SegmentationModel, scenes: Scenes) -> tuple[float, float]:
    """Mean DSC with each object's shortest unique prompt, and with that of the image's next object."""
    model.eval()
    own, other = [], []
    for pixels, masks, prompts in zip(scenes.pixels, scenes.masks, scenes.prompts, strict=True):
        features = model.encode_image(model.normalise(pixels[None])).index(torch.zeros(len(masks), dtype=torch.long))
        text = model.encode_text(model.tokenize([wordings[0] for wordings in prompts]))
        predicted = (model.to_input(model.decode(features, text))[:, 0] > 0).numpy()
        own += [dice(p, m) for p, m in zip(predicted, masks.numpy(), strict=True)]
        other += [dice(p, m) for p, m in zip(np.roll(predicted, 1, axis=0), masks.numpy(), strict=True)]
    return float(np.mean(own)), float(np.mean(other))


def _write(model: SegmentationModel, log: list[dict[str, float]], out_dir: Path) -> None:
    with atomic_path(out_dir) as folder:
        folder.mkdir()
        write_json(folder / "config.json", model.architecture())
        save_file({name: tensor.half().contiguous() for name, tensor in model.net.state_dict().items()},
                  folder / "model.safetensors")
        (folder / "SHA256").write_text(f"{sha256_file(folder / 'model.safetensors')}  model.safetensors\n")
        pd.DataFrame(log).to_csv(folder / "log.csv", index=False, float_format="%.5f")
