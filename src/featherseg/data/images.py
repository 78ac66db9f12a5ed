"""Pixel files of any common kind, read as plain arrays."""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from featherseg.errors import UserError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_PERCENTILES = (0.5, 99.5)
_ORIENTATION = 0x0112
_LOSSY = ("JPEG", "MPO")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
               Image.DecompressionBombError, zipfile.BadZipFile)
PictureFile = Path | str | zipfile.Path  # the last one lies inside a zip archive


@dataclass(frozen=True)
class Picture:
    """One decoded picture file.

    Attributes:
        image: its pixels, upright by its orientation tag.
        plain: whether the file itself can be kept: JPEG or PNG, 8-bit RGB or grey, opaque, upright as stored.
        format: of the file, as Pillow names it.
    """

    image: Image.Image
    plain: bool
    format: str


def open_picture(path: PictureFile) -> Picture:
    """Decode one picture file completely and turn it upright: the one way into images, masks and label maps.

    The file is read as a stream, since Pillow shears a turned TIFF that it maps by its path.

    Raises:
        UserError: the file is absent, truncated, no picture, a stack of several pages, or holds NaN or infinity.
    """
    try:
        with path.open("rb") if isinstance(path, zipfile.Path) else open(path, "rb") as file:
            stored = Image.open(file)
            if stored.format != "MPO" and getattr(stored, "n_frames", 1) > 1:  # a photograph with its preview
                raise UserError(f"{path} holds {stored.n_frames} pages where one picture is expected; "
                                "split it into one file a page.")
            stored.load()
            turned = stored.getexif().get(_ORIENTATION, 1) != 1
            upright = ImageOps.exif_transpose(stored) if turned else stored
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; add the file or remove the row that names it.") from None
    except _UNREADABLE as error:
        cause = "its format is unknown" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path} cannot be read as a picture ({cause}); "
                        "replace or remove the file.") from None
    if upright.mode == "F" and not np.isfinite(upright).all():
        raise UserError(f"{path} holds values that are no numbers (NaN or infinite); replace them.")
    plain = (stored.mode in ("RGB", "L") and stored.format in ("JPEG", "PNG") and not turned
             and not stored.has_transparency_data)
    return Picture(upright, plain, stored.format)


def read_image(path: Path | str) -> np.ndarray:
    """Read a picture as RGB, upright by its orientation tag: uint8 of shape (H, W, 3).

    Raises:
        UserError: the file cannot be read (`open_picture`).
    """
    return to_rgb(open_picture(path).image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """A picture as RGB: uint8 of shape (H, W, 3).

    Grey becomes three equal channels, transparency is laid on white, as most viewers show it. Grey of more than
    8 bits is scaled linearly from its own 0.5th to its 99.5th percentile, because such files seldom use their full
    range (12-bit radiographs); 16-bit colour is scaled by its full range.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def read_mask(path: Path | str, threshold: float | None = None) -> np.ndarray:
    """Read a mask, upright by its orientation tag: bool of shape (H, W).

    Without a threshold a file must have at most two levels, of which the higher is the target (a single
    level other than 0 is all target). A JPEG mask has grey edges by its compression: its threshold is 128
    where none is given. Of a coloured mask the strongest channel counts; transparency is dropped.

    Raises:
        UserError: the file cannot be read, or does not say what is target: without a threshold, more than two levels
            or colours, negative levels, or a shape that colour or transparency alone shows; with one, two levels
            that both lie below it.
    """
    picture = open_picture(path)
    image, levels = picture.image, _mask_levels(picture.image)
    compressed = picture.format in _LOSSY
    if threshold is not None or compressed:
        least = 128 if threshold is None else threshold
        mask = levels >= least
        if not mask.any() and levels.any() and (threshold is None if compressed else len(_levels_found(levels)) == 2):
            raise UserError(f"{path} has no level above {levels.max()}, so that with the threshold {least:g} nothing "
                            "would be target; set `threshold` between its levels.")
        return mask
    values = _levels_found(levels)
    if values[0] < 0:
        raise UserError(f"{path} has negative levels ({values[0]}), which say neither target nor background; save the "
                        "mask with 0 and 255, or set `threshold` (target = that level and above).")
    if len(values) > 2:
        shown = ", ".join(str(value) for value in values[:5]) + (", ..." if len(values) > 5 else "")
        raise UserError(f"{path} has {len(values)} grey levels ({shown}) where a mask has two; set "
                        "`threshold` (target = that level and above), or save one mask file a structure.")
    if fault := _beside_levels(image, len(values)):
        raise UserError(f"{path} {fault}; save one mask file a structure, white on black.")
    return (levels == values[-1]) & (levels > 0)


def _mask_levels(image: Image.Image) -> np.ndarray:
    """Grey levels of a mask file as stored, (H, W): a palette's colours, and the strongest colour channel."""
    if image.mode in ("P", "PA", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    levels = np.asarray(image)
    if levels.ndim == 2:
        return levels * np.uint8(255) if levels.dtype == bool else levels
    colours = 1 if image.mode in ("LA", "La") else 3
    return levels[..., :colours].max(axis=2)


def _beside_levels(image: Image.Image, levels: int) -> str | None:
    """What tells parts of a mask of one or two levels apart that the levels do not; None where nothing does."""
    if image.mode not in ("1", "L", "LA", "F") and not image.mode.startswith("I"):
        colours = image.convert("RGB").getcolors(2)
        if colours is None:
            return "has more than two colours where a mask has two"
        if len(colours) > levels:
            return "has two colours of one brightness, either of which may be the target"
    if levels == 1 and image.has_transparency_data:
        least, most = image.convert("RGBA").getchannel("A").getextrema()
        return "shows its shape by transparency alone" if least < most else None
    return None


def _levels_found(levels: np.ndarray) -> np.ndarray:
    """Sorted distinct values; counted where they are few, which is quicker than sorting pixels."""
    if levels.dtype.kind == "u":
        return np.flatnonzero(np.bincount(levels.ravel()))
    return np.unique(levels)


def _to_8_bit(grey: np.ndarray) -> np.ndarray:
    low, high = np.percentile(grey, _PERCENTILES)
    scaled = (grey.astype(np.float64) - low) / max(float(high - low), 1e-12)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
