"""Letters of every script in figures and on contact sheets: drawn where a font has them, else as code points."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image, ImageDraw

from featherseg.core import glyphs
from featherseg.core.glyphs import NOTE, Lettering, drawable, is_drawable
from featherseg.data.card import About, write_card
from featherseg.data.prepared import PreparedWriter
from featherseg.reporting import style
from featherseg.reporting.overlays import caption

SCRIPTS = ["左肺上叶", "왼쪽 폐", "बायाँ फोक्सो", "左\x1b<b>", "ปอดซ้าย"]


def forget() -> None:
    for cached in (glyphs._fonts, glyphs.families, glyphs._pillow_font):
        cached.cache_clear()


@pytest.fixture
def no_fonts(monkeypatch):
    """A machine without installed fonts."""
    monkeypatch.setattr(fontManager, "ttflist", without_installed())
    forget()
    yield
    forget()


@pytest.fixture
def a_font(tmp_path, monkeypatch):
    """A machine with one more font, whose only letter, 左, is a black square."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "left"])
    builder.setupCharacterMap({ord("左"): "left"})
    square = TTGlyphPen(None)
    for step, point in enumerate([(0, 0), (0, 800), (800, 800), (800, 0)]):
        (square.lineTo if step else square.moveTo)(point)
    square.closePath()
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "left": square.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "left": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": "Left Sans", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "left.ttf")
    monkeypatch.setattr(fontManager, "ttflist", without_installed())
    fontManager.addfont(tmp_path / "left.ttf")
    forget()
    yield
    forget()


def without_installed() -> list:
    """The fonts that matplotlib brings along."""
    return [entry for entry in fontManager.ttflist if Path(entry.fname).parent == glyphs._matplotlib_fonts()]


def drawn(figure) -> list[str]:
    """The warnings while a figure is drawn."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        style.picture(figure)
    return [str(warning.message) for warning in seen]


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_figure_without_a_font_has_code_points_and_a_note_and_no_warning(no_fonts, text):
    figure, (axis,) = style.panels(1)
    axis.bar([text, "b"], [1, 2], label=text)
    axis.set_yticks([0, 1], [text, "x"])
    axis.set(title=text, xlabel=caption(text))
    figure.legend(loc="outside lower center")
    assert drawn(figure) == []
    assert figure.get_supxlabel() == NOTE
    shown = [axis.get_title(), axis.get_xlabel(), *(label.get_text() for label in axis.get_yticklabels()),
             *(label.get_text() for label in axis.get_xticklabels())]
    assert not [label for label in shown if not is_drawable(label.replace("\n", ""))]
    assert sum(f"U+{ord(text[0]):04X}" in label for label in shown) == 4


def test_labels_that_begin_alike_are_cut_in_their_middle(no_fonts):
    names = [f"{'a very long name of a method ' * 8}{number}" for number in (1, 2)]
    figure, (axis,) = style.panels(1)
    axis.barh([0, 1], [1, 2], label=names[0])
    axis.set_yticks([0, 1], names)
    figure.legend(loc="outside lower center")
    assert drawn(figure) == []
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert len(set(labels)) == 2 and max(map(len, labels)) <= 36


@pytest.mark.parametrize("text", ["левое лёгкое", "الرئة اليسرى", "phổi trái", "ß é – “”", "cost $5 or $10_x"])
def test_what_dejavu_has_is_drawn_as_it_is(no_fonts, text):
    figure, (axis,) = style.panels(1)
    axis.set(title=text)
    assert drawn(figure) == []
    assert axis.get_title() == text == drawable(text) and figure.get_supxlabel() == ""


def test_an_installed_font_fills_the_gap(a_font):
    assert glyphs.families() == ["DejaVu Sans", "Left Sans"]
    assert drawable("a 左 b 右") == "a 左 b [U+53F3]"
    figure, (axis,) = style.panels(1)
    axis.set(title="left 左 lung")
    assert drawn(figure) == [] and axis.get_title() == "left 左 lung"
    sheet = Image.new("L", (60, 30))
    Lettering(20).draw(ImageDraw.Draw(sheet), (0, 0), "左左", 255)
    assert (np.asarray(sheet) == 255).sum() == pytest.approx(2 * 16 * 16, rel=0.15)
    assert Lettering(20).length("左左") == pytest.approx(40, abs=1)


def test_a_font_that_cannot_be_read_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    entry = type(fontManager.ttflist[0])(fname=str(tmp_path / "broken.ttf"), name="Broken", style="normal")
    monkeypatch.setattr(fontManager, "ttflist", [*without_installed(), entry])
    forget()
    assert glyphs.families() == ["DejaVu Sans"] and drawable("左") == "[U+5DE6]"
    forget()


def write_set(folder, prompt: str):
    with PreparedWriter(folder, dataset="set") as writer:
        writer.add_image("image", np.full((40, 80, 3), 120, dtype=np.uint8))
        mask = np.zeros((40, 80), bool)
        mask[10:30, 20:60] = True
        writer.add_sample(image_id="image", target="x", mask=mask, split="test", prompts={"p1": prompt})
    write_card(folder, About("set", "drawn"))
    return np.asarray(Image.open(folder / "contact_sheet.png").convert("L"))


def test_the_contact_sheet_has_no_boxes_and_says_why(no_fonts, tmp_path):
    latin, chinese = (write_set(tmp_path / name, text) for name, text in (("a", "lung"), ("b", "左肺" * 40)))
    assert chinese.shape[0] > latin.shape[0], "there is no line for the note"
    assert (chinese[-20:] < 200).any()


def test_a_script_without_spaces_is_broken_at_the_tiles_edge(a_font, tmp_path):
    sheet = write_set(tmp_path / "a", "左" * 60)
    assert (sheet[:, -12:] == 255).all(), "the caption runs out of its tile"


def test_a_long_caption_keeps_both_ends():
    prompts = [f"{'one small round polyp ' * 12}on the {side}" for side in ("left", "right")]
    captions = [caption(prompt) for prompt in prompts]
    assert captions[0] != captions[1] and all(len(text.split("\n")) == 4 for text in captions)
    assert captions[0].startswith("“one small") and captions[0].endswith("left”")
    assert max(map(len, caption("U" * 300).split("\n"))) <= 44
