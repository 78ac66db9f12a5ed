import itertools
import os

import numpy as np
import pytest
from data_files import box, colours, save
from PIL import EpsImagePlugin, Image, TiffImagePlugin
from scipy import ndimage

from featherseg.core.errors import UserError
from featherseg.data import images
from featherseg.data.folder.own_folder import check_folder, prepare_folder
from featherseg.data.images import open_mask, open_picture, read_image, read_mask
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
    assert len({sample.attributes["location"] for sample in dataset.samples}) == 1


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


# ---------------------------------------------------------------- formats and sizes


@pytest.mark.parametrize("name", ["x.jfif", "x.jpe", "x.JPG", "x.ppm", "x.pgm", "x.webp"])
def test_every_documented_ending_is_read(tmp_path, name):
    save(tmp_path / "x.png", blocks())
    Image.fromarray(blocks().astype(np.uint8) * 255).convert("L" if name == "x.pgm" else "RGB").save(
        tmp_path / name, "JPEG" if name in ("x.jfif", "x.jpe") else None)
    assert np.abs(read_image(tmp_path / name) - read_image(tmp_path / "x.png").astype(int)).max() <= 3


@pytest.mark.parametrize("kind", ["EPS", "PCX", "TGA", "ICO", "SGI", "JPEG2000", "IM"])
def test_other_formats_are_not_opened_under_a_known_ending(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    with open(tmp_path / "x.png", "wb") as file:
        Image.fromarray(colours(32, 32)).save(file, kind)
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match="x.png cannot be read as a picture .its format is unknown"):
            read(tmp_path / "x.png")


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_named_pipe_is_no_picture(tmp_path, part):
    for folder in ("images", "masks"):
        save(tmp_path / folder / "a.png", box())
    (tmp_path / part / "a.png").unlink()
    os.mkfifo(tmp_path / part / "a.png")
    [fault] = check_folder(tmp_path)
    assert f"{part}/a.png" in fault and "named pipe" in fault


def test_a_picture_of_more_pixels_than_pillow_allows_is_read(tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "x.png")
    assert open_picture(tmp_path / "x.png").image.size == (20_000, 10_000)


def test_a_picture_beyond_the_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS", 599)
    with pytest.raises(UserError, match="x.png is 30x20 pixels, more than the .* megapixels"):
        read_image(save(tmp_path / "x.png", colours()))


# ---------------------------------------------------------------- several classes in one mask

LEFT = ((np.mgrid[:64, :64][0] - 30) / 9) ** 2 + ((np.mgrid[:64, :64][1] - 16) / 7) ** 2 <= 1
RIGHT = ((np.mgrid[:64, :64][0] - 34) / 11) ** 2 + ((np.mgrid[:64, :64][1] - 46) / 9) ** 2 <= 1


def painted(left, right, ground=0) -> np.ndarray:
    """A mask file's pixels with two structures."""
    pixels = np.full((64, 64, *np.shape(left)), ground, np.uint8)
    pixels[LEFT], pixels[RIGHT] = left, right
    return pixels


TWO_CLASSES = {
    "red and green": (painted((255, 0, 0), (0, 255, 0)), ("#f", "#00f")),
    "red and blue": (painted((255, 0, 0), (0, 0, 255)), ("#f", "#000")),
    "red and white": (painted((140, 0, 0), (255, 255, 255)), ("#8", "#f")),
    "levels of two classes": (painted(100, 255), ("255 ",)),
    "even levels of two classes": (painted(127, 255), ("127 ", "255 ")),
    "class indices": (painted(60, 120), ("120 ",)),
}


@pytest.mark.parametrize("name", TWO_CLASSES)
@pytest.mark.parametrize(("ending", "how", "threshold"), [
    ("jpg", {"quality": 95}, None), ("jpg", {"quality": 75}, None), ("jpg", {"quality": 100, "subsampling": 0}, 128),
    ("png", {}, 128), ("png", {}, 50), ("tif", {}, 128), ("webp", {"quality": 90}, 128)])
def test_several_classes_are_refused_with_their_shares(tmp_path, name, ending, how, threshold):
    pixels, shown = TWO_CLASSES[name]
    refused = r"has 3 (colours|grey levels) where a mask has two.*%.*__<structure>.png"
    with pytest.raises(UserError, match=refused) as told:
        read_mask(save(tmp_path / f"m.{ending}", pixels, **how), threshold)
    assert ending in ("jpg", "webp") or all(text in str(told.value) for text in shown)  # noise changes the digits


@pytest.mark.parametrize("quality", [30, 60, 75, 95])
@pytest.mark.parametrize("colour", [255, (255, 255, 255), (255, 0, 0), (0, 255, 0)])
def test_the_noise_of_jpeg_is_no_class(tmp_path, quality, colour):
    path = save(tmp_path / "m.jpg", painted(colour, colour), quality=quality)
    assert (read_mask(path) == LEFT | RIGHT).mean() > 0.98


def raters(levels: int) -> np.ndarray:
    """The share of raters who marked a pixel, 0 to 1: nested ellipses, and a spot that one of them saw."""
    rows, columns = np.mgrid[:64, :64]
    distance = ((rows - 32) / 14) ** 2 + ((columns - 30) / 12) ** 2
    votes = sum((distance <= 1 + 0.5 * rater).astype(int) for rater in range(levels))
    votes[4:10, 50:58] = 1
    return votes / levels


@pytest.mark.parametrize(("name", "soft"), [
    ("blurred", ndimage.gaussian_filter((LEFT | RIGHT).astype(float), 3)),
    ("widely blurred", ndimage.gaussian_filter(np.kron(LEFT, np.ones((4, 4))), 20)),
    ("probabilities", 1 / (1 + np.exp(-ndimage.gaussian_filter(LEFT * 20.0 - 10, 2)))),
    ("low probabilities", 0.4 * ndimage.gaussian_filter(LEFT.astype(float), 4) + RIGHT * 0.9),
    ("two raters", raters(2)), ("three raters", raters(3)), ("five raters", raters(5)),
])
@pytest.mark.parametrize("ending", ["png", "tif", "16.png"])
def test_soft_masks_go_on_working_with_a_threshold(tmp_path, name, soft, ending):
    scale, kind = {"png": (255, np.uint8), "tif": (1, np.float32), "16.png": (65535, np.uint16)}[ending]
    path = save(tmp_path / f"m.{ending}", np.rint(soft * scale).astype(kind) if scale > 1 else soft.astype(kind))
    assert (read_mask(path, scale * 0.505) == (soft > 0.505)).mean() > 0.99


@pytest.mark.parametrize("shares", [(1 / 4, 2 / 4), (1 / 3, 2 / 3), (1 / 5, 3 / 5)])
def test_shares_of_raters_of_whom_not_all_agree_anywhere(tmp_path, shares):
    votes = np.rint(3 * raters(3)).astype(int)
    path = save(tmp_path / "m.tif", np.array([0, *shares, shares[-1]], np.float32)[votes])
    assert (read_mask(path, 0.499) == (votes > 1)).all()


ROWS, COLUMNS = np.mgrid[:128, :128]


def disc(radius: int, row: int = 64, column: int = 64) -> np.ndarray:
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 <= radius ** 2


def layers(*parts: tuple[np.ndarray, int]) -> np.ndarray:
    """Grey levels in places, the later above the earlier."""
    pixels = np.zeros((128, 128), np.uint8)
    for place, level in parts:
        pixels[place] = level
    return pixels


LEVELS_OF_CLASSES = {
    "a cavity inside its wall": layers((disc(40), 255), (disc(25), 127)),
    "cells of which two meet at a point": layers(
        *((disc(9, 20 + 30 * row, 20), 127) for row in range(4)), (disc(9, 20, 38), 255), (disc(9, 90, 90), 255)),
    "four steps apart": layers((disc(12, 30, 30), 85), (disc(12, 30, 90), 170), (disc(12, 90, 60), 255)),
    "half of full scale apart": layers((disc(15, 40, 30), 64), (disc(20, 64, 90), 127)),
    "class indices inside each other": layers((disc(24), 1), (disc(20), 2)),
}
LEVELS_OF_RATERS = {
    "two of four agree": layers((disc(20), 64), (disc(17), 127)),
    "three of four agree": layers((disc(24), 64), (disc(20), 127), (disc(12), 191)),
    "half as 128": layers((disc(24), 128), (disc(20), 255)),
    "a hole that one left": layers((disc(20), 127), (disc(17), 255), (disc(5), 127)),
    "a lone part that one saw": layers((disc(15, 100, 100), 127), (disc(26, 40, 40), 127), (disc(23, 40, 42), 255)),
}


@pytest.mark.parametrize("name", LEVELS_OF_CLASSES)
def test_even_levels_that_are_no_rims_are_classes(tmp_path, name):
    levels = LEVELS_OF_CLASSES[name]
    with pytest.raises(UserError, match="where a mask has two.*shares of several raters, save what has .* white on"):
        read_mask(save(tmp_path / "m.png", levels), threshold=min(128, int(levels.max())))


@pytest.mark.parametrize("name", LEVELS_OF_RATERS)
def test_even_levels_in_rims_are_shares_and_are_counted(tmp_path, name):
    levels = LEVELS_OF_RATERS[name]
    mask = open_mask(save(tmp_path / "m.png", levels), threshold=100)
    assert (mask.pixels == (levels >= 100)).all()
    assert mask.shares == {level: (levels == level).mean() for level in np.unique(levels)}


def lines(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Slanting lines of some pixels' width, every second of which is the first structure."""
    along = (COLUMNS * 0.87 + ROWS * 0.5) % 32
    return along < width, (along >= 16) & (along < 16 + width)


def drawn(*parts: tuple[np.ndarray, tuple[int, int, int]]) -> np.ndarray:
    """Colours in places on black."""
    pixels = np.zeros((128, 128, 3), np.uint8)
    for place, colour in parts:
        pixels[place] = colour
    return pixels


@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("width", [1, 2])
def test_thin_structures_of_several_hues_in_jpeg_are_refused(tmp_path, quality, subsampling, width):
    first, second = lines(width)
    for pixels in (drawn((first, (255, 0, 0)), (second, (0, 255, 0))),
                   drawn((disc(20), (255, 0, 0)), (second & ~disc(24), (0, 0, 255)))):
        path = save(tmp_path / "m.jpg", pixels, quality=quality, subsampling=subsampling)
        with pytest.raises(UserError, match="has 3 colours where a mask has two"):
            read_mask(path)


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (255, 255, 0), (128, 0, 255)])
def test_a_thin_structure_of_one_hue_in_jpeg_is_one(tmp_path, quality, subsampling, colour):
    for width in (2, 4):
        path = save(tmp_path / "m.jpg", drawn((lines(width)[0], colour)), quality=quality, subsampling=subsampling)
        read_mask(path, threshold=60)


@pytest.mark.parametrize("colour", [(255, 128, 0), (128, 0, 255), (0, 128, 255), (64, 128, 0)])
def test_jpeg_does_not_change_the_word_for_a_colour(tmp_path, colour):
    ways = itertools.product(range(40, 101, 6), (0, 1, 2))
    files = (save(tmp_path / "m.jpg", painted(colour, colour), quality=quality, subsampling=subsampling)
             for quality, subsampling in ways)
    assert len({open_mask(file, threshold=60).hue for file in files}) == 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_shape_in_transparency_is_refused_with_a_threshold_too(tmp_path, mode):
    white = Image.new(mode, (30, 20), "white")
    white.putalpha(Image.fromarray(box().astype(np.uint8) * 255))
    white.save(tmp_path / "m.png")
    for threshold in (None, 128):
        with pytest.raises(UserError, match="m.png shows its shape by transparency alone"):
            read_mask(tmp_path / "m.png", threshold)


def test_a_palette_that_contradicts_itself_is_refused(tmp_path):
    mask = Image.fromarray(box().astype(np.uint8), "P")
    mask.putpalette([255, 255, 255, 0, 0, 0])
    mask.save(tmp_path / "m.png")
    with pytest.raises(UserError, match="m.png marks by its palette's index 1"):
        read_mask(tmp_path / "m.png")
    mask.putpalette([0, 0, 0, 128, 0, 0])
    mask.save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png") == box()).all()


def test_colours_of_a_published_set_are_united_where_it_says_so(tmp_path):
    path = save(tmp_path / "m.jpg", painted((255, 0, 0), (0, 255, 0)), quality=95)
    assert (read_mask(path, 128, unite=True) == LEFT | RIGHT).mean() > 0.98
