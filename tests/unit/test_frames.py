import base64
import gzip
import os
import struct

import numpy as np
import pytest
from frame_files import meta_image, nifti

from featherseg.core.errors import UserError
from featherseg.data.raw.frames import frame_spacing, read_frame

FRAME = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)
# written by SimpleITK 2.5.7 from FRAME, of shape (1, 3, 4)
ITK_ZRAW = base64.b64decode("eF5jENGwCUip6Fmw5cQdABZkBSk=")
ITK_NIFTI = base64.b64decode(
    "H4sIAAAAAAAAA4thZCACFDEwM7AwMDMwwiEqYGLgANMN9qgYHWxwRhLnIsZmWgJUf4Dd1QDFIGo/siSaGJQP14cB8rQNIQwRDZuAlIqe"
    "BVtO3AEAOtPEkmwBAAA=")


def written(folder, files: dict[str, bytes]):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(files))


@pytest.mark.parametrize("packed", [False, True])
def test_a_meta_image_is_read_as_it_is_stored(tmp_path, packed):
    assert np.array_equal(read_frame(written(tmp_path, meta_image("a", FRAME, packed))), FRAME)


@pytest.mark.parametrize("order", "<>")
def test_a_nifti_is_read_in_both_byte_orders(tmp_path, order):
    wide = FRAME.astype(np.int16) * -30
    path = written(tmp_path, {"a.nii.gz": nifti(wide, order, datatype=4)})
    assert np.array_equal(read_frame(path), wide)


def test_files_of_another_writer_are_read(tmp_path):
    files = meta_image("itk", FRAME, packed=True) | {"itk.zraw": ITK_ZRAW}
    assert np.array_equal(read_frame(written(tmp_path, files)), FRAME)
    assert np.array_equal(read_frame(written(tmp_path, {"itk.nii.gz": ITK_NIFTI})), FRAME)


def test_a_plain_nifti_and_a_flat_meta_image(tmp_path):
    assert np.array_equal(read_frame(written(tmp_path, {"a.nii": gzip.decompress(nifti(FRAME))})), FRAME)
    files = meta_image("a", FRAME)
    files["a.mhd"] = files["a.mhd"].replace(b"NDims = 3", b"NDims = 2").replace(b"= 4 3 1", b"= 4 3")
    assert np.array_equal(read_frame(written(tmp_path, files)), FRAME)


@pytest.mark.parametrize(("old", "new", "said"), [
    (b"DimSize = 4 3 1", b"DimSize = 4 3 2", "it is of 4 x 3 x 2 pixels where one frame is expected"),
    (b"DimSize = 4 3 1", b"DimSize = 4 30000 1", "its sides are 4 and 30000 pixels"),
    (b"DimSize = 4 3 1", b"DimSize = 4 four 1", "four"),
    (b"DimSize = 4 3 1\n", b"", "its header lacks DimSize"),
    (b"MET_UCHAR", b"MET_UCHAR_ARRAY", "its pixels are MET_UCHAR_ARRAY, not one number each"),
    (b"DimSize = 4 3 1", b"DimSize = 4 4 1", "it holds 12 bytes of pixels where 16 are expected"),
    (b"CompressedData = False", b"CompressedData = True", "incorrect header check"),
    (b"ElementDataFile = a.raw", b"ElementDataFile = b.raw", "b.raw does not exist"),
])
def test_a_meta_image_that_cannot_be_read_is_one_sentence(tmp_path, old, new, said):
    files = meta_image("a", FRAME)
    files["a.mhd"] = files["a.mhd"].replace(old, new)
    with pytest.raises(UserError, match=said):
        read_frame(written(tmp_path, files))


def test_data_elsewhere_is_not_followed(tmp_path):
    (tmp_path / "secret.raw").write_bytes(FRAME.tobytes())
    (tmp_path / "set").mkdir()
    files = meta_image("a", FRAME)
    files["a.mhd"] = files["a.mhd"].replace(b"= a.raw", b"= ../secret.raw")
    with pytest.raises(UserError, match="secret.raw does not exist"):
        read_frame(written(tmp_path / "set", files))


@pytest.mark.parametrize(("content", "said"), [
    (nifti(FRAME, sides=(4, 3, 1, 7)), "it is of 4 x 3 x 1 x 7 pixels where one frame is expected"),
    (nifti(FRAME, datatype=128), "its pixels are of type 128, not one number each"),
    (nifti(FRAME)[:40], "cannot be read as a frame"),
    (gzip.compress(bytes(400)), "it is not of the form NIfTI-1"),
    (b"none", "cannot be read as a frame"),
], ids=["sequence", "colours", "cut", "zeros", "text"])
def test_a_nifti_that_cannot_be_read_is_one_sentence(tmp_path, content, said):
    with pytest.raises(UserError, match=said):
        read_frame(written(tmp_path, {"a.nii.gz": content}))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="a.mhd does not exist"):
        read_frame(tmp_path / "a.mhd")


def test_the_header_says_how_high_and_wide_a_pixel_is(tmp_path):
    files = meta_image("a", FRAME)
    assert frame_spacing(written(tmp_path, files)) == (0.154, 0.308)
    assert frame_spacing(written(tmp_path, {"itk.nii.gz": ITK_NIFTI})) == (1, 1)
    files["a.mhd"] = files["a.mhd"].replace(b"ElementSpacing = 0.308 0.154 1\n", b"")
    assert frame_spacing(written(tmp_path, files)) is None


@pytest.mark.parametrize(("unit", "per_unit"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
@pytest.mark.parametrize("order", "<>")
def test_a_niftis_unit_may_be_metres_or_micrometres(tmp_path, order, unit, per_unit):
    content = bytearray(gzip.decompress(nifti(FRAME, order)))
    struct.pack_into(f"{order}2f", content, 80, 0.5, 0.25)
    content[123] = unit
    assert frame_spacing(written(tmp_path, {"a.nii": bytes(content)})) == (0.25 * per_unit, 0.5 * per_unit)
    struct.pack_into(f"{order}2f", content, 80, 0.0, 0.25)
    assert frame_spacing(written(tmp_path, {"a.nii": bytes(content)})) is None


def test_a_header_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="a.mhd does not exist"):
        frame_spacing(tmp_path / "a.mhd")
    for name, content in (("a.nii.gz", b"none"), ("b.nii.gz", gzip.compress(b"cut")),
                          ("c.mhd", b"ElementSpacing = wide high"), ("d.mhd", b"ElementSpacing = 0.3")):
        with pytest.raises(UserError, match="cannot be read as a frame"):
            frame_spacing(written(tmp_path, {name: content}))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mhd"])
def test_a_named_pipe_is_no_frame_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for read in (read_frame, frame_spacing):
        with pytest.raises(UserError, match="it is a named pipe, not a file"):
            read(tmp_path / name)
