"""What one waits for before a command works: imports, and one image segmented. Each call belongs in a process of its
own, and measures further ones, in turn with torch's own import.
"""

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import featherseg

# imports modules one after another, and prints the seconds that each of them takes
IMPORTS = """
import sys
from time import perf_counter

for module in sys.argv[1:]:
    start = perf_counter()
    __import__(module)
    print(perf_counter() - start)
"""
PROMPT = "lesion"


def engine_import(rounds: int) -> dict[str, list[float]]:
    """Seconds to import torch, and those that `featherseg.engine` adds, for each round after the first."""
    seconds: dict[str, list[float]] = {"torch": [], "engine": []}
    for number in range(1 + rounds):
        printed = _python("-c", IMPORTS, "torch", "featherseg.engine").split()
        if number:
            for name, text in zip(seconds, printed, strict=True):
                seconds[name].append(float(text))
    return seconds


def predict_one(recipe: str, rounds: int, data_dir: Path, work_dir: Path) -> dict[str, list[float]]:
    """Seconds of a process that imports torch, and of `featherseg predict` for one image, for each round after the
    first.

    Args:
        recipe: of the embedded model, with its method untrained.
        rounds: how often each is run.
        data_dir: a prepared dataset.
        work_dir: takes the run.
    """
    run = _write_run(recipe, work_dir)
    image = next((data_dir / "images").iterdir()).resolve()
    commands = {"torch": ("-c", "import torch"),
                "predict": ("-m", "featherseg", "predict", "--run", run, "--image", str(image), "--prompt", PROMPT,
                            "--out", "mask.png")}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(1 + rounds):
        for name, arguments in commands.items():
            start = perf_counter()
            _python(*arguments, folder=work_dir)
            if number:
                seconds[name].append(perf_counter() - start)
    return seconds


def _python(*arguments: str, folder: Path | None = None) -> str:
    """What a fresh interpreter prints that finds this package."""
    environment = os.environ | {"PYTHONPATH": str(Path(featherseg.__file__).parents[1])}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
                          check=True)
    return done.stdout


def _write_run(recipe: str, folder: Path) -> str:
    """What a plan and a training of the embedded model leave behind; returns the run's name."""
    from benchmarks.steps import SEED, adapter_config, model_config
    from featherseg import adapters, checkpoint
    from featherseg.config import Run, write_run
    from featherseg.core.files import write_status
    from featherseg.models import build
    from featherseg.tasks.segmentation.config import SegmentationTrain

    config = model_config("embedded")
    config = config.model_copy(update={"weights": str(Path(config.weights).resolve())})
    run = Run(study="study", recipe=recipe, dataset="lesions", seed=SEED, train=SegmentationTrain(), model=config,
              adapter=adapter_config("embedded", recipe))
    write_run(folder / "runs/study/plan", run)
    trained = folder / "runs/study/train" / run.name
    trained.mkdir(parents=True)
    model = adapters.apply(build(run.model, SEED), run.adapter, SEED)
    checkpoint.save(trained / "checkpoint.safetensors", model, run)
    write_status(trained)
    return run.name
