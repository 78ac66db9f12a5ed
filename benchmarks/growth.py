"""Ten times the images: ten times the time, in the same memory? Each call belongs in a process of its own.

Nothing heavy is imported before it is needed, so that the memory of `prepare` is not that of torch.
"""

import os
from pathlib import Path
from time import perf_counter

from featherseg.core.files import read_json
from featherseg.core.provenance import peak_memory_mib

BATCH = 16


def prepare(images: int, size: int, data_dir: Path) -> dict[str, float]:
    """Draw a synthetic set into a prepared dataset with its card, as the stage `prepare` does.

    Returns:
        `seconds` for each image, and the process's `peak` memory in MiB.
    """
    from featherseg.data.prepare import prepare_synthetic_set

    start = perf_counter()
    prepare_synthetic_set("lesions", images, size, 0, data_dir)
    return {"seconds": (perf_counter() - start) / images, "peak": peak_memory_mib()["process"]}


def epoch(recipe: str, data_dir: Path, work_dir: Path) -> dict[str, float]:
    """Train for one epoch on the CPU at the embedded size, as the stage `train` does.

    Returns:
        `seconds` that the epoch took for each image, and the `peak` memory in MiB of the whole process:
        decoding, features, training, validation.
    """
    os.environ["ACCELERATE_USE_CPU"] = "true"
    from benchmarks.steps import SEED, adapter_config, model_config
    from featherseg.config import Run
    from featherseg.engine import train
    from featherseg.tasks.segmentation.config import SegmentationTrain

    train_config = SegmentationTrain(epochs=1, batch_size=BATCH, schedule="constant", early_stop_patience=None)
    run = Run(study="benchmarks", recipe=recipe, dataset=data_dir.name, seed=SEED, train=train_config,
              model=model_config("embedded"), adapter=adapter_config("embedded", recipe))
    info_path = work_dir / f"{run.name}.json"
    train(run, data_dir, work_dir / run.name, info_path)
    info = read_json(info_path)
    return {"seconds": 1 / info["images_per_second"], "peak": info["peak_memory_mib"]["process"]}
