"""Small pictures, archives and folders for the tests of data."""

import contextlib
import io
import json
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def colours(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3) noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def box(height: int = 20, width: int = 30, rows: slice = slice(5, 10),
        columns: slice = slice(3, 9)) -> np.ndarray:
    """bool (height, width), True in a box."""
    mask = np.zeros((height, width), dtype=bool)
    mask[rows, columns] = True
    return mask


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    """Save an array (bool as 0/255) as the picture that the path's extension says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels).save(path, **options)
    return path


def picture_bytes(pixels: np.ndarray, kind: str) -> bytes:
    """An array encoded as `JPEG` or `PNG`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels).save(buffer, kind)
    return buffer.getvalue()


def write_zip(path: Path, members: dict[str, bytes | str]) -> Path:
    """A zip file with the given members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def write_json(path: Path, value: object) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def everything_below(folder: Path) -> list[str]:
    """Every path below a folder, hidden ones too: what a failure must not leave behind."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextlib.contextmanager
def full_disk(free_bytes: int = 0):
    """Let no file of this process grow beyond some bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def shared(name: str) -> Path:
    """A folder that may lie beside the project; skips where it is absent."""
    root = os.environ.get("FEATHERSEG_DATAPACK")
    parent = Path(root).parent if root else Path(__file__).parents[3] / "shared"
    if not (parent / name).is_dir():
        pytest.skip(f"{parent / name} is not here (set FEATHERSEG_DATAPACK to the datapack folder)")
    return parent / name
