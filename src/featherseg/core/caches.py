"""What the cache folder holds: results that can be made again, each filled once, under a lock.

Everything in it may be deleted whenever nothing runs.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.lib import format as npy

from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, cache_root
from featherseg.core.locks import exclusive

_SUM = np.dtype("<u4")  # CRC-32


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
    """Writes an .npy file row by row, and beside it the CRC-32 of each row.

    Args:
        path: the file.
        rows: how many rows there will be.
        shape: of one row.
        dtype: of the values.
    """

    def __init__(self, path: Path, rows: int, shape: Sequence[int], dtype: np.typing.DTypeLike) -> None:
        self._file = open(path, "wb")
        self._sums_path = _sums_of(path)
        self._sums: list[int] = []
        self._dtype = np.dtype(dtype)
        npy.write_array_header_1_0(self._file, {"shape": (rows, *shape), "fortran_order": False,
                                                "descr": npy.dtype_to_descr(self._dtype)})

    def append(self, rows: np.ndarray) -> None:
        """Append rows (k, *shape)."""
        rows = np.ascontiguousarray(rows, self._dtype)
        self._sums += map(zlib.crc32, rows)
        self._file.write(rows.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        np.array(self._sums, _SUM).tofile(self._sums_path)


class RowFile:
    """Rows of an .npy file that a `RowWriter` wrote, read by number; each row is checked against its CRC-32.

    Read, not mapped: resident memory stays flat however large the file, and a file that was cut is an error
    instead of a crash. Checking takes half a millisecond a megabyte.

    Raises:
        UserError: the file is absent or is not a whole .npy file, or its sums are absent.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = open(path, "rb", buffering=0)
            npy.read_magic(self._file)
            shape, _, self.dtype = npy.read_array_header_1_0(self._file)
            self._sums = np.fromfile(_sums_of(path), _SUM).tolist()
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from None
        self._rows, self.shape = shape[0], shape[1:]
        self._torch_dtype = torch.from_numpy(np.empty(0, self.dtype)).dtype
        self._start = self._file.tell()
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))
        size = os.fstat(self._file.fileno()).st_size
        if size != self._start + self._rows * self._row_bytes or len(self._sums) != self._rows:
            raise self._damaged(path, "cut or too long")

    def __len__(self) -> int:
        return self._rows

    def read(self, rows: Iterable[int]) -> np.ndarray:
        """The given rows, in their order and as often as named: (k, *shape).

        Raises:
            UserError: the file was cut, or a row is not as it was written.
        """
        rows = list(rows)
        # aligned as torch aligns its own tensors: products of others can differ in the last bit
        values = torch.empty((len(rows), *self.shape), dtype=self._torch_dtype).numpy()
        flat, size = values.reshape(-1).view(np.uint8).data, self._row_bytes
        for place, row in enumerate(rows):
            target = flat[place * size : (place + 1) * size]
            if os.preadv(self._file.fileno(), [target], self._start + row * size) < size:
                raise UserError(f"{self._file.name} was cut while it was read; run the command again.")
            if zlib.crc32(target) != self._sums[row]:
                raise self._damaged(Path(self._file.name), f"row {row} has changed")
        return values

    @staticmethod
    def _damaged(path: Path, why: object) -> UserError:
        return UserError(f"{path} is damaged ({why}); delete the folder {path.parent} and run the command again.")


def _sums_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.crc32")
