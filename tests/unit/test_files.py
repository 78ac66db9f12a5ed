"""Writing beside and renaming: whole, or not at all."""

import errno
import os

import pytest

from featherseg.errors import UserError
from featherseg.files import atomic_path, not_run_reason, read_json, read_object, write_json, write_not_run


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_path(target) as partial:
        partial.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole" and os.listdir(target.parent) == ["a.txt"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_error_leaves_what_was_there_and_nothing_beside(tmp_path, kind):
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as partial:
        if kind == "folder":
            partial.mkdir()
            partial = partial / "x"
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_a_folder_replaces_the_old_one(tmp_path):
    target = tmp_path / "a"
    target.mkdir()
    (target / "old").write_text("")
    with atomic_path(target) as partial:
        partial.mkdir()
        (partial / "new").write_text("")
    assert os.listdir(target) == ["new"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"a\.txt could not be written: No space left") as error:
        with atomic_path(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="file/a.txt could not be written"), atomic_path(tmp_path / "file/a.txt"):
        raise AssertionError("there is no place to write to")


def test_an_error_about_another_file_is_not_blamed_on_the_target(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_path(tmp_path / "a.txt"):
        open(tmp_path / "elsewhere")


def test_json_that_is_cut_names_file_and_line(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"key": [1, 2]})
    path.write_text(path.read_text()[:-4])
    with pytest.raises(UserError, match=r"a\.json is not valid JSON.*line"):
        read_json(path)


def test_a_row_that_was_not_made_has_its_reason_in_both_outputs(tmp_path):
    write_not_run(tmp_path / "train" / "run", "no archive", tmp_path / "info" / "run.json")
    assert not_run_reason(tmp_path / "train" / "run") == "no archive"
    assert read_json(tmp_path / "info" / "run.json") == {"not_run": "no archive"}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_no_word_for_is_not_written(tmp_path, number):
    path = tmp_path / "a.json"
    write_json(path, {"mean": None})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"mean": number})
    assert read_json(path) == {"mean": None} and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(("text", "fault"), [
    ("[" * 100_000, "nested too deep"), ("[1]", "holds a list instead of an object"), ("null", "holds null"),
    ('"x"', "holds a text"), ("{}", "lacks the key 'b'"), ('{"b": 1' + "0" * 5000 + "}", "not valid JSON"),
    ("\ufffd", "not valid JSON")])
def test_json_of_another_form_is_one_sentence(tmp_path, text, fault):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"a\.json.*{fault}") as error:
        read_object(path, "b")
    assert "\n" not in str(error.value)


def test_a_folder_in_place_of_a_json_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_json(tmp_path)


@pytest.mark.parametrize("status", [
    [], {"reason": None}, {"status": "ok"}, {"status": "fine", "reason": None}, {"status": "ok", "reason": "why"},
    {"status": "not_run", "reason": None}, {"status": "not_run", "reason": ""}, {"status": "not_run", "reason": 5}])
def test_a_status_that_says_neither_is_one_sentence(tmp_path, status):
    write_json(tmp_path / "status.json", status)
    with pytest.raises(UserError, match=r"status\.json (holds a list|lacks the key|says neither)"):
        not_run_reason(tmp_path)


def test_a_name_that_is_too_long_is_not_blamed_on_the_disk(tmp_path):
    with pytest.raises(UserError, match="File name too long; choose a shorter name"):
        write_json(tmp_path / ("x" * 260), {})
