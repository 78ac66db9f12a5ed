"""Which code decides the numbers of a training and of an evaluation, as digests that no comment changes.

`featherseg code` writes them for DVC, which copies every dependency of every run into dvc.lock and writes that file
anew after each stage: with one small file to depend on, studies of hundreds of runs stay quick.
"""

import ast
import hashlib
from pathlib import Path

from featherseg.core.files import atomic_path, write_json

PACKAGE = Path(__file__).parents[1]
_BOTH = ("data/prepared.py", "data/splits.py", "data/images.py", "data/mask_classes.py", "data/transforms.py",
         "models", "adapters", "core/caches.py", "core/seeds.py", "checkpoint.py", "tasks/base.py",
         "tasks/objective.py", "tasks/segmentation/task.py", "tasks/segmentation/pixels.py",
         "tasks/segmentation/features.py", "tasks/segmentation/metrics.py")
# a folder means every module below it
CODE = {
    "train": ("config.py", *_BOTH, "engine.py", "tasks/segmentation/config.py", "tasks/segmentation/losses.py",
              "tasks/segmentation/objective.py"),
    "evaluate": (*_BOTH, "data/prompts/wording.py", "data/facts.py", "evaluate.py", "tasks/segmentation/evaluate.py",
                 "tasks/segmentation/predict.py", "tasks/segmentation/referring.py", "tasks/segmentation/text.py",
                 "tasks/segmentation/trials.py", "reliance"),
}


def write_code(folder: Path) -> None:
    """Write `<stage>.json` for each stage of `CODE`: the digest of each of its modules."""
    with atomic_path(folder) as partial:
        partial.mkdir()
        for stage, names in CODE.items():
            write_json(partial / f"{stage}.json", digests(*names))


def digests(*names: str) -> dict[str, str]:
    """The digest of each of these modules and of every module below these folders, by path within the package."""
    files = {file for name in names for file in
             ([PACKAGE / name] if name.endswith(".py") else (PACKAGE / name).rglob("*.py"))}
    return {file.relative_to(PACKAGE).as_posix(): digest(file.read_text(encoding="utf-8")) for file in sorted(files)}


def digest(source: str) -> str:
    """SHA-256 of what a module does: of its syntax tree without docstrings, so that layout does not count either."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
                ast.get_docstring(node, clean=False) is not None):
            node.body = node.body[1:]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
