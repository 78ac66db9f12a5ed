"""The forms of prompts, against those that FACTS and the published lists give."""

import json

import pytest
from data_files import shared

from featherseg.data.folder.lists import attributes_of
from featherseg.data.prompts.wording import (
    ATTRIBUTES,
    breast_ultrasound,
    counted,
    cumulative,
    location_word,
    number_word,
    plural,
)

POLYP = {"number": "two", "size": "large", "location": "top left", "shape": "round", "colour": "white"}


def test_levels_of_polyp_skin_and_foot_are_cumulative():
    assert cumulative(POLYP, "polyp", ["a growth", "a bump"]) == {
        "p0": [""], "p1": ["polyp"], "p2": ["round polyp"], "p3": ["white round polyp"],
        "p4": ["large white round polyp"], "p5": ["two large white round polyp"],
        "p6": ["two large white round polyp, located in top left of the image"],
        "p7": ["polyp which is a growth", "polyp which is a bump"],
        "p8": ["two large white round polyp which is a growth", "two large white round polyp which is a bump"],
        "p9": ["two large white round polyp which is a growth located in top left of the image",
               "two large white round polyp which is a bump located in top left of the image"]}


def test_several_are_in_the_plural_from_their_number_on():
    prompts = counted(POLYP, "polyp", ["a growth"])
    assert prompts["p4"] == ["large white round polyp"] and prompts["p5"] == ["two large white round polyps"]
    assert prompts["p6"] == ["two large white round polyps, located in top left of the image"]
    assert prompts["p7"] == ["polyp which is a growth"]
    assert prompts["p9"] == ["two large white round polyps, each of which is a growth located in top left of the image"]


@pytest.mark.parametrize("number", ["one", None])
def test_one_or_an_unknown_number_is_in_the_singular(number):
    attributes = POLYP | {"number": number}
    assert counted(attributes, "polyp", ["a growth"]) == cumulative(attributes, "polyp", ["a growth"])


@pytest.mark.parametrize(("noun", "several"), [
    ("foot ulcer", "foot ulcers"), ("mass", "masses"), ("biopsy", "biopsies"), ("kidney", "kidneys"),
    ("cell nucleus", "cell nuclei"), ("cell nuclei", "cell nuclei"), ("glands", "glands"), ("bus", "buses"),
    ("metastasis", "metastases"), ("patch", "patches"), ("box", "boxes"), ("pancreas", "pancreases")])
def test_plurals(noun, several):
    assert plural(noun) == several


def test_levels_of_breast_ultrasound_are_cumulative():
    attributes = {"type": "malignant", "number": "one", "size": "small", "location": "top left", "shape": "oval"}
    end = "in the breast ultrasound image."
    assert breast_ultrasound(attributes, "tumor") == {
        "p0": [""], "p1": [f"Tumor {end}"], "p2": [f"Malignant tumor {end}", f"Irregular-shaped tumor {end}"],
        "p3": [f"One malignant tumor {end}", f"One irregular-shaped tumor {end}"],
        "p4": [f"One small malignant tumor {end}", f"One small irregular-shaped tumor {end}"],
        "p5": [f"One small malignant tumor at the top left {end}",
               f"One small irregular-shaped tumor at the top left {end}"],
        "p6": [f"One small oval-shaped malignant tumor at the top left {end}",
               f"One small oval-shaped irregular tumor at the top left {end}"]}


def test_without_a_type_ultrasound_has_one_prompt_a_level():
    prompts = breast_ultrasound({"number": "one", "size": None, "location": "left", "shape": None}, "tumor")
    assert prompts["p2"] == ["Tumor in the breast ultrasound image."]
    assert prompts["p4"] == ["One tumor in the breast ultrasound image."]
    assert prompts["p6"] == ["One tumor at the left in the breast ultrasound image."]


@pytest.mark.parametrize("lacking", ATTRIBUTES)
def test_what_is_not_measured_stays_out_of_the_sentence(lacking):
    whole, without = (cumulative(words, "polyp", ["a growth"]) for words in (POLYP, POLYP | {lacking: None}))
    assert without.keys() == whole.keys()
    for level in whole:
        cut = whole[level][0]
        for phrase in [", located in top left of the image", " located in top left of the image", f"{POLYP[lacking]} "]:
            cut = cut.replace(phrase, "") if (lacking == "location") == ("located" in phrase) else cut
        assert without[level] == [cut]
        assert "None" not in without[level][0] and "  " not in without[level][0]


def test_several_tumors_are_in_the_plural_from_their_number_on():
    prompts = breast_ultrasound({"number": "two", "type": "benign", "location": "top, right"}, "tumor")
    assert prompts["p2"][0] == "Benign tumor in the breast ultrasound image."
    assert prompts["p3"][0] == "Two benign tumors in the breast ultrasound image."
    assert prompts["p6"][1] == "Two regular tumors at the top, right in the breast ultrasound image."


def test_without_any_attribute_every_level_is_the_class():
    prompts = cumulative({}, "left lung")
    assert list(prompts) == [f"p{level}" for level in range(7)]
    assert {text for level in list(prompts)[1:] for text in prompts[level]} == {"left lung"}


def test_the_words_can_be_read_from_the_prompts_again():
    assert attributes_of(cumulative(POLYP, "polyp")) == POLYP


def test_numbers():
    assert [number_word(count) for count in (1, 2, 12, 13, 400)] == ["one", "two", "twelve", "many", "many"]
    with pytest.raises(ValueError, match="no word for 0"):
        number_word(0)


def test_locations_are_as_the_viewer_sees_the_image():
    assert location_word(0.1, 0.9) == "bottom left" and location_word(0.9, 0.5) == "right"
    assert location_word(0.5, 0.5) == "center" and location_word(1.0, 0.0) == "top right"


@pytest.mark.parametrize("name", ["kvasir_polyp", "isic", "dfu"])
def test_the_form_of_the_published_lists(name):
    """From the words, class and descriptions of a published row its own prompts come out again."""
    rows = json.loads((shared("annotations") / "medvlsm" / name / "test.json").read_text())
    for row in rows:
        published = {level: [texts] if isinstance(texts, str) else texts for level, texts in row["prompts"].items()}
        class_name = published["p1"][0]
        descriptions = [text.removeprefix(f"{class_name} which is ") for text in published["p7"]]
        assert cumulative(attributes_of(published), class_name, descriptions) == published


def test_the_form_of_the_published_ultrasound_list():
    rows = json.loads((shared("annotations") / "medvlsm/busi/test.json").read_text())
    seen = 0
    for row in rows:
        if "normal" in row["img_name"]:
            continue
        published = {level: [text.replace("the breast image.", "the breast ultrasound image.")  # a slip in one row
                             for text in ([texts] if isinstance(texts, str) else texts)]
                     for level, texts in row["prompts"].items()}
        before, after = published["p6"][0].lower().split(" at the ")
        words, place = before.removesuffix("s").removesuffix(" tumor").split(), after.split(" in the ")[0]
        attributes = {"number": words[0], "size": " ".join(words[1:-2]), "shape": words[-2].removesuffix("-shaped"),
                      "type": words[-1], "location": place}
        assert breast_ultrasound(attributes, "tumor") == published
        seen += 1
    assert seen > 60
