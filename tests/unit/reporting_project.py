"""A small project with fabricated scores, in the form that the pipeline writes them, to test reports on."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from featherseg.config import EvaluateConfig, ModelConfig, Run, TrainConfig, write_run
from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.evaluate import run_lengths, summarise
from featherseg.files import write_json, write_status
from featherseg.metrics import score

REPOSITORY = Path(__file__).resolve().parents[2]
ADAPTERS = {
    "clipseg-zero_shot": {"name": "zero_shot"},
    "clipseg-decoder": {"name": "decoder"},
    "clipseg-full": {"name": "full"},
    "clipseg-vlsm_dense-v": {"name": "vlsm_dense", "positions": "V", "dim": 16},
    "clipseg-vlsm_dense-vl": {"name": "vlsm_dense", "positions": "VL", "dim": 16},
    "clipseg-vlsm_dense-vlc": {"name": "vlsm_dense", "positions": "VLC", "dim": 16, "cond_dim": 16},
    "clipseg-vlsm_shallow-vlc": {"name": "vlsm_shallow", "positions": "VLC", "dim": 16, "cond_dim": 16},
    "clipseg-lora": {"name": "lora", "rank": 4, "alpha": 8, "positions": "VL"},
}
TRAINABLE = dict(zip(ADAPTERS, (0, 260_000, 3_900_000, 30_000, 46_000, 50_000, 21_000, 24_000), strict=True))
PARAMS = """\
study: {datasets: [lesions, organs], recipes: [], seeds: [0]}
data:
  synthetic:
    lesions: {images: 40, size: 96}
    organs: {images: 40, size: 96}
  folders: {clinic: {path: clinic}}
"""


def make_project(
    root: Path,
    recipes: tuple[str, ...] = tuple(ADAPTERS),
    datasets: tuple[str, ...] = ("lesions", "organs"),
    study: str = "study",
) -> None:
    """Write a project whose study has scored every recipe on every dataset; `root` is where we are."""
    for name in ("recipes", "notebooks", "data/published"):
        shutil.copytree(REPOSITORY / name, root / name, dirs_exist_ok=True)
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").write_text("stages: {}\n")
    for dataset in datasets:
        make_dataset(dataset)
        for recipe in recipes:
            declare(study, recipe, dataset)
            scored_run(study, recipe, dataset)


def declare(study: str, recipe: str, dataset: str, seed: int = 0, **adapter) -> Run:
    """Write the plan files of a run."""
    trained = recipe != "clipseg-zero_shot"
    run = Run(
        study=study,
        recipe=recipe,
        dataset=dataset,
        seed=seed,
        adapter=ADAPTERS[recipe] | adapter,
        model=ModelConfig(name="clipseg", weights="weights/clipseg-small", sha256="ab" * 32, image_size=64),
        train=TrainConfig(epochs=5) if trained else None,
        evaluate=EvaluateConfig(),
    )
    folder = Path("runs") / study / "plan"
    folder.mkdir(parents=True, exist_ok=True)
    write_run(folder, run)
    return run


def make_dataset(name: str, images: int = 9) -> None:
    """Discs on noise, with one prompt each."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]
    with PreparedWriter(Path("data/processed") / name, dataset=name) as writer:
        for k in range(images):
            disc = (rows - 30 - 4 * k) ** 2 + (columns - 48) ** 2 < (12 + k) ** 2
            image = rng.normal(150, 18, (96, 96, 3)) - 60 * disc[..., None]
            writer.add_image(f"image{k}", image.clip(0, 255).astype(np.uint8))
            writer.add_sample(image_id=f"image{k}", target="disc", mask=disc, split="test",
                              prompts={"p1": ["disc"], "p2": [f"one round dark disc in row {k} of it"]})


def scored_run(study: str, recipe: str, dataset: str, seed: int = 0) -> None:
    """What train and evaluate leave behind: predictions are the truth moved down, more in later images."""
    name, data = f"{recipe}-{dataset}-{seed}", PreparedDataset.read(Path("data/processed") / dataset)
    train, out = Path("runs") / study / "train" / name, Path("runs") / study / "evaluate" / name
    scores, masks = [], []
    for condition, extra in (("own", 0), ("empty", 4), ("other", 9)):
        for k, sample in enumerate(data.samples):
            truth = data.mask(sample)
            prediction = np.roll(truth, 2 * k + extra + len(recipe) % 5, axis=0)
            prompt = {"own": sample.prompts["p2"][0], "empty": "", "other": "another disc"}[condition]
            row = {"dataset": dataset, "sample_id": sample.sample_id, "text_condition": condition,
                   "image_condition": "own", "prompt": prompt, "threshold": 0.5, "grid": "original"}
            flags = {"target": "disc", "empty_truth": False, "empty_prediction": False}
            scores += [row | flags | {"metric": metric, "value": value}
                       for metric, value in score(prediction, truth).items()]
            masks.append(row | {"height": 96, "width": 96, "rle": run_lengths(prediction)})
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(scores).to_parquet(out / "per_sample.parquet")
    pd.DataFrame(masks).to_parquet(out / "predictions.parquet")
    counts = {"trainable_parameters": TRAINABLE[recipe], "total_parameters": 4_000_000}
    write_json(out / "metrics.json", counts | {"conditions": summarise(pd.DataFrame(scores))})
    write_status(out)
    write_status(train)
    if recipe != "clipseg-zero_shot":
        epochs = np.arange(1, 6)
        history = {"epoch": epochs, "loss": 1 / epochs, "val_dsc": 0.8 - 0.4 / epochs, "lr": 0.001}
        pd.DataFrame(history).to_csv(train / "history.csv", index=False)
