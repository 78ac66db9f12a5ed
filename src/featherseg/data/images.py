"""Pixel files of any common kind, read as plain arrays."""

import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from featherseg.core.errors import UserError
from featherseg.core.files import open_file
from featherseg.data.mask_classes import Kind, are_raters, kinds_of

# Pillow reads forty formats more, some of them by starting other programs
_FORMATS = {"BMP": (".bmp",), "GIF": (".gif",), "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"), "PNG": (".png",),
            "PPM": (".pbm", ".pgm", ".pnm", ".ppm"), "TIFF": (".tif", ".tiff"), "WEBP": (".webp",)}
EXTENSIONS = tuple(sorted(ending for endings in _FORMATS.values() for ending in endings))
MOST_PIXELS = 500_000_000  # a picture takes about 16 bytes a pixel while it is prepared
Image.MAX_IMAGE_PIXELS = None  # Pillow's own bound, a fifth of ours, calls large slides an attack
_PERCENTILES = (0.5, 99.5)
_ROWS_AT_ONCE = 256
_ORIENTATION = 0x0112
_LOSSY = ("JPEG", "MPO")
_FEW_LEVELS = 5  # that a sentence lists one by one
_PALETTES_OF_LABELS = ("PNG", "TIFF")  # a GIF has always a palette, in any order
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile)
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
        UserError: the file is absent, truncated, of none of the formats of `EXTENSIONS`, larger than `MOST_PIXELS`, a
            stack of several pages, or holds NaN or infinity.
    """
    try:
        with path.open("rb") if isinstance(path, zipfile.Path) else open_file(path) as file:
            stored = Image.open(file, formats=list(_FORMATS))
            width, height = stored.size
            if width * height > MOST_PIXELS:
                raise UserError(f"{path} is {width}x{height} pixels, more than the {MOST_PIXELS / 1e6:.0f} megapixels "
                                "that a picture may have; shrink it, or cut it into several.")
            pages = getattr(stored, "n_frames", 1)
            if stored.format != "MPO" and pages > 1:  # a photograph with its preview
                raise UserError(f"{path} holds {pages} pages where one picture is expected; "
                                "split it into one file a page.")
            stored.load()
            turned = stored.getexif().get(_ORIENTATION, 1) != 1
            upright = ImageOps.exif_transpose(stored) if turned else stored
    except FileNotFoundError:  # of a zip archive
        raise UserError(f"{path} does not exist; add the file or remove the row that names it.") from None
    except _UNREADABLE as error:
        known = ", ".join(_FORMATS)
        cause = f"its format is unknown: none of {known}" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path} cannot be read as a picture ({cause}); "
                        "replace or remove the file.") from None
    if upright.mode == "F" and not np.isfinite(np.asarray(upright)).all():
        raise UserError(f"{path} holds values that are no numbers (NaN or infinite); replace them.")
    plain = (stored.mode in ("RGB", "L") and stored.format in ("JPEG", "PNG") and not turned
             and not stored.has_transparency_data)
    return Picture(upright, plain, stored.format or "")


def read_image(path: Path | str) -> np.ndarray:
    """Read a picture as RGB, upright by its orientation tag: uint8 of shape (H, W, 3).

    Raises:
        UserError: the file cannot be read (`open_picture`).
    """
    return to_rgb(open_picture(path).image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """A picture as RGB: uint8 of shape (H, W, 3).

    Grey becomes three equal channels. A picture whose parts differ in transparency is laid on white, as most viewers
    show it; transparency that is the same everywhere is dropped. Grey of more than 8 bits is scaled linearly from its
    own 0.5th to its 99.5th percentile, because such files seldom use their full range (12-bit radiographs); 16-bit
    colour is scaled by its full range.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=2)
    if _alpha_varies(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class Mask:
    """One mask file.

    Attributes:
        pixels: bool (H, W), upright.
        target, background: the level or colour that the file marks each by; None where no pixel is of it, or where
            a threshold says it.
        hue: a word for the target's colour; None where the file has no target.
        shares: grey level -> its share of the pixels, where a threshold divides more than two levels.
        below: the levels other than 0, in words, where all of them lie under the threshold; None where none do.
    """

    pixels: np.ndarray
    target: str | None = None
    background: str | None = None
    hue: str | None = None
    shares: dict[float, float] = field(default_factory=dict)
    below: str | None = None


def read_mask(path: Path | str, threshold: float | None = None, unite: bool = False) -> np.ndarray:
    """Read a mask, upright by its orientation tag: bool of shape (H, W); `open_mask` says how."""
    return open_mask(path, threshold, unite).pixels


def open_mask(path: Path | str, threshold: float | None = None, unite: bool = False) -> Mask:
    """Read a mask and how it marks its target.

    Without a threshold a file must have at most two levels; the higher is the target (a single level other
    than 0 is all target). A JPEG mask has grey edges by its compression: its threshold is 128 where none is given.
    Of a coloured mask the strongest channel counts; transparency is dropped.

    Args:
        threshold: grey level at and above which a pixel is target: for probabilities, or shares of several raters.
        unite: whether colours and levels on one side of the threshold are parts of one target or background, as the
            description of a published set says; else a mask of several classes is refused.

    Raises:
        UserError: the file cannot be read, or does not say what is target: several classes in one file, negative
            levels, a shape that colour or transparency alone shows, or two levels on one side of the threshold.
    """
    picture = open_picture(path)
    image, levels = picture.image, _mask_levels(picture.image)
    lossy = picture.format in _LOSSY
    if threshold is None and not lossy:
        return _two_levels(path, picture, levels)
    least = 128 if threshold is None else threshold
    mask = levels >= least
    kinds = [] if unite else kinds_of(image, levels, lossy, may_be_soft=threshold is not None)
    if len(kinds) > 2 and (threshold is None or not are_raters(levels, kinds)):
        raise UserError(f"{path} {_several(kinds, threshold)}")
    if not mask.any() and levels.any() and (lossy and threshold is None or len(_levels_found(levels)) == 2):
        raise UserError(f"{path} has no level above {levels.max()}, so that with the threshold {least:g} nothing would "
                        "be target; set `threshold` between its levels.")
    if fault := _not_by_level(image, kinds, least):
        raise UserError(f"{path} {fault}; save one mask file a structure, white on black.")
    marked = [kind.hue for kind in kinds if kind.level >= least]
    shares = {kind.level: float(kind.share) for kind in kinds} if len(kinds) > 2 else {}
    below = None if mask.any() else _listed_levels(levels)
    return Mask(mask, hue=marked[0] if marked else None, shares=shares, below=below)


def _two_levels(path: Path | str, picture: Picture, levels: np.ndarray) -> Mask:
    """A mask of a file of at most two levels; the higher is the target.

    Raises:
        UserError: as `open_mask`.
    """
    image, values = picture.image, _levels_found(levels)
    if values[0] < 0:
        raise UserError(f"{path} has negative levels ({values[0]}), which say neither target nor background; save the "
                        "mask with 0 and 255, or set `threshold` (target = that level and above).")
    if len(values) > 2:
        shown = ", ".join(str(value) for value in values[:5]) + (", ..." if len(values) > 5 else "")
        shares = ", ".join(f"{(levels == value).mean():.1%}" for value in values[:5])
        raise UserError(f"{path} has {len(values)} grey levels ({shown}) where a mask has two, with {shares} of its "
                        "pixels; save one mask file a structure, or, where the levels are probabilities, set "
                        "`threshold` (target = that level and above).")
    fault = _beside_levels(image, len(values))
    if fault is None and picture.format in _PALETTES_OF_LABELS and image.mode in ("P", "PA"):
        fault = _palette_fault(image)
    if fault:
        raise UserError(f"{path} {fault}; save one mask file a structure, white on black.")
    mask = (levels == values[-1]) & (levels > 0)
    low, high = (_kind(image, levels, value) for value in (values[0], values[-1]))
    background = None if mask.all() else low.label
    return Mask(mask, high.label, background, high.hue) if mask.any() else Mask(mask, background=background)


def _kind(image: Image.Image, levels: np.ndarray, value: float) -> Kind:
    """The one kind of pixel that has a level of a mask."""
    of_level = levels == value
    if _is_grey(image):
        return Kind((0, 0, 0), float(value), float(of_level.mean()))
    y, x = (int(place) for place in np.unravel_index(int(of_level.argmax()), levels.shape))
    red, green, blue = image.crop((x, y, x + 1, y + 1)).convert("RGB").tobytes()
    return Kind((red, green, blue), float(value), float(of_level.mean()))


def _several(kinds: list[Kind], threshold: float | None) -> str:
    """What is wrong with a mask of several classes, and what to do."""
    grey = all(kind.is_grey for kind in kinds)
    shown = ", ".join(f"{kind.label if grey else kind.code} {kind.share:.1%}" for kind in kinds)
    way_out = "save each structure as a mask file of its own (masks/<image>__<structure>.png), white on black"
    if grey and threshold is None:
        way_out += ", or, where the levels are probabilities, set `threshold`"
    elif grey:
        way_out += (f", or, where they are shares of several raters, save what has {threshold:g} and more white on "
                    "black (such shares are read where they are even steps of full scale and each lies as a rim "
                    "between a lower and a higher one)")
    return (f"has {len(kinds)} {'grey levels' if grey else 'colours'} where a mask has two, with their shares: "
            f"{shown}; {way_out}.")


def _not_by_level(image: Image.Image, kinds: list[Kind], least: float) -> str | None:
    """Why a threshold does not tell the parts of a mask apart that its kinds of pixels do; None where it does."""
    sides = {kind.level >= least for kind in kinds}
    if len(kinds) == 2 and len(sides) == 1 and not all(kind.is_grey for kind in kinds):
        shown = " and ".join(f"{kind.code} {kind.share:.1%}" for kind in kinds)
        return f"has two colours, {shown}, on one side of the threshold {least:g}, either of which may be the target"
    if len(kinds) == 1 and _alpha_varies(image):
        return "shows its shape by transparency alone"
    return None


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _mask_levels(image: Image.Image) -> np.ndarray:
    """Grey levels of a mask file as stored, (H, W): a palette's colours, and the strongest colour channel."""
    if not _is_grey(image):
        image = image.convert("RGB")
    levels = np.asarray(image)
    if levels.ndim == 2:
        return levels * np.uint8(255) if levels.dtype == bool else levels
    return levels[..., 0] if image.mode in ("LA", "La") else levels.max(axis=2)


def _beside_levels(image: Image.Image, levels: int) -> str | None:
    """What tells parts of a mask of one or two levels apart that the levels do not; None where nothing does."""
    if not _is_grey(image):
        colours = cast(list[tuple[int, tuple[int, int, int]]] | None, image.convert("RGB").getcolors(256))
        if colours is None or len(colours) > 2:
            shares = [f"#{bytes(colour).hex()} {count / (image.width * image.height):.1%}"
                      for count, colour in sorted(colours or [], reverse=True)]
            return ("has more than two colours where a mask has two"
                    + (f" ({', '.join(shares[:5])}{', ...' * (len(shares) > 5)})" if shares else ""))
        if len(colours) > levels:
            return "has two colours of one brightness, either of which may be the target"
    return "shows its shape by transparency alone" if levels == 1 and _alpha_varies(image) else None


def _alpha_varies(image: Image.Image) -> bool:
    """Whether some pixels of a picture are more transparent than others."""
    if not image.has_transparency_data:
        return False
    least, most = cast(tuple[int, int], image.convert("RGBA").getchannel("A").getextrema())
    return least < most


def _levels_found(levels: np.ndarray) -> np.ndarray:
    """Sorted distinct values; counted where they are few, which is quicker than sorting pixels."""
    if levels.dtype.kind == "u":
        return np.flatnonzero(np.bincount(levels.ravel()))
    return np.unique(levels)


def _listed_levels(levels: np.ndarray) -> str | None:
    """The levels other than 0 in words, of many of them the lowest and the highest; None where there are none."""
    values = _levels_found(levels)
    shown = [f"{level:g}" for level in values[values != 0]]
    if len(shown) > _FEW_LEVELS:
        return f"{shown[0]} to {shown[-1]}"
    return ", ".join(shown) or None


def _palette_fault(image: Image.Image) -> str | None:
    """What is wrong with a mask of two colours by a palette, whose indices may be labels; None where they agree."""
    colours = cast(list[tuple[int, int]], image.convert("P").getcolors())  # at most 256, so there is a list
    first, *second = sorted(index for _, index in colours)
    brightness = np.array(image.getpalette("RGB")).reshape(-1, 3).max(axis=1)
    if second and brightness[second[0]] < brightness[first]:
        return (f"marks by its palette's index {second[0]} what is the darker of its two colours, so that either may "
                "be the target")
    return None


def _to_8_bit(grey: np.ndarray) -> np.ndarray:
    """Grey of any width as uint8 of the same shape, by its percentiles; some rows at once, which saves memory."""
    low, high = np.percentile(grey, _PERCENTILES)
    scaled = np.empty(grey.shape, np.uint8)
    for first in range(0, len(grey), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        share = (grey[rows].astype(np.float64) - low) / max(float(high - low), 1e-12)
        scaled[rows] = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    return scaled
