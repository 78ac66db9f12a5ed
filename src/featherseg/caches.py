"""What the cache folder holds: results that can be made again, each filled once, under a lock.

Everything in it may be deleted whenever nothing runs.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.lib import format as npy

from featherseg.errors import UserError
from featherseg.files import atomic_path, cache_root
from featherseg.locks import exclusive


def key_of(*parts: Any) -> str:
    """Hexadecimal SHA-256 over plain values: equal values, equal key."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached_folder(kind: str, key: str, fill: Callable[[Path], None]) -> Path:
    """Folder `<cache root>/<kind>/<key>`, filled by `fill(folder)` where it is absent, written atomically.

    Processes that want the same folder at the same time wait for the one that fills it.
    """
    folder = cache_root() / kind / key
    with exclusive(folder.with_name(f"{key}.lock"), f"Another process is filling the cache {kind}."):
        if not folder.is_dir():
            with atomic_path(folder) as partial:
                partial.mkdir()
                fill(partial)
    return folder


class RowWriter:
    """Writes an .npy file row by row.

    Args:
        path: the file.
        rows: how many rows there will be.
        shape: of one row.
        dtype: of the values.
    """

    def __init__(self, path: Path, rows: int, shape: Sequence[int], dtype: np.typing.DTypeLike) -> None:
        self._file = open(path, "wb")
        self._dtype = np.dtype(dtype)
        npy.write_array_header_1_0(self._file, {"shape": (rows, *shape), "fortran_order": False,
                                                "descr": npy.dtype_to_descr(self._dtype)})

    def append(self, rows: np.ndarray) -> None:
        """Append rows (k, *shape)."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


class RowFile:
    """Rows of an .npy file, read by number.

    Read, not mapped: resident memory stays flat however large the file, and a file that was cut is an error
    instead of a crash.

    Raises:
        UserError: the file is absent or is not a whole .npy file.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = open(path, "rb", buffering=0)
            npy.read_magic(self._file)
            shape, _, self.dtype = npy.read_array_header_1_0(self._file)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); delete the folder {path.parent}.") from None
        self._rows, self.shape = shape[0], shape[1:]
        self._torch_dtype = torch.from_numpy(np.empty(0, self.dtype)).dtype
        self._start = self._file.tell()
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))
        if os.fstat(self._file.fileno()).st_size != self._start + self._rows * self._row_bytes:
            raise UserError(f"{path} is damaged (cut or too long); delete the folder {path.parent}.")

    def __len__(self) -> int:
        return self._rows

    def read(self, rows: Iterable[int]) -> np.ndarray:
        """The given rows, in their order and as often as named: (k, *shape)."""
        rows = list(rows)
        # aligned as torch aligns its own tensors: products of others can differ in the last bit
        values = torch.empty((len(rows), *self.shape), dtype=self._torch_dtype).numpy()
        flat, size = values.reshape(-1).view(np.uint8), self._row_bytes
        for place, row in enumerate(rows):
            target = flat[place * size : (place + 1) * size]
            if os.preadv(self._file.fileno(), [target], self._start + row * size) < size:
                raise UserError(f"{self._file.name} was cut while it was read; run the command again.")
        return values
