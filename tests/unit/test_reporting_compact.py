"""Pictures inside a page become smaller; drawings stay what they are, to the pixel."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from featherseg.reporting.compact import with_smaller_pictures


def uri(picture: Image.Image, kind: str) -> str:
    stored = io.BytesIO()
    picture.save(stored, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stored.getvalue()).decode()}"


def pictures_in(page: str) -> list[tuple[str, np.ndarray]]:
    found = re.findall(r"data:image/(\w+);base64,([^\"]+)", page)
    return [(kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))) for kind, data in found]


@pytest.fixture
def drawing() -> Image.Image:
    rows, columns = np.mgrid[:200, :300]
    pixels = np.full((200, 300, 4), 255, np.uint8)
    pixels[(rows - 100) ** 2 + (columns - 150) ** 2 < 70**2, :3] = (200, 30, 60)
    return Image.fromarray(pixels)


def test_a_drawing_is_smaller_and_the_same(drawing):
    page = f'<p>before <img src="{uri(drawing, "PNG")}"> after</p>'
    smaller = with_smaller_pictures(page)
    (kind, pixels), = pictures_in(smaller)
    assert kind == "webp" and len(smaller) < len(page)
    assert np.array_equal(pixels, np.asarray(drawing)[..., :3])
    assert smaller.startswith("<p>before <img src=") and smaller.endswith("> after</p>")


def test_transparency_stays(drawing):
    drawing.putalpha(Image.linear_gradient("L").resize(drawing.size))
    (_, pixels), = pictures_in(with_smaller_pictures(f'<img src="{uri(drawing, "PNG")}">'))
    assert np.array_equal(pixels[..., 3], np.asarray(drawing)[..., 3])


def test_a_photograph_stays_near_what_it_was():
    noise = np.random.default_rng(0).normal(size=(150, 150))
    smooth = np.cumsum(np.cumsum(noise, 0), 1)
    grey = np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))
    photograph = Image.fromarray(np.repeat(grey[..., None], 3, 2))
    page = f'<img src="{uri(photograph, "JPEG")}">'
    (kind, pixels), = pictures_in(with_smaller_pictures(page))
    assert np.abs(pixels.astype(int) - np.asarray(photograph)).mean() < 4


def test_what_would_grow_and_what_is_no_picture_stay():
    tiny = f'<img src="{uri(Image.new("RGB", (1, 1)), "PNG")}">'
    text = "data:image/svg+xml;base64,AAAA and data:image/png without data"
    page = tiny + text
    smaller = with_smaller_pictures(page)
    assert len(smaller) <= len(page) and smaller.endswith(text)
