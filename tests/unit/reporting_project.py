"""A small project with fabricated scores, in the form that the pipeline writes them, to test reports on."""

import contextlib
import functools
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from featherseg.config import RECIPES_FILE, ModelConfig, Run, read_params, write_recipes, write_run
from featherseg.core.files import read_json, write_json, write_status
from featherseg.data.pool import pool_dataset
from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.plan import read_recipe
from featherseg.reporting.collect import collect
from featherseg.tasks.base import TASKS, records, score_table
from featherseg.tasks.segmentation.config import SegmentationEvaluate, SegmentationTrain
from featherseg.tasks.segmentation.evaluate import prediction_row, score_rows, scores_of
from featherseg.tasks.segmentation.trials import Trial, own_prompts, plan_trials

REPOSITORY = Path(__file__).resolve().parents[2]
_TEMPLATES: list[tempfile.TemporaryDirectory] = []  # removed when the process ends
ADAPTERS = {
    "clipseg-zero_shot": {"name": "zero_shot"},
    "clipseg-decoder": {"name": "decoder"},
    "clipseg-full": {"name": "full"},
    "clipseg-vlsm_dense-v": {"name": "vlsm_dense", "positions": "V", "dim": 16},
    "clipseg-vlsm_dense-vl": {"name": "vlsm_dense", "positions": "VL", "dim": 16},
    "clipseg-vlsm_dense-vlc": {"name": "vlsm_dense", "positions": "VLC", "dim": 16, "cond_dim": 16},
    "clipseg-vlsm_shallow-vlc": {"name": "vlsm_shallow", "positions": "VLC", "dim": 16, "cond_dim": 16},
    "clipseg-lora": {"name": "lora", "rank": 4, "alpha": 8, "positions": "VL"},
    "etris_vit-decoder": {"name": "decoder"},
    "etris_vit-bridger": {"name": "bridger", "dim": 16, "heads": 4, "stages": 3, "direction": "both"},
    "etris_vit-bridger-published": {"name": "bridger", "dim": 16, "heads": 4, "stages": 3, "direction": "both"},
    "etris_vit-bridger-text_to_vision": {
        "name": "bridger", "dim": 16, "heads": 4, "stages": 3, "direction": "text_to_vision"},
    "etris_r50-bridger": {"name": "bridger", "dim": 16, "heads": 4, "stages": 3, "direction": "both"},
    "etris_vit-lora": {"name": "lora", "rank": 4, "alpha": 8, "positions": "VL", "head": True},
    "etris_vit-full": {"name": "full"},
    "detris_b-dense_aligner": {"name": "dense_aligner", "dim": 16, "text_dim": 16, "blocks": 6},
    "detris_b-decoder": {"name": "decoder"},
    "unet-full": {"name": "full"},
    "cris-full-medvlsm": {"name": "full"},
    "clipseg-decoder-medvlsm-published": {"name": "decoder"},
    "dino_clipseg-decoder": {"name": "decoder"},
    "dino_clipseg-vlsm_dense-v": {"name": "vlsm_dense", "positions": "V", "dim": 64},
    "dino_clipseg-vlsm_dense-vlc": {"name": "vlsm_dense", "positions": "VLC", "dim": 64, "cond_dim": 64},
    "dino_clipseg-vlsm_shallow-vlc": {"name": "vlsm_shallow", "positions": "VLC", "dim": 64, "cond_dim": 64},
    "dino_clipseg-lora": {"name": "lora", "rank": 16, "alpha": 32, "positions": "VL"},
    "detris_s-decoder": {"name": "decoder"},
    "detris_s-dense_aligner": {"name": "dense_aligner", "dim": 128, "text_dim": 64, "blocks": 6},
    "unet_lite-full": {"name": "full"},
}
TRAINABLE = dict(zip(ADAPTERS, (0, 260_000, 3_900_000, 30_000, 46_000, 50_000, 21_000, 24_000, 900_000, 950_000,
                                950_000, 930_000, 990_000, 910_000, 3_800_000, 980_000, 905_000,
                                3_000_000, 3_500_000, 260_000, 640_000, 130_000, 260_000, 150_000, 180_000,
                                900_000, 1_600_000, 3_900_000), strict=True))
ROOT_STUDY = tuple(recipe for recipe in ADAPTERS if recipe.startswith(("dino_clipseg", "detris_s", "unet_lite")))
CLIPSEG = tuple(recipe for recipe in ADAPTERS if recipe.startswith("clipseg") and "medvlsm" not in recipe)
REFERRED = {"scenes_ref": ("testA", "testB"), "refcoco": ("val", "testA", "testB"), "refcoco_plus": ("val", "testB")}
EMBEDDED = "pipelines/pretrain/weights/{model}-small"
WEIGHTS = {"kvasir_seg": "data/weights/clipseg-rd64-refined", "refcoco": "data/weights/clip-rn50",
           "refcoco_plus": "data/weights/clip-rn50"}
PARAMS = """\
study: {datasets: [lesions, organs, scenes_ref], recipes: [], seeds: [0]}
data:
  synthetic:
    lesions: {images: 40, size: 96}
    organs: {images: 40, size: 96}
    scenes_ref: {images: 40, size: 96}
  folders: {clinic: {path: clinic}}
  official: [kvasir_seg, clinicdb, busi, etis]
  pooled:
    both: {train: [lesions, organs], test: [lesions, organs]}
    lesions_to_organs: {train: [lesions], test: [organs]}
    endoscopy: {train: [kvasir_seg, clinicdb], test: [kvasir_seg, clinicdb, etis]}
    all_but_endoscopy: {train: [busi], test: [kvasir_seg, clinicdb, etis]}
    kvasir_seg_to_endoscopy: {train: [kvasir_seg], test: [kvasir_seg, clinicdb, etis]}
"""


def make_project(
    root: Path,
    recipes: tuple[str, ...] = CLIPSEG,
    datasets: tuple[str, ...] = ("lesions", "organs"),
    study: str = "study",
    collected: bool = False,
) -> None:
    """Write a project whose study has scored every recipe on every dataset, and collected it where `collected`; what
    is there of another project stays."""
    plan = root / "runs" / study / "plan" / RECIPES_FILE
    declared = read_json(plan) if plan.is_file() else {}
    template = _template(recipes, datasets, study, collected)
    for dataset in (template / "data/processed").glob("*"):
        shutil.rmtree(root / "data/processed" / dataset.name, ignore_errors=True)
    shutil.copytree(template, root, dirs_exist_ok=True)
    if declared:
        write_json(plan, declared | read_json(plan))


@functools.cache
def _template(recipes: tuple[str, ...], datasets: tuple[str, ...], study: str, collected: bool) -> Path:
    """A project that is made once and copied for each test."""
    _TEMPLATES.append(tempfile.TemporaryDirectory(prefix="project-"))
    root = Path(_TEMPLATES[-1].name)
    with contextlib.chdir(root):
        write_project(root, recipes, datasets, study)
        if collected:
            collect(study)
    return root


def write_project(
    root: Path,
    recipes: tuple[str, ...] = CLIPSEG,
    datasets: tuple[str, ...] = ("lesions", "organs"),
    study: str = "study",
) -> None:
    """`make_project` without a copy, for tests that put something else in the place of a part of it; `root` is where
    we are."""
    for name in ("recipes", "notebooks", "data/published"):
        shutil.copytree(REPOSITORY / name, root / name, dirs_exist_ok=True)
    (root / "params.yaml").write_text(PARAMS)
    if study != "study":
        (root / "pipelines" / study).mkdir(parents=True, exist_ok=True)
        (root / "pipelines" / study / "params.yaml").write_text("adapter: {dim: 16}\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    for dataset in datasets:
        make_dataset(dataset)
        for recipe in recipes:
            declare(study, recipe, dataset)
            scored_run(study, recipe, dataset)


def declare(study: str, recipe: str, dataset: str, seed: int = 0, **adapter) -> Run:
    """Write the plan files of a run."""
    run = make_run(study, recipe, dataset, seed, **adapter)
    folder = Path("runs") / study / "plan"
    folder.mkdir(parents=True, exist_ok=True)
    write_run(folder, run)
    describe_recipe(study, recipe)
    return run


def describe_recipe(study: str, recipe: str) -> None:
    """Add to a study's plan what reports say of a recipe."""
    folder = Path("runs") / study / "plan"
    path = folder / RECIPES_FILE
    declared = read_json(path) if path.is_file() else {}
    write_recipes(folder, {recipe: read_recipe(recipe)})
    write_json(path, declared | read_json(path))


def make_run(study: str, recipe: str, dataset: str, seed: int = 0, weights: str | None = None, **adapter) -> Run:
    """A resolved run; on referring sets it scores every sentence of every split. Weights are the papers' on their sets,
    the embedded ones elsewhere, unless named."""
    trained, referred = recipe != "clipseg-zero_shot", dataset in REFERRED
    model = recipe.partition("-")[0]
    return Run(
        study=study,
        recipe=recipe,
        dataset=dataset,
        seed=seed,
        adapter=ADAPTERS[recipe] | adapter,
        model=ModelConfig(name=model, weights=weights or WEIGHTS.get(dataset, EMBEDDED).format(model=model),
                          sha256="ab" * 32, image_size=64),
        train=SegmentationTrain(epochs=5) if trained else None,
        evaluate=SegmentationEvaluate(prompts="sentences" if referred else "fullest",
                                splits=REFERRED.get(dataset, ("test",)),
                                threshold=0.35 if recipe.endswith("-published") else 0.5),
    )


def make_dataset(name: str, images: int = 9) -> None:
    """Discs on noise: one an image with one prompt, or in `REFERRED` sets two with two sentences each.

    The last image is of the split train, all others of test. A pooled set is made of its members.
    """
    pools = read_params("study").data.pooled
    if name in pools:
        for member in pools[name].members:
            make_dataset(member)
        return pool_dataset(name, pools)
    if name in REFERRED:
        return _make_referred(name, images)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]
    with PreparedWriter(Path("data/processed") / name, dataset=name) as writer:
        for k in range(images + 1):
            disc = (rows - 30 - 4 * k) ** 2 + (columns - 48) ** 2 < (12 + k) ** 2
            image = rng.normal(150, 18, (96, 96, 3)) - 60 * disc[..., None]
            writer.add_image(f"image{k}", image.clip(0, 255).astype(np.uint8))
            writer.add_sample(image_id=f"image{k}", target="disc", mask=disc, split="test" if k < images else "train",
                              prompts={"p1": ["disc"], "p2": [f"one round dark disc in row {k} of it"]})


def _make_referred(name: str, images: int) -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]
    with PreparedWriter(Path("data/processed") / name, dataset=name) as writer:
        for k in range(images):
            discs = [(rows - 40 - k) ** 2 + (columns - 24 - 46 * place) ** 2 < (9 + k) ** 2 for place in (0, 1)]
            image = rng.normal(150, 18, (96, 96, 3)) - 60 * (discs[0] | discs[1])[..., None]
            writer.add_image(f"image{k}", image.clip(0, 255).astype(np.uint8))
            for disc, side in zip(discs, ("left", "right"), strict=True):
                writer.add_sample(image_id=f"image{k}", target=side, mask=disc,
                                  split=REFERRED[name][k % len(REFERRED[name])],
                                  prompts={"sentences": [f"the {side} disc of {k}", f"disc on the {side}, image {k}"]})


def write_scores(out: Path, run: Run, answers: list[tuple[Trial, np.ndarray, np.ndarray]]) -> None:
    """What an evaluation leaves behind, from trials with their answers (probabilities) and truths."""
    out.mkdir(parents=True, exist_ok=True)
    masks, scores = [], []
    for trial, probabilities, truth in answers:
        of_trial = score_rows(trial, probabilities, truth, run.evaluate)
        own = trial.prompt in own_prompts(trial.sample, run.evaluate.prompts, run.seed)
        scores += scores_of(trial, of_trial, own, run)
        masks.append(prediction_row(trial, probabilities > run.evaluate.threshold, of_trial[0]))
    metrics = TASKS["segmentation"].metrics
    records(score_table(scores, metrics), metrics).to_parquet(out / "results.parquet")
    pd.DataFrame(masks).to_parquet(out / "predictions.parquet")
    parameters = {"trainable_parameters": TRAINABLE[run.recipe], "total_parameters": 4_000_000}
    write_json(out / "model.json", parameters)


def measured(run: str, metric: str, **place) -> pd.Series:
    """The one record of a run's metric; of the own prompt on the split test, but for what `place` says."""
    table = pd.read_parquet(Path("runs/study/evaluate") / run / "results.parquet")
    place = {"split": "test", "member": "", "target": "", "condition": "own", "scope": ""} | place
    for column, value in place.items():
        table = table[table[column] == value]
    (row,) = (record for _, record in table[table.metric == metric].iterrows())
    return row


def rescore(run: str, metric: str, study: str = "study", **columns) -> None:
    """Change columns of a run's records of one metric, such as `value` or `unit`, under the own prompt."""
    path = Path("runs") / study / "evaluate" / run / "results.parquet"
    table = pd.read_parquet(path)
    for column, value in columns.items():
        table.loc[(table.metric == metric) & (table.condition == "own"), column] = value
    table.to_parquet(path)


def with_column(table: str, column: str, value: float) -> str:
    """The text of a CSV table in which a column has this value wherever it has one."""
    frame = pd.read_csv(io.StringIO(table))
    frame.loc[frame[column].notna(), column] = value
    return frame.to_csv(index=False, lineterminator="\n")


def scored_run(study: str, recipe: str, dataset: str, seed: int = 0) -> None:
    """What train and evaluate leave behind: predictions are the truth moved down, more in later images."""
    run, data = make_run(study, recipe, dataset, seed), PreparedDataset.read(Path("data/processed") / dataset)
    train, out = Path("runs") / study / "train" / run.name, Path("runs") / study / "evaluate" / run.name
    answers = []
    for split in run.evaluate.splits:
        for trial in plan_trials(data.split(split), run.evaluate.prompts, seed):
            k, truth = int(trial.sample.image_id.removeprefix("image")), data.mask(trial.sample)
            moved = {"own": 0, "class_only": 2, "none": 4, "other": 9}[trial.condition]
            moved += 2 * k + len(recipe) % 5 + trial.sentence
            sure = np.roll(truth, moved, axis=0)
            answers.append((trial, np.maximum(0.9 * sure, 0.4 * np.roll(sure, 3, axis=1)), truth))
    write_scores(out, run, answers)
    write_status(out)
    write_status(train)
    if recipe != "clipseg-zero_shot":
        epochs = np.arange(1, 6)
        history = {"epoch": epochs, "loss": 1 / epochs, "val_dsc": 0.8 - 0.4 / epochs, "lr": 0.001}
        pd.DataFrame(history).to_csv(train / "history.csv", index=False)
