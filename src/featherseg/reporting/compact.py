"""Smaller pictures inside pages, so that git can keep the pages."""

import base64
import io
import re

PHOTOGRAPH_QUALITY = 45  # of 100, of WebP
COLOURS = 256  # of a drawing

_PICTURE = re.compile(r"data:image/(png|jpeg);base64,([A-Za-z0-9+/=\s]+)")


def with_smaller_pictures(page: str) -> str:
    """A page whose embedded PNG and JPEG pictures are WebP where that is smaller.

    An opaque PNG, a drawing, keeps `COLOURS` colours, and any other all of them; JPEG, photographs, is written at
    `PHOTOGRAPH_QUALITY`.
    """
    return _PICTURE.sub(_as_webp, page)


def _as_webp(match: re.Match[str]) -> str:
    from PIL import Image

    kind, encoded = match.groups()
    stored = base64.b64decode(encoded)
    picture: Image.Image = Image.open(io.BytesIO(stored))
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255):
        picture = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).convert("RGB")
    smaller = io.BytesIO()
    if kind == "png":
        picture.save(smaller, "WEBP", lossless=True)
    else:
        picture.save(smaller, "WEBP", quality=PHOTOGRAPH_QUALITY)
    if len(smaller.getvalue()) >= len(stored):
        return match.group()
    return f"data:image/webp;base64,{base64.b64encode(smaller.getvalue()).decode()}"
