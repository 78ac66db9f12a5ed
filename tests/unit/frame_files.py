"""Single frames as MetaImage and NIfTI-1 files, for the tests that read them."""

import gzip
import struct
import zlib

import numpy as np


def meta_image(stem: str, frame: np.ndarray, packed: bool = False) -> dict[str, bytes]:
    """`<stem>.mhd` and its data file, of uint8 (H, W), in the form of CAMUS: three dimensions, one frame."""
    data = f"{stem}.{'zraw' if packed else 'raw'}"
    header = (f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
              f"CompressedData = {packed}\nElementSpacing = 0.308 0.154 1\n"
              f"DimSize = {frame.shape[1]} {frame.shape[0]} 1\n"
              f"ElementType = MET_UCHAR\nElementDataFile = {data.rpartition('/')[2]}\n")
    content = frame.astype(np.uint8).tobytes()
    return {f"{stem}.mhd": header.encode(), data: zlib.compress(content) if packed else content}


def nifti(frame: np.ndarray, order: str = "<", datatype: int = 2, sides: tuple[int, ...] | None = None) -> bytes:
    """A .nii.gz file of uint8 (H, W)."""
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    sides = sides or (frame.shape[1], frame.shape[0], 1)
    struct.pack_into(f"{order}8h", header, 40, len(sides), *sides, *[1] * (7 - len(sides)))
    struct.pack_into(f"{order}2h", header, 70, datatype, 8 * frame.itemsize)
    struct.pack_into(f"{order}f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + frame.astype(frame.dtype.newbyteorder(order)).tobytes(), mtime=0)
