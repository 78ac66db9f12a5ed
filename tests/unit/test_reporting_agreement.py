"""Agreement of measured and published words, and the report of it."""

import csv

import numpy as np
import pytest

from featherseg.cli import main
from featherseg.core.errors import UserError
from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.data.prompts.wording import cumulative
from featherseg.papers.medvlsm.agreement import RELEASED, agreements, cohens_kappa
from featherseg.papers.medvlsm.agreement_page import write_agreement
from featherseg.reporting.index import write_index

RED = {"number": "one", "size": "small", "location": "left", "shape": "square", "colour": "red"}


def prepared(folder, name="mine", wide=False, **changed):
    """Twelve red squares of 20 px at the left of the image; the first four are published with other words."""
    height, width = (100, 200) if wide else (120, 120)
    with PreparedWriter(folder / name, dataset=name) as writer:
        for number in range(12):
            x = (16, 50, 83)[number % 3] * width // 100
            mask = np.zeros((height, width), bool)
            mask[height // 2 - 10:height // 2 + 10, x - 10:x + 10] = True
            image = np.full((height, width, 3), (60, 90, 60), np.uint8)
            image[mask] = (214, 32, 32)
            words = RED | {"location": ("left", "center", "right")[number % 3]} | (changed if number < 4 else {})
            if wide:  # as the released code places them: thirds of the height for the width
                words["location"] = "right" if x > 2 * height / 3 else "center" if x > height / 3 else "left"
            writer.add_image(f"{number:02}", image)
            writer.add_sample(image_id=f"{number:02}", target="thing", mask=mask, attributes=words,
                              split="test" if number < 9 else "train", prompts=cumulative(words, "thing"))
    return folder / name


def by_attribute(folder):
    return {one.attribute: one for one in agreements(PreparedDataset.read(folder))}


@pytest.mark.parametrize("first, second, kappa", [
    ("aabb", "aabb", 1), ("aabb", "bbaa", -1), ("aabb", "abab", 0), ("aaab", "aabb", 0.5)])
def test_kappa(first, second, kappa):
    assert cohens_kappa(first, second) == pytest.approx(kappa)


def test_kappa_is_undefined_where_there_is_one_word():
    assert np.isnan(cohens_kappa("aaa", "aaa"))


def test_equal_words_agree(tmp_path):
    found = by_attribute(prepared(tmp_path))
    assert {one.share for one in found.values()} == {1.0}
    assert found["location"].kappa == 1 and np.isnan(found["size"].kappa)
    assert found["location"].chance == pytest.approx(1 / 3) and len(found["size"].published) == 9


def test_other_words_do_not(tmp_path):
    found = by_attribute(prepared(tmp_path, size="large", shape="a mouth", colour="gray"))
    for attribute in ("size", "shape", "colour"):
        assert found[attribute].share == pytest.approx(5 / 9)
    assert "grey" in found["colour"].published and "a mouth" in found["shape"].published
    assert found["size"].kappa == 0 and found["size"].chance == pytest.approx(5 / 9)


def test_synonyms_agree(tmp_path):
    assert by_attribute(prepared(tmp_path, name="kvasir_seg", shape="square"))["shape"].share == 1
    skin = by_attribute(prepared(tmp_path, name="isic2016", shape="square"))["shape"]
    assert set(skin.published) == set(skin.measured) == {"square"}


def test_the_released_slip_is_found_by_its_own_rule(tmp_path):
    found = by_attribute(prepared(tmp_path, wide=True))
    assert found["location"].share < 0.7 and found[RELEASED].share == 1
    assert found["location"].note == "" and "narrower" not in found[RELEASED].note


def test_intervals_hold_the_figure(tmp_path):
    one = by_attribute(prepared(tmp_path, location="top"))["location"]
    low, high = one.interval()
    assert low < one.kappa < high and one.interval() == (low, high)


def test_the_command_writes_figures_counts_and_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folders = [str(prepared(tmp_path, size="large")), str(prepared(tmp_path, name="<other>"))]
    main(["agreement", "--data", *folders, "--out", "reports/prompt_engine"])
    assert "mine, size: agreement 0.556, kappa 0.000" in capsys.readouterr().out
    with open("reports/prompt_engine/agreement.csv") as file:
        lines = {(line["dataset"], line["attribute"]): line for line in csv.DictReader(file)}
    assert len(lines) == 12 and lines["mine", "size"]["agreement"] == "0.5556"
    with open("reports/prompt_engine/confusion.csv") as file:
        counts = {(line["dataset"], line["attribute"], line["published"], line["measured"]): int(line["samples"])
                  for line in csv.DictReader(file)}
    assert counts["mine", "size", "large", "small"] == 4 and counts["mine", "size", "small", "small"] == 5
    text = open("reports/prompt_engine/agreement.html").read()
    assert "&lt;other&gt;" in text and "<other>" not in text and "://" not in text and "<script" not in text
    before = text
    write_agreement([tmp_path / "mine", tmp_path / "<other>"], tmp_path / "reports/prompt_engine")
    assert open("reports/prompt_engine/agreement.html").read() == before
    index = write_index().read_text()
    assert '<a href="prompt_engine/agreement.html">Words of the prompt engine and published words</a>: How far' in index


def test_a_dataset_without_published_words_is_one_sentence(tmp_path):
    with PreparedWriter(tmp_path / "bare", dataset="bare") as writer:
        writer.add_image("a", np.zeros((20, 20, 3), np.uint8))
        writer.add_sample(image_id="a", target="thing", mask=np.ones((20, 20), bool), split="test")
    with pytest.raises(UserError, match="bare has no sample of the split 'test' with published attributes") as error:
        write_agreement([tmp_path / "bare"], tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
