"""Letters of any script in figures and on contact sheets, with the fonts that this machine has.

DejaVu Sans, which matplotlib brings along, lacks Chinese, Korean, Devanagari and others. Its gaps are filled from the
fonts that are installed; a letter that none of them has is written as its code point instead of a box.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from featherseg.core.markup import one_line

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

NOTE = "Letters for which no font is installed here are written as their code points, U+…"
# a letter of each script that DejaVu Sans lacks: Han, Hangul, Kana, Devanagari, Bengali, Tamil, Telugu, Thai, Khmer,
# Myanmar, Sinhala, Gujarati, Gurmukhi, Kannada, Malayalam, Tibetan
_SCRIPTS = "左왼のबবதతกកမසગਗಕകབ"


@dataclass(frozen=True)
class _Font:
    """A font file, the face in it, its family, and the code points that it has."""

    path: str
    face: int
    family: str
    letters: frozenset[int]


@cache
def _fonts() -> tuple[_Font, ...]:
    """DejaVu Sans, then an installed font for each further script that one covers."""
    from matplotlib.font_manager import fontManager

    folder = _matplotlib_fonts()
    regular, bold = (folder / f"DejaVuSans{weight}.ttf" for weight in ("", "-Bold"))
    chain = [_Font(str(regular), 0, "DejaVu Sans", _letters(str(regular), 0) & _letters(str(bold), 0))]
    entries = [entry for entry in fontManager.ttflist
               if Path(entry.fname).parent != folder and entry.style == "normal"]
    entries.sort(key=lambda entry: (abs(entry.weight - 400) if isinstance(entry.weight, int) else 0, entry.name))
    wanted = {ord(letter) for letter in _SCRIPTS}
    for entry in entries:
        if not wanted:
            break
        face = getattr(entry, "index", 0)
        letters = _letters(entry.fname, face)
        if wanted & letters:
            wanted -= letters
            chain.append(_Font(entry.fname, face, entry.name, letters))
    return tuple(chain)


@cache
def families() -> list[str]:
    """The families in which matplotlib looks for a letter, in this order."""
    return [font.family for font in _fonts()]


def drawable(text: str) -> str:
    """The text as it can be drawn: letters without a font as code points, `[U+5DE6 U+80BA]`, control characters too.

    Marks that join or steer letters (a zero-width joiner) are left out where no font has them.
    """
    drawn = []
    for missing, letters in groupby(one_line(text), key=lambda letter: _font_of(letter) is None):
        shown = [letter for letter in letters if not missing or unicodedata.category(letter) not in ("Cf", "Mn")]
        points = " ".join(f"U+{ord(letter):04X}" for letter in shown)
        drawn.append(f"[{points}]" if missing and shown else "".join(shown))
    return "".join(drawn)


def is_drawable(text: str) -> bool:
    """Whether every letter of a text has a font."""
    return all(_font_of(letter) is not None for letter in one_line(text))


class Lettering:
    """Text in one size on a Pillow image, each run of letters in a font that has them.

    Args:
        size: in pixels.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    def length(self, text: str) -> float:
        """The width of a line in pixels."""
        return sum(self._font(font).getlength(run) for font, run in _runs(text))

    def draw(self, canvas: "ImageDraw.ImageDraw", place: tuple[float, float], text: str, colour: str) -> None:
        """Draw a line whose upper left corner is at `place` (x, y)."""
        x, y = place
        for font, run in _runs(text):
            canvas.text((x, y), run, colour, self._font(font))
            x += self._font(font).getlength(run)

    def _font(self, font: _Font) -> "ImageFont.FreeTypeFont":
        return _pillow_font(font, self._size)


def _runs(text: str) -> list[tuple[_Font, str]]:
    """The drawable text in runs of one font."""
    grouped = groupby(drawable(text), key=_font_of)
    return [(font, "".join(letters)) for font, letters in grouped if font is not None]


def _font_of(letter: str) -> _Font | None:
    return next((font for font in _fonts() if ord(letter) in font.letters), None)


def _letters(path: str, face: int) -> frozenset[int]:
    """The code points that a font file can draw at any size; none where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path, face_index=face) if face else FT2Font(path)
    except (RuntimeError, OSError, TypeError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


@cache
def _pillow_font(font: _Font, size: int) -> "ImageFont.FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(font.path, size, index=font.face)


def _matplotlib_fonts() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
