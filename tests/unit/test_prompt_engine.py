"""What the prompt engine measures: known shapes, invariances, what cannot be measured, and the speed."""

import time

import numpy as np
import pytest
from scipy import ndimage

from featherseg.core.errors import UserError
from featherseg.data.prompts.fields import FIELDS, Palette
from featherseg.data.prompts.prompt_engine import (
    ATTRIBUTES,
    PromptEngine,
    form_of,
    measure,
    outline_of,
    parts_of,
    to_lab,
)
from featherseg.data.prompts.street import STREET
from featherseg.data.raw.specs import SPECS

SIDE = 200
BY_PIXELS = ("number", "size", "location", "shape")


def picture(colour=(214, 32, 32), height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """A picture of one colour, but for a corner that makes it no grey one."""
    image = np.full((height, width, 3), colour, np.uint8)
    image[0, :4] = (0, 0, 255)
    return image


def grid(height: int, width: int, x: float, y: float, turn: float) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:height, :width]
    angle = np.deg2rad(turn)
    across, down = columns + 0.5 - x * width, rows + 0.5 - y * height
    return across * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - across * np.sin(angle)


def ellipse(a: float, b: float, x: float = 0.5, y: float = 0.5, turn: float = 0, height=SIDE, width=SIDE) -> np.ndarray:
    u, v = grid(height, width, x, y, turn)
    return (u / a) ** 2 + (v / b) ** 2 <= 1


def rectangle(a: float, b: float, x: float = 0.5, y: float = 0.5, turn: float = 0) -> np.ndarray:
    u, v = grid(SIDE, SIDE, x, y, turn)
    return (abs(u) <= a) & (abs(v) <= b)


def triangle(height: float, turn: float = 0) -> np.ndarray:
    u, v = grid(SIDE, SIDE, 0.5, 0.5, turn)
    return (v <= height / 3) & (v >= -2 * height / 3 + abs(u) * 3 ** 0.5)


def star(radius: float, turn: float = 0) -> np.ndarray:
    u, v = grid(SIDE, SIDE, 0.5, 0.5, turn)
    return np.hypot(u, v) <= radius * (0.7 + 0.3 * np.cos(5 * np.arctan2(v, u)))


def shape_of(mask: np.ndarray) -> str | None:
    return measure(picture(), mask)["shape"]


# ---------------------------------------------------------------- known masks


@pytest.mark.parametrize("turn", range(0, 180, 20))
@pytest.mark.parametrize("scale", [0.4, 0.7, 1.0])
@pytest.mark.parametrize("shape, draw", [
    ("round", lambda scale, turn: ellipse(50 * scale, 45 * scale, turn=turn)),
    ("oval", lambda scale, turn: ellipse(70 * scale, 35 * scale, turn=turn)),
    ("square", lambda scale, turn: rectangle(45 * scale, 45 * scale, turn=turn)),
    ("rectangular", lambda scale, turn: rectangle(65 * scale, 35 * scale, turn=turn)),
    ("triangular", lambda scale, turn: triangle(110 * scale, turn)),
    ("irregular", lambda scale, turn: star(75 * scale, turn)),
])
def test_shapes_whatever_their_turn_and_scale(shape, draw, scale, turn):
    assert shape_of(draw(scale, turn)) == shape


@pytest.mark.parametrize("x, y", [(0.3, 0.3), (0.5, 0.7), (0.7, 0.31)])
def test_shape_and_size_do_not_depend_on_the_place(x, y):
    here, there = (measure(picture(), ellipse(50, 25, *at, 30)) for at in ((0.5, 0.5), (x, y)))
    assert here["shape"] == there["shape"] == "oval" and here["size"] == there["size"] == "medium"


@pytest.mark.parametrize("x, word", [(0.15, "left"), (0.5, ""), (0.85, "right")])
@pytest.mark.parametrize("y, other", [(0.15, "top"), (0.5, ""), (0.85, "bottom")])
def test_locations(x, word, y, other):
    found = measure(picture(height=120, width=300), ellipse(12, 12, x, y, height=120, width=300))
    assert found["location"] == (f"{other} {word}".strip() or "center")


@pytest.mark.parametrize("share, word", [(0.0005, "tiny"), (0.01, "small"), (0.075, "small"), (0.085, "medium"),
                                         (0.29, "medium"), (0.31, "large"), (0.5, "large")])
def test_sizes_are_shares_of_the_image_whatever_its_resolution(share, word):
    for side in (100, 400):
        radius = side * np.sqrt(share / np.pi)
        mask = ellipse(radius, radius, height=side, width=side)
        assert measure(picture(height=side, width=side), mask)["size"] == word


def test_several_parts_are_counted_and_specks_are_not():
    mask = ellipse(20, 20, 0.2, 0.2) | ellipse(15, 15, 0.8, 0.2) | ellipse(18, 18, 0.25, 0.15)
    assert measure(picture(), mask)["number"] == "two"
    mask[150, 100] = mask[199, 0] = True
    found = measure(picture(), mask)
    assert found["number"] == "two" and found["location"] == "top left, top right"


def test_pixels_that_touch_by_a_corner_are_one_part():
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = mask[10:, 10:] = True
    assert measure(picture(height=20, width=20), mask)["number"] == "one"


def test_a_crowd_is_many_and_has_no_place():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[5::20, 5::20] = True
    found = measure(picture(), ndimage.binary_dilation(mask, np.ones((9, 9))))
    assert found["number"] == "many" and found["location"] is None and found["size"] == "small"


@pytest.mark.parametrize("colour, word", [
    ((200, 30, 40), "red"), ((60, 90, 220), "blue"), ((40, 140, 60), "green"), ((240, 220, 60), "yellow"),
    ((250, 250, 248), "white"), ((10, 10, 12), "black"), ((120, 118, 121), "grey"), ((115, 70, 40), "brown"),
    ((245, 140, 30), "orange"),
    ((135, 185, 235), "blue"), ((20, 25, 100), "blue"), ((30, 80, 40), "green"),
    ((240, 165, 180), "pink"), ((130, 60, 170), "purple")])
def test_colours(colour, word):
    assert measure(picture(colour), ellipse(40, 40))["colour"] == word


def test_a_colour_is_that_of_the_mask_and_not_of_its_surroundings():
    image, mask = picture((40, 140, 60)), ellipse(3, 3, 0.3, 0.3)
    image[mask] = (200, 30, 40)
    assert measure(image, mask)["colour"] == "red" and measure(image, ~mask)["colour"] == "green"


def test_a_field_has_its_own_words():
    mask, image = ellipse(40, 40), picture((166, 114, 88))
    assert measure(image, mask, FIELDS["skin"], "skin lesion") | {"location": None} == {
        "number": "one", "size": "medium", "location": None, "shape": "round", "colour": "brown"}
    assert measure(picture((230, 118, 65)), mask, FIELDS["endoscopy"], "polyp")["colour"] in ("orange", "yellow")
    assert measure(image, mask, FIELDS["ultrasound"])["colour"] is None


@pytest.mark.parametrize("colour", [
    (90, 60, 120), (110, 80, 130), (120, 90, 150), (95, 55, 110), (60, 30, 70), (150, 110, 180),
    (128, 0, 128), (75, 0, 130), (136, 77, 173), (221, 160, 221)])
def test_a_purple_is_purple_however_dull_dark_or_light(colour):
    assert measure(picture(colour), ellipse(40, 40))["colour"] == "purple"


@pytest.mark.parametrize(("colour", "word"), [
    ((255, 192, 203), "pink"), ((255, 105, 180), "pink"), ((219, 112, 147), "pink"), ((200, 130, 150), "pink"),
    ((139, 0, 0), "red"), ((130, 50, 50), "red"), ((70, 100, 70), "green"), ((80, 100, 140), "blue"),
    ((110, 80, 50), "brown"), ((128, 128, 130), "grey"), ((245, 242, 240), "white"), ((20, 18, 22), "black")])
def test_dull_colours_keep_the_word_of_their_hue(colour, word):
    assert measure(picture(colour), ellipse(40, 40))["colour"] == word


def test_colours_of_one_class_do_not_name_those_of_another():
    """Colours of wounds, which the palette of pigmented lesions calls brown."""
    wounds = [(150, 60, 50), (170, 40, 45), (120, 30, 30), (225, 160, 165), (60, 40, 25), (215, 190, 90)]
    names = [measure(picture(colour), ellipse(40, 40), FIELDS["skin"], "foot ulcer")["colour"] for colour in wounds]
    assert names == ["red", "red", "red", "pink", "brown", "yellow"]
    lesion = measure(picture(wounds[0]), ellipse(40, 40), FIELDS["skin"], "skin lesion")
    assert lesion["colour"] == "brown"
    instrument = measure(picture((40, 70, 160)), ellipse(40, 40), FIELDS["endoscopy"], "instrument")
    assert instrument["colour"] == "blue"


def test_prompts_of_several_are_grammatical():
    mask = ellipse(20, 20, 0.2) | ellipse(20, 20, 0.5) | ellipse(20, 20, 0.8)
    _, prompts = PromptEngine("skin").describe(picture((110, 80, 50)), mask, "foot ulcer")
    assert prompts["p5"] == ["three small brown round foot ulcers"]


def test_a_palette_is_a_discriminant():
    plain = Palette([("dark", (20.0, 0.0, 0.0)), ("bright", (80.0, 0.0, 0.0))], (10.0, 10.0, 10.0))
    assert plain.word((49.0, 5.0, 5.0)) == "dark" and plain.word((51.0, 5.0, 5.0)) == "bright"
    assert Palette(plain.points, plain.spread, {"bright": 1.0}).word((49.0, 5.0, 5.0)) == "bright"


def test_cie_lab():
    lab = to_lab(np.array([[255, 255, 255], [255, 0, 0], [0, 0, 0]]))
    assert np.allclose(lab, [[100, 0, 0], [53.24, 80.09, 67.20], [0, 0, 0]], atol=0.05)


# ---------------------------------------------------------------- invariances


def test_only_the_colour_depends_on_the_light():
    image = np.random.default_rng(0).integers(60, 120, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = ellipse(60, 30, 0.7, 0.3, 40)
    dark, bright = measure(image // 3, mask), measure(image * 2, mask)
    assert [dark[name] for name in BY_PIXELS] == [bright[name] for name in BY_PIXELS]
    assert dark["colour"] != bright["colour"]


def test_words_of_a_picture_and_of_its_enlargement_are_the_same():
    mask, image = ellipse(60, 30, 0.7, 0.3, 40) | ellipse(9, 9, 0.1, 0.9), picture()
    larger = measure(image.repeat(4, axis=0).repeat(4, axis=1), mask.repeat(4, axis=0).repeat(4, axis=1))
    assert larger == measure(image, mask) and None not in larger.values()


def test_a_mirrored_mask_has_a_mirrored_place_and_otherwise_the_same_words():
    mask = triangle(70) & ellipse(90, 90)
    mask = np.roll(mask, (-50, -60), axis=(0, 1))
    here, there = measure(picture(), mask), measure(picture(), mask[:, ::-1])
    assert (here.pop("location"), there.pop("location")) == ("top left", "top right") and here == there


def test_outlines_of_ideal_figures():
    for mask, solidity, fill, length in ((ellipse(80, 40, turn=25), 1, np.pi / 4, 2),
                                         (rectangle(60, 40, turn=25), 1, 1, 1.5), (triangle(120, 25), 1, 0.5, 1.15)):
        assert np.allclose(outline_of(parts_of(mask)[0]), (solidity, fill, length), atol=0.04)


@pytest.mark.parametrize("radius", [3.3, 4, 5, 7, 12])
def test_a_small_disc_is_round(radius):
    assert form_of(parts_of(ellipse(radius, radius))[0]) == "round"


# ---------------------------------------------------------------- what cannot be measured


@pytest.mark.parametrize("mask", [np.zeros((50, 50), bool), np.ones((1, 1), bool), np.ones((2, 300), bool)])
def test_nothing_of_an_empty_mask_or_of_hardly_an_image(mask):
    image = np.full((*mask.shape, 3), (200, 0, 0), np.uint8)
    assert measure(image, mask) == dict.fromkeys(ATTRIBUTES)


def test_a_grey_picture_has_no_colour():
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 1), dtype=np.uint8), 3, axis=2)
    found = measure(grey, ellipse(40, 40))
    assert found["colour"] is None and None not in [found[name] for name in BY_PIXELS]


@pytest.mark.parametrize("mask", [ellipse(2, 2), np.eye(4, dtype=bool)])
def test_a_few_pixels_have_no_shape(mask):
    found = measure(np.full((*mask.shape, 3), (200, 0, 0), np.uint8), mask)
    assert found["shape"] is None and found["number"] == "one"


@pytest.mark.parametrize("mask", [np.ones((40, 40), bool), np.eye(60, dtype=bool), rectangle(0.6, 90)])
def test_odd_masks_are_measured_without_complaint(mask):
    found = measure(picture(height=mask.shape[0], width=mask.shape[1]), mask)
    assert found["location"] == "center" and found["shape"] is not None


def test_what_could_not_be_measured_is_counted_and_said():
    engine = PromptEngine()
    grey = np.full((SIDE, SIDE, 3), 90, np.uint8)
    assert engine.notes() == ()
    for image, mask in ((picture(), ellipse(40, 40)), (grey, ellipse(40, 40)), (grey, np.zeros((SIDE, SIDE), bool))):
        engine.describe(image, mask, "polyp")
    assert engine.unmeasured == {"colour": 2, "number": 1, "size": 1, "location": 1, "shape": 1}
    assert "3 samples" in engine.notes()[0] and "shape of 1, colour of 2" in engine.notes()[0]


# ---------------------------------------------------------------- prompts


def test_prompts_say_what_is_measured_and_given_words_win():
    attributes, prompts = PromptEngine("endoscopy").describe(
        picture(), ellipse(40, 40), "polyp", {"number": "two", "size": "", "colour": None, "patient": 7})
    assert attributes["number"] == "two" and attributes["patient"] == 7 and attributes["size"] == "medium"
    assert prompts["p6"] == [f"two medium {attributes['colour']} round polyps, located in center of the image"]
    assert all(text.startswith("two medium ") and text.endswith(" located in center of the image")
               for text in prompts["p9"])


def test_given_numbers_are_words_in_a_prompt():
    assert PromptEngine().describe(picture(), ellipse(40, 40), "cell", {"number": 3})[1]["p5"][0].startswith("3 ")


def test_descriptions_of_the_user_stand_in_the_place_of_the_fields():
    _, prompts = PromptEngine("endoscopy", {"polyp": ["a mushroom"]}).describe(picture(), ellipse(40, 40), "polyp")
    assert prompts["p7"] == ["polyp which is a mushroom"]
    _, prompts = PromptEngine("endoscopy").describe(picture(), ellipse(40, 40), "ulcer")
    assert list(prompts) == [f"p{level}" for level in range(7)]


def test_streets_name_their_classes_and_count_only_what_has_a_number():
    engine = PromptEngine("street")
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:62] = True
    attributes, prompts = engine.describe(picture((130, 180, 240)), mask, "sky")
    assert attributes["number"] is attributes["shape"] is None
    assert prompts["p6"] == ["large blue sky, located in top of the image"]
    assert engine.describe(picture(), ellipse(40, 40), "car")[1]["p5"] == ["one medium red round car"]
    assert all(template.descriptions for template in STREET.values())


@pytest.mark.parametrize("name", ["camvid", "cityscapes"])
def test_every_class_of_an_urban_set_has_a_template(name):
    engine = PromptEngine(SPECS[name].field)
    classes = set(SPECS[name].indices.values()) - {None}
    assert len(classes) in (11, 19) and all(engine.template(class_name).descriptions for class_name in classes)


@pytest.mark.parametrize("make, fault", [
    (lambda: PromptEngine("lungs"), "unknown field of prompts 'lungs'"),
    (lambda: PromptEngine("street").template("zebra"), "no prompt template for the class 'zebra'"),
    (lambda: PromptEngine("ultrasound", {"tumor": ["x"]}), "have no level for descriptions"),
])
def test_what_cannot_be_worded(make, fault):
    with pytest.raises(UserError, match=fault) as error:
        make()
    assert "\n" not in str(error.value)


def test_every_field_has_a_word_for_every_shape():
    for field in FIELDS.values():
        assert set(field.shapes) == {"round", "oval", "triangular", "square", "rectangular", "irregular"}


def test_noise_is_measured_in_time():
    mask = np.random.default_rng(0).random((512, 512)) < 0.2
    start = time.process_time()
    assert measure(picture(height=512, width=512), mask)["number"] == "many"
    assert time.process_time() - start < 2


def test_it_is_deterministic_and_quick():
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (352, 352, 3), dtype=np.uint8), ellipse(90, 60, turn=20, height=352, width=352)
    first = measure(image, mask)
    start = time.process_time()
    assert all(measure(image, mask) == first for _ in range(20))
    assert (time.process_time() - start) / 20 < 0.02  # seconds; about 0.003 where nothing else runs
