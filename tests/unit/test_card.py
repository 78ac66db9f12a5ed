import json
import tracemalloc

import numpy as np
import pyarrow.parquet
import pytest
from data_files import box, everything_below
from PIL import Image

from featherseg.core.files import write_status
from featherseg.data.card import About, card_faults, summary, write_card
from featherseg.data.prepare import prepare_synthetic_set
from featherseg.data.prepared import PreparedWriter
from featherseg.models.towers.tokenizer import clip_token_ids

ABOUT = About("My set", "https://example.org", "CC0", "A. Author, 2020", ("Two images were left out.",))


def write(folder, images=3, targets=("heart", "left lung"), **sample):
    with PreparedWriter(folder, dataset="set") as writer:
        for number in range(images):
            writer.add_image(f"image{number}", np.full((40, 80, 3), 120 + number, dtype=np.uint8))
            for target in targets:
                writer.add_sample(**{
                    "image_id": f"image{number}", "target": target,
                    "split": ("train", "val", "testB")[number % 3],
                    "mask": box(40, 80) if number else np.zeros((40, 80), dtype=bool),
                    "prompts": {"p0": "", "p1": f"{target} | of image {number}"}, **sample})
    return folder


def test_the_card_says_what_is_in_the_set(tmp_path):
    write_card(write(tmp_path / "set"), ABOUT)
    text = (tmp_path / "set/card.md").read_text()
    for line in ("# My set", "- Source: https://example.org", "- Licence: CC0", "- Citation: A. Author, 2020",
                 "- Masks: 6, 2 of them empty; median share of the image 0.9%", "- Two images were left out.",
                 "| target | train | val | testB | all |", "| heart | 1 | 1 | 1 | 3 |",
                 "| (images) | 1 | 1 | 1 | 3 |", "| p1 | 6 | 6 | heart \\| of image 0 |",
                 "| p0 | 6 | 1 | (empty) |"):
        assert line in text.splitlines(), line
    assert "most common 80x40 (3)" in text and "contact_sheet.png" in text


def test_equal_data_have_equal_cards(tmp_path):
    files = []
    for name in ("a", "b"):
        write_card(write(tmp_path / name), ABOUT)
        files.append([(tmp_path / name / file).read_bytes() for file in ("card.md", "contact_sheet.png")])
    assert files[0] == files[1]


def test_the_sheet_outlines_each_target_in_its_colour(tmp_path):
    mask = box(40, 80, slice(10, 30), slice(20, 60))
    write_card(write(tmp_path / "set", targets=("heart",), mask=mask), ABOUT)
    sheet = np.asarray(Image.open(tmp_path / "set/contact_sheet.png"))
    red = (sheet == (0xE6, 0x19, 0x4B)).all(axis=2)
    tile = red[12:12 + 256, 12:12 + 256]
    rows, columns = np.flatnonzero(tile.any(axis=1)), np.flatnonzero(tile.any(axis=0))
    assert [columns[0], columns[-1] + 1] == pytest.approx([64, 192], abs=2)
    assert [rows[0], rows[-1] + 1] == pytest.approx([64 + 32, 64 + 96], abs=2)
    assert not tile[128, 100:150].any()


@pytest.mark.parametrize(("prompt", "targets"), [
    ("поліп " * 500, ["x"]), ("", ["x"]), ("short", [f"target {number}" for number in range(11)]),
])
def test_any_prompt_and_number_of_targets_has_a_card(tmp_path, prompt, targets):
    write_card(write(tmp_path / "set", targets=targets, prompts={"p1": prompt}), ABOUT)
    text = (tmp_path / "set/card.md").read_text()
    assert ("| 3 more | 3 | 3 | 3 | 9 |" in text) == (len(targets) > 8)
    assert Image.open(tmp_path / "set/contact_sheet.png").size[1] < 700


def test_many_images_are_twelve_on_the_sheet(tmp_path):
    write_card(write(tmp_path / "set", images=30, targets=("x",)), ABOUT)
    assert Image.open(tmp_path / "set/contact_sheet.png").size[0] == 4 * 268 + 12


def test_samples_are_counted_without_being_held(tmp_path):
    """Six thousand samples with 5 kB of text each, of which no two are equal; most of it is space, which costs no
    token."""
    folder = write(tmp_path / "set", images=1, targets=("x",))
    file = folder / "samples.parquet"
    row = pyarrow.parquet.read_table(file).to_pylist()[0]
    with pyarrow.parquet.ParquetWriter(file, pyarrow.parquet.read_schema(file)) as table:
        for first in range(0, 6000, 1000):
            rows = [row | {"sample_id": f"set/{k}", "image": f"images/{k // 10}.png",
                           "prompts": json.dumps({"p1": [f"{k:05}{' ' * 4990}{k:05}"]})}
                    for k in range(first, first + 1000)]
            table.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema))
    for k in range(600):
        (folder / f"images/{k}.png").hardlink_to(folder / row["image"])
    clip_token_ids(["the vocabulary is held once"])
    tracemalloc.start()
    write_card(folder, ABOUT)
    line = summary(folder, "set")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line == "set: 6000 samples of 600 images (train 6000); 6000 masks are empty"
    assert "| p1 | 6000 | 6000 | 00000" in (folder / "card.md").read_text()
    assert peak < 18e6


def test_one_line_for_data_that_was_not_to_be_had(tmp_path):
    write_status(tmp_path / "set", "by request")
    assert summary(tmp_path / "set", "set") == "set: not run: by request"


def test_one_line_for_the_terminal(tmp_path):
    folder = write(tmp_path / "set")
    write_card(folder, ABOUT)
    line = summary(folder, "set")
    assert line == "set: 6 samples of 3 images (train 2, val 2, testB 2); 2 masks are empty"


def test_a_synthetic_set_has_a_card(tmp_path):
    prepare_synthetic_set("scenes", 4, 64, 0, tmp_path / "scenes")
    assert everything_below(tmp_path)[:3] == ["scenes", "scenes/card.md", "scenes/contact_sheet.png"]
    assert "synthetic stand-in" in (tmp_path / "scenes/card.md").read_text()
    assert "| unique |" in (tmp_path / "scenes/card.md").read_text()


def test_a_card_as_it_was_written_has_no_fault(tmp_path):
    folder = write(tmp_path / "set")
    assert card_faults(folder) == [f"{folder}/card.md does not exist; run the prepare stage again."]
    write_card(folder, ABOUT)
    assert card_faults(folder) == []
    (folder / "contact_sheet.png").unlink()
    assert card_faults(folder) == [f"{folder}/contact_sheet.png does not exist; run the prepare stage again."]


@pytest.mark.parametrize(("old", "new", "said"), [
    ("- Source: https://example.org", "- Source: ", "names no source"),
    ("- Licence: CC0\n", "", "names no licence"),
    ("- Masks: 6,", "- Masks: 7,", "other figures than the samples (it lacks '- Masks: 6, 2 of them empty"),
    ("| heart | 1 | 1 | 1 | 3 |", "| heart | 1 | 2 | 1 | 4 |", "it lacks '| heart | 1 | 1 | 1 | 3 |'"),
])
def test_a_card_of_other_data_is_told(tmp_path, old, new, said):
    folder = write(tmp_path / "set")
    write_card(folder, ABOUT)
    text = (folder / "card.md").read_text()
    assert old in text
    (folder / "card.md").write_text(text.replace(old, new))
    [fault] = card_faults(folder)
    assert said in fault and fault.startswith(f"{folder}/card.md")


def test_a_dataset_that_is_not_to_be_had_needs_no_card(tmp_path):
    (tmp_path / "set").mkdir()
    write_status(tmp_path / "set", "no archive")
    assert card_faults(tmp_path / "set") == []


def test_a_caption_that_is_cut_fits_its_tile(tmp_path):
    from featherseg.core.glyphs import Lettering
    from featherseg.data.card import _FONT_SIZE, _SIDE, _caption
    from featherseg.data.prepared import PreparedDataset

    font = Lettering(_FONT_SIZE)
    for letters in range(1, 13):
        prompts = {"p1": " ".join(["a" * letters] * 60)}
        dataset = PreparedDataset.read(write(tmp_path / f"{letters}", images=1, targets=("x",), prompts=prompts))
        lines = [line for line, _ in _caption(dataset.samples[0], "#000000", font)]
        assert len(lines) == 2 and all(font.length(line) <= _SIDE for line in lines), lines


def test_lengths_of_prompts_are_given_in_tokens(tmp_path):
    """A word of the vocabulary is one token; start and end are two more."""
    levels = {f"p{level}": " ".join(["disc"] * words) for level, words in enumerate((0, 3, 16, 21, 40, 80))}
    write_card(write(tmp_path / "set", prompts=levels), ABOUT)
    lines = (tmp_path / "set/card.md").read_text().splitlines()
    assert any(line.startswith("Lengths in CLIP's tokens, start and end included: median 20, 95 % at most 82; of 6 "
                               "different prompts 4 more than 17, 3 more than 22, 2 more than 32, 1 more than 77.")
               for line in lines)
