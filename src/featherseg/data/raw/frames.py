"""Single frames in the two file forms of medical pictures: MetaImage (.mhd and its data file) and NIfTI-1 (.nii.gz).

A frame is all that the sets here need; volumes, sequences and orientations are refused or ignored, so that some
lines stand in for a library of fifty megabytes.
"""

import contextlib
import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from featherseg.core.errors import UserError
from featherseg.core.files import open_file, read_bytes, read_text

_META_TYPES = {"MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_USHORT": "u2", "MET_SHORT": "i2", "MET_UINT": "u4",
               "MET_INT": "i4", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"}
_NIFTI_TYPES = {2: "u1", 256: "i1", 512: "u2", 4: "i2", 768: "u4", 8: "i4", 16: "f4", 64: "f8"}
_LONGEST_SIDE = 1 << 14
_UNREADABLE = (OSError, EOFError, zlib.error, struct.error, ValueError, KeyError)


def read_frame(path: Path) -> np.ndarray:
    """The numbers of one frame as they are stored: (H, W), rows from the top.

    Raises:
        UserError: no file, another form, a damaged file, several frames, or several numbers a pixel.
    """
    try:
        return _meta_image(path) if path.suffix == ".mhd" else _nifti(path)
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be read as a frame ({error or type(error).__name__}); get it again.") from None


def frame_spacing(path: Path) -> tuple[float, float] | None:
    """Height and width of a frame's pixel in millimetres, by its header; None where that does not say.

    Raises:
        UserError: no file, or a damaged one.
    """
    try:
        across, down = _meta_spacing(path) if path.suffix == ".mhd" else _nifti_spacing(path)
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be read as a frame ({error or type(error).__name__}); get it again.") from None
    return (down, across) if 0 < across < math.inf and 0 < down < math.inf else None


def _meta_spacing(path: Path) -> tuple[float, float]:
    across, down = _meta_header(path).get("ElementSpacing", "0 0").split()[:2]
    return float(across), float(down)


def _nifti_spacing(path: Path) -> tuple[float, float]:
    with _opened(path) as file:
        order, header = _nifti_header(file)
    per_unit = {1: 1000.0, 3: 0.001}.get(header[123] & 7, 1.0)  # metres and micrometres; millimetres else
    across, down = struct.unpack_from(f"{order}2f", header, 80)
    return across * per_unit, down * per_unit


def _meta_header(path: Path) -> dict[str, str]:
    header = {}
    for line in read_text(path, encoding="latin-1").splitlines():
        key, _, value = line.partition("=")
        header[key.strip()] = value.strip()
    return header


def _meta_image(path: Path) -> np.ndarray:
    header = _meta_header(path)
    if missing := [key for key in ("DimSize", "ElementType", "ElementDataFile") if key not in header]:
        raise ValueError(f"its header lacks {missing[0]}")
    if header["ElementType"] not in _META_TYPES or header.get("ElementNumberOfChannels", "1") != "1":
        raise ValueError(f"its pixels are {header['ElementType']}, not one number each")
    swapped = "True" in (header.get("BinaryDataByteOrderMSB"), header.get("ElementByteOrderMSB"))
    kind = np.dtype((">" if swapped else "<") + _META_TYPES[header["ElementType"]])
    size = _size([int(side) for side in header["DimSize"].split()])
    content = read_bytes(path.parent / Path(header["ElementDataFile"]).name)
    if header.get("CompressedData") == "True":
        content = zlib.decompressobj().decompress(content, size[0] * size[1] * kind.itemsize)
    return _frame(content, kind, size)


def _nifti(path: Path) -> np.ndarray:
    with _opened(path) as file:
        order, header = _nifti_header(file)
        rank, *sides = struct.unpack_from(f"{order}8h", header, 40)
        datatype, = struct.unpack_from(f"{order}h", header, 70)
        start, = struct.unpack_from(f"{order}f", header, 108)
        if datatype not in _NIFTI_TYPES:
            raise ValueError(f"its pixels are of type {datatype}, not one number each")
        kind, size = np.dtype(order + _NIFTI_TYPES[datatype]), _size(sides[:rank])
        file.seek(int(start))
        return _frame(file.read(size[0] * size[1] * kind.itemsize), kind, size)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """A file, or what it holds where it is packed by gzip."""
    with open_file(path) as file:
        yield gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file


def _nifti_header(file: io.BufferedIOBase) -> tuple[str, bytes]:
    """The byte order and the 348 bytes of a NIfTI-1 header."""
    header = file.read(348)
    order = "<" if header[:4] == struct.pack("<i", 348) else ">"
    if header[:4] != struct.pack(f"{order}i", 348) or header[344:347] != b"n+1":
        raise ValueError("it is not of the form NIfTI-1")
    return order, header


def _size(sides: list[int]) -> tuple[int, int]:
    """(height, width) of two sides, the width first."""
    if len(sides) < 2 or any(side != 1 for side in sides[2:]):
        raise ValueError(f"it is of {' x '.join(map(str, sides))} pixels where one frame is expected")
    if not all(0 < side <= _LONGEST_SIDE for side in sides[:2]):
        raise ValueError(f"its sides are {sides[0]} and {sides[1]} pixels")
    return sides[1], sides[0]


def _frame(content: bytes, kind: np.dtype, size: tuple[int, int]) -> np.ndarray:
    expected = size[0] * size[1] * kind.itemsize
    if len(content) != expected:
        raise ValueError(f"it holds {len(content)} bytes of pixels where {expected} are expected")
    return np.frombuffer(content, kind).reshape(size)
