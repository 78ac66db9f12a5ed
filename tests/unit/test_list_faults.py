"""Faults of published lists are found by reading them, and reported by `featherseg check`."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from data_files import shared, write_json

from featherseg.cli import main
from featherseg.config import read_yaml, write_yaml
from featherseg.core.errors import UserError
from featherseg.data.folder.list_faults import KINDS, downloaded_lists, list_faults, lists_of_medvlsm

ROOT = Path(__file__).parents[2]


def row(image: str, mask: str | None = None, p1: str = "polyp") -> dict:
    return {"img_name": image, "mask_name": mask or image, "prompts": {"p0": "", "p1": p1}}


def faults(tmp_path: Path, **datasets: dict[str, list]) -> list:
    for name, lists in datasets.items():
        for split, rows in lists.items():
            write_json(tmp_path / name / f"{split}.json", rows)
    return list_faults({name: tmp_path / name for name in datasets})


def test_lists_without_fault(tmp_path):
    assert faults(tmp_path, kvasir_seg={"train": [row("a.jpg")], "val": [row("b.jpg")], "test": [row("c.jpg")]}) == []


def test_rows_listed_twice_and_rows_of_two_splits(tmp_path):
    found = faults(tmp_path, bkai={
        "train": [row(name) for name in ("a", "a", "a", "b", "c", "d")], "val": [row("c")],
        "test": [row("b"), row("d")]})
    assert [(fault.kind, fault.count) for fault in found] == [
        ("row_listed_twice", 2), ("row_of_two_splits", 2), ("row_of_two_splits", 1)]
    assert found[0].sentence() == ("bkai, published lists: train.json has 2 rows twice (a, a); the first of them is "
                                   "used.")
    assert "test.json has 2 rows of train.json (b, d); they are used once" in found[1].sentence()
    assert "val.json has 1 row of train.json (c); they are kept in both." in found[2].sentence(keep=True)


def test_one_image_with_two_masks_is_no_row_listed_twice(tmp_path):
    assert faults(tmp_path, busi={"train": [row("a", "m1"), row("a", "m2")]}) == []


def test_lists_of_another_set(tmp_path):
    rows = {"test": [row("1.png"), row("2.png")], "val": []}
    [fault] = faults(tmp_path, cvc300=rows, colondb=rows)
    assert (fault.dataset, fault.kind, fault.count) == ("cvc300", "list_of_another_set", 2)
    assert "test.json is byte for byte that of colondb (2 rows)" in fault.found
    assert faults(tmp_path, cvc300={"test": [row("1.png")], "val": []}, colondb=rows) == []


def test_one_list_under_two_names(tmp_path):
    rows = [row("a"), row("b")]
    [fault] = faults(tmp_path, kvasir_seg={"test": rows, "testB": rows, "train": [], "val": []})
    assert (fault.kind, fault.count) == ("list_under_two_names", 2)
    assert faults(tmp_path, kvasir_seg={"test": rows, "testB": [row("a"), row("b", p1="other")]}) == []


def test_names_of_two_images(tmp_path):
    def camus(p1: str) -> list[dict]:
        return [row("patient0001_2CH_ED.png", f"mask_{number}/patient0001_2CH_ED_gt.png", p1) for number in (1, 2)]

    [fault] = faults(tmp_path, camus={"val": camus("of a male"), "test": camus("of a female")})
    assert (fault.kind, fault.count) == ("name_of_two_images", 1)
    assert "share 1 image names, which are different images of two folders: the prompts of 1 differ" in fault.found


def test_rows_with_nothing_to_find(tmp_path):
    [fault] = faults(tmp_path, busi={"train": [row("1_normal.png", p1="No tumor here."), *(
        row(f"{number}_benign.png", p1="Tumor.") for number in range(3))]})
    assert (fault.kind, fault.count) == ("nothing_to_find", 1)
    assert "1 of 4 rows say that there is nothing to find, so 25% of a mean score" in fault.found


def test_training_rows_of_a_set_for_testing(tmp_path):
    [fault] = faults(tmp_path, etis={"train": [row("1.png")], "test": [row("2.png")]})
    assert (fault.kind, fault.count) == ("training_rows_of_a_test_set", 1)
    assert fault.sentence().endswith("they are scored too.") and fault.sentence(True).endswith("they keep their split.")


def test_a_list_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="train.json, row 0: mask_name is missing"):
        faults(tmp_path, bkai={"train": [{"img_name": "a"}]})


def test_the_published_lists_have_the_faults_that_are_known():
    found = list_faults(lists_of_medvlsm(shared("annotations") / "medvlsm"))
    assert Counter((fault.dataset, fault.kind, fault.count) for fault in found) == Counter([
        ("bkai", "row_listed_twice", 1), ("bkai", "row_of_two_splits", 1), ("bkai", "row_of_two_splits", 2),
        ("busi", "nothing_to_find", 133), ("camus", "name_of_two_images", 200),
        ("colondb", "training_rows_of_a_test_set", 20),
        ("cvc300", "list_of_another_set", 360), ("cvc300", "list_of_another_set", 20),
        ("etis", "list_under_two_names", 176), ("etis", "training_rows_of_a_test_set", 20),
        ("isic2016", "row_listed_twice", 1), ("isic2016", "row_of_two_splits", 3),
        ("kvasir_seg", "list_under_two_names", 100)])
    assert {fault.kind for fault in found} == set(KINDS)


def test_check_reports_them_and_finds_nothing_wrong(tmp_path, monkeypatch, capsys):
    for folder in ("recipes", "pipelines"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("weights"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "data/raw/bkai/anns/train.json", [row("a"), row("a")])
    (tmp_path / "data/raw/camus").mkdir()
    assert set(downloaded_lists()) == {"bkai"}
    monkeypatch.setattr("featherseg.check.check_project", lambda *_: [])
    main(["check"])
    assert capsys.readouterr().out == (
        "nothing wrong found\n"
        "note: bkai, published lists: train.json has 1 row twice (a); the first of them is used.\n")
    params = read_yaml("params.yaml")
    params["data"]["keep_published_faults"] = True
    write_yaml("params.yaml", params)
    main(["check"])
    assert "has 1 row twice (a); all are kept.\n" in capsys.readouterr().out
    main(["check", "--params-only"])
    assert capsys.readouterr().out == "nothing wrong found\n"
