"""What a prepared dataset says of itself: leaks, prompts alike, targets that vanish."""

import numpy as np
import pytest
from data_files import box, save
from PIL import Image

from featherseg.config import PoolParams
from featherseg.data.card import About, card_faults, summary, write_card
from featherseg.data.facts import INPUT_SIZES, folded, read_facts, resized, write_facts
from featherseg.data.folder.own_folder import check_folder, folder_leaks, prepare_folder
from featherseg.data.pool import pool_dataset
from featherseg.data.prepared import PreparedWriter
from featherseg.data.transforms import Squash

ABOUT = About("set", "drawn for a test", "none")


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)


def prepared(folder, *rows: dict):
    """Each row may name `picture` (its seed), `target`, `mask`, and what else `add_sample` takes."""
    with PreparedWriter(folder, dataset=folder.name) as writer:
        added = set()
        for number, row in enumerate(rows):
            row = {"image_id": f"{number}", "target": "heart", "mask": box(), "split": "train"} | row
            picture = row.pop("picture", number)
            if row["image_id"] not in added:
                writer.add_image(row["image_id"], noise(picture))
                added.add(row["image_id"])
            writer.add_sample(**row)
    return folder


def test_a_picture_in_two_splits_is_counted_once_a_pair_of_splits(tmp_path):
    folder = prepared(tmp_path / "set", {"picture": 1}, {"picture": 1, "split": "test"}, {"picture": 2},
                      {"picture": 2}, {"picture": 3, "split": "val"}, {"picture": 3, "split": "unnamed"})
    facts = write_facts(folder)
    assert facts.pictures == {"train and test": 1} and facts.groups == {}
    assert read_facts(folder) == facts


def test_a_group_in_two_splits_is_counted(tmp_path):
    facts = write_facts(prepared(
        tmp_path / "set", {"group": "p"}, {"group": "p", "split": "val"}, {"group": "q"}, {"group": "q"},
        {"group": "r", "split": "val"}, {"group": "r", "split": "test"}, {"group": "r"}))
    assert facts.groups == {"train and val": 1, "train and val and test": 1} and facts.pictures == {}


def test_targets_of_one_image_in_two_splits_are_one_leak_and_not_two(tmp_path):
    rows = [{"image_id": "x", "picture": 0, "target": target, "split": split}
            for target, split in (("a", "train"), ("b", "test"))]
    facts = write_facts(prepared(tmp_path / "set", *rows))
    assert facts.pictures == {"train and test": 1} and facts.groups == {}


@pytest.mark.parametrize("suffix", ["bmp", "png", "tif", "webp"])
def test_equal_pixels_in_another_format_are_one_picture(tmp_path, suffix):
    for number in range(4):
        save(tmp_path / f"mine/images/{number}.png", noise(number))
        save(tmp_path / f"mine/masks/{number}.png", box())
    Image.fromarray(noise(0)).save(tmp_path / f"mine/images/copy.{suffix}", **({"lossless": True} if suffix == "webp"
                                                                              else {}))
    save(tmp_path / "mine/masks/copy.png", box())
    (tmp_path / "mine/list.csv").write_text(
        f"image,split\n0.png,train\n1.png,train\n2.png,val\n3.png,test\ncopy.{suffix},test\n")
    prepare_folder("mine", tmp_path / "mine", tmp_path / "out")
    assert read_facts(tmp_path / "out").pictures == {"train and test": 1}
    assert check_folder(tmp_path / "mine") == []
    [sentence] = folder_leaks(tmp_path / "mine")
    assert sentence.startswith("1 picture in several splits (train and test: 1)")


def test_card_and_summary_report_leaks_and_check_compares_them(tmp_path):
    folder = prepared(tmp_path / "set", {"picture": 1, "group": "p"}, {"picture": 1, "split": "test", "group": "p"})
    write_card(folder, ABOUT)
    card = (folder / "card.md").read_text()
    for kind in ("picture", "group (patient)"):
        sentence = f"1 {kind} in several splits (train and test: 1), which makes scores too high."
        assert f"- {sentence}" in card.splitlines()
        assert sentence.removesuffix(".") in summary(folder, "set")
    assert "\n" not in summary(folder, "set")
    assert card_faults(folder) == []
    (folder / "card.md").write_text(card.replace("train and test: 1", "train and test: 0"))
    assert "other figures" in card_faults(folder)[0]


def test_a_set_without_leaks_says_so(tmp_path):
    folder = prepared(tmp_path / "set", {}, {"split": "test"})
    write_card(folder, ABOUT)
    assert "- No picture and no group (patient) is in several splits." in (folder / "card.md").read_text()
    assert "several" not in summary(folder, "set")


def test_a_pool_has_the_leaks_between_its_members(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/processed").mkdir(parents=True)
    for name, splits in (("left", ("train", "val")), ("right", ("test",))):
        folder = prepared(tmp_path / "data/processed" / name,
                          *({"picture": number, "split": split} for number, split in enumerate(splits)))
        write_card(folder, ABOUT)
        assert read_facts(folder).pictures == {}
    pool_dataset("both", {"both": PoolParams(train=["left"], test=["right"])})
    assert read_facts("data/processed/both").pictures == {"train and test": 1}


def test_targets_of_one_image_with_one_prompt_are_counted_whatever_their_case_and_blanks(tmp_path):
    rows = [("x", "a", "Left  lung"), ("x", "b", "left lung "), ("x", "c", "right lung"), ("y", "a", "left lung")]
    facts = write_facts(prepared(tmp_path / "set", *(
        {"image_id": image, "picture": 0, "target": target, "prompts": {"p0": "", "p1": "lung", "p2": text}}
        for image, target, text in rows)))
    assert facts.alike == 2
    assert "2 samples share their fullest prompt with another target" in " ".join(facts.sentences())


def test_sentences_alike_are_found_at_any_place(tmp_path):
    texts = {"a": ["the big one", "left"], "b": ["Left", "the small one"], "c": ["the third"]}
    facts = write_facts(prepared(tmp_path / "set", *(
        {"image_id": "x", "picture": 0, "target": target, "prompts": {"p0": "", "sentences": sentences, "unique": "u"}}
        for target, sentences in texts.items())))
    assert facts.alike == 2


def test_prompts_are_folded_in_case_and_blanks_alone():
    assert folded(" Left\tLung ") == folded("left lung") != folded("leftlung")


def test_vanishing_targets_are_counted_by_input_size(tmp_path):
    dot, large, empty = (np.zeros((300, 400), bool) for _ in range(3))
    dot[1, 1] = True
    large[100:200, 100:200] = True
    with PreparedWriter(tmp_path / "set", dataset="set") as writer:
        writer.add_image("x", np.zeros((300, 400, 3), np.uint8))
        for target, mask in (("dot", dot), ("large", large), ("none", empty)):
            writer.add_sample(image_id="x", target=target, mask=mask, split="train")
    facts = write_facts(tmp_path / "set")
    assert facts.masks == 2
    assert facts.vanishing == {size: int(not Squash(size).mask(dot).any()) for size in INPUT_SIZES}
    assert facts.vanishing[64] == 1 and facts.vanishing[416] == 0
    assert "Of 2 masks that are not empty, resized to the model's input, 1 at 64 px" in " ".join(facts.sentences())


@pytest.mark.parametrize("shape", [(300, 400), (64, 64), (17, 1000), (1, 1)])
@pytest.mark.parametrize("size", [32, 64, 224])
def test_masks_are_resized_as_for_the_model(shape, size):
    mask = np.random.default_rng(0).random(shape) < 0.3
    assert (resized(mask, size) == Squash(size).mask(mask)).all()
