import numpy as np
import pytest
from data_files import box, save
from PIL import Image, TiffImagePlugin

from featherseg.data.folder import prepare_folder
from featherseg.data.images import open_picture, read_image, read_mask
from featherseg.data.prepared import PreparedDataset

ORIENTATION = 0x0112
# how a camera held in each way stores what is upright: the inverse of what the tag asks for
STORED = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
          4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
          7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}
WAYS = [("tif", mode, how) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "YCbCr", "I;16", "I", "F")
        for how in ({}, {"compression": "tiff_lzw"}) if (mode, how) != ("YCbCr", {"compression": "tiff_lzw"})] + [
    ("png", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")] + [
    ("jpg", mode, {"quality": 95}) for mode in ("L", "RGB", "CMYK")] + [
    ("webp", mode, {"lossless": True}) for mode in ("RGB", "RGBA")]


def blocks(height: int = 32, width: int = 48) -> np.ndarray:
    """bool (height, width): a shape without symmetry, of whole JPEG blocks."""
    mask = np.zeros((height, width), bool)
    mask[:16, :16] = mask[16:24, :8] = True
    return mask


def in_mode(mask: np.ndarray, mode: str) -> Image.Image:
    """A mask as a white shape on black in a mode of Pillow."""
    if mode == "I;16":
        return Image.fromarray(mask.astype(np.uint16) * 60_000)
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return grey.convert("RGB").convert(mode) if mode in ("LAB", "CMYK", "YCbCr") else grey.convert(mode)


def save_turned(path, upright: Image.Image, tag: int, **how):
    """Save a picture as a camera does that was held as the orientation tag says."""
    picture = upright if STORED[tag] is None else upright.transpose(STORED[tag])
    if path.suffix == ".tif":  # some modes of TIFF take tags in this form alone
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[ORIENTATION] = tag
        picture.save(path, tiffinfo=tags, **how)
    else:
        exif = Image.Exif()
        exif[ORIENTATION] = tag
        picture.save(path, exif=exif, **how)
    return path


@pytest.mark.parametrize(("ending", "mode", "how"), WAYS)
def test_images_and_masks_are_turned_upright(tmp_path, ending, mode, how):
    for tag in STORED:
        path = save_turned(tmp_path / f"{tag}.{ending}", in_mode(blocks(), mode), tag, **how)
        assert (read_mask(path) == blocks()).all(), tag
        image = read_image(path)
        assert image.shape == (32, 48, 3), tag
        assert np.abs(image - blocks()[..., None] * 255.0).max() <= 6, tag


def test_a_turned_mask_fits_its_turned_image(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "in" / part).mkdir(parents=True)
    for tag in STORED:
        save_turned(tmp_path / f"in/images/{tag}.jpg", in_mode(blocks(), "RGB"), tag, quality=95)
        save_turned(tmp_path / f"in/masks/{tag}.png", in_mode(blocks(), "L"), tag)
    prepare_folder("own", tmp_path / "in", tmp_path / "out")
    dataset = PreparedDataset.read(tmp_path / "out")
    for sample in dataset.samples:
        assert (dataset.mask(sample) == blocks()).all()
        assert ((dataset.image(sample)[..., 0] > 127) == blocks()).all()
        assert "left" in sample.attributes["location"] and "top" in sample.attributes["location"]


@pytest.mark.parametrize(("mode", "tag", "how", "plain"), [
    ("RGB", 1, {}, True), ("L", 1, {}, True), ("RGB", 6, {}, False), ("RGBA", 1, {}, False), ("P", 1, {}, False),
    ("L", 1, {"transparency": 0}, False)])
def test_a_file_is_kept_where_it_is_upright_and_opaque(tmp_path, mode, tag, how, plain):
    assert open_picture(save_turned(tmp_path / "x.png", in_mode(blocks(), mode), tag, **how)).plain is plain


def test_transparency_is_laid_on_white(tmp_path):
    hidden = np.zeros((20, 30, 4), np.uint8)
    hidden[..., 1], hidden[box(), 3], hidden[0, 0, 3] = 200, 255, 51
    image = read_image(save(tmp_path / "x.png", hidden))
    assert (image[box()] == (0, 200, 0)).all()
    assert image[0, 0].tolist() == [204, 244, 204]
    assert (image[10:] == 255).all()
