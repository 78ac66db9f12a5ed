"""Writing beside and renaming: whole, or not at all."""

import errno
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from featherseg.config import read_yaml
from featherseg.core.errors import UserError
from featherseg.core.files import (
    atomic_path,
    check_name,
    check_run_name,
    explained,
    not_run_reason,
    open_file,
    open_text,
    read_bytes,
    read_json,
    read_object,
    read_text,
    sha256_file,
    write_json,
    write_not_run,
)

READERS = (open_file, open_text, read_bytes, read_text, read_json, read_yaml, sha256_file)


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
    with pytest.raises(UserError, match="elsewhere: No such file"), atomic_path(tmp_path / "a.txt"):
        open(tmp_path / "elsewhere")


def test_an_error_of_no_file_is_not_blamed_on_the_target(tmp_path):
    with pytest.raises(ConnectionResetError), atomic_path(tmp_path / "a.txt"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_every_error_of_the_system_is_one_sentence_with_what_to_do(tmp_path, monkeypatch, number):
    def fail(source, target):
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match=rf"a could not be written: {os.strerror(number)}; .*\.$") as error:
        write_json(tmp_path / "a", {})
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_is_removed_by_the_next_and_nothing_else_is(tmp_path):
    script = ("import os, sys; from featherseg.core.files import atomic_path\n"
              "with atomic_path(sys.argv[1]) as partial:\n"
              "    partial.mkdir(); (partial / 'half').write_text('x'); os._exit(9)")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", script, tmp_path / "a"], env=environment).returncode == 9
        assert len(os.listdir(tmp_path)) == 1
    (tmp_path / ".a.12345678.partial").write_text("a file of a killed writer")
    others = [".b.12345678.partial", ".a.b.12345678.partial", ".a.123.partial"]
    for name in others:
        (tmp_path / name).mkdir()
    with atomic_path(tmp_path / "a") as partial:
        partial.mkdir()
    assert sorted(os.listdir(tmp_path)) == sorted(["a", *others])


def _write_slowly(target: Path, begun: "multiprocessing.Event", go_on: "multiprocessing.Event") -> None:
    with atomic_path(target) as partial:
        partial.mkdir()
        (partial / "first").write_text("1")
        begun.set()
        go_on.wait(30)
        (partial / "second").write_text("2")


def test_two_living_writers_do_not_disturb_one_another(tmp_path):
    context = multiprocessing.get_context("fork")
    begun, go_on = context.Event(), context.Event()
    other = context.Process(target=_write_slowly, args=(tmp_path / "a", begun, go_on))
    other.start()
    assert begun.wait(30)
    with atomic_path(tmp_path / "a") as partial:
        partial.mkdir()
        (partial / "own").write_text("")
    assert os.listdir(tmp_path / "a") == ["own"]
    go_on.set()
    other.join()
    assert other.exitcode == 0 and os.listdir(tmp_path) == ["a"]
    assert sorted(os.listdir(tmp_path / "a")) == ["first", "second"]


def test_a_folder_that_another_writer_puts_there_meanwhile_is_replaced(tmp_path, monkeypatch):
    target, rename = tmp_path / "a", os.rename
    (target / "old").mkdir(parents=True)

    def rename_slowly(source, place):
        rename(source, place)
        if source == target and not (tmp_path / "been").exists():
            (tmp_path / "been").touch()
            (target / "quicker").mkdir(parents=True)

    monkeypatch.setattr(os, "rename", rename_slowly)
    with atomic_path(target) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert os.listdir(target) == ["new"] and sorted(os.listdir(tmp_path)) == ["a", "been"]


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x").touch()
    (tmp_path / "a").symlink_to("kept")
    with atomic_path(tmp_path / "a") as partial:
        partial.mkdir()
    assert not (tmp_path / "a").is_symlink() and os.listdir(tmp_path / "kept") == ["x"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_everything_is_on_the_disk_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch, kind):
    steps, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: steps.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(os, "sync", lambda: steps.append("everything"))
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("renamed"), replace(*paths)))
    with atomic_path(tmp_path / "a") as partial:
        if kind == "folder":
            (partial / "deeper").mkdir(parents=True)
            (partial / "deeper" / "x").write_text("")
            (partial / "link").symlink_to("nowhere")
        else:
            partial.write_text("")
    renamed = steps.index("renamed")
    assert [Path(step).name for step in steps[:renamed]] == ["everything" if kind == "folder" else "a"]
    assert steps[renamed + 1:] == [str(tmp_path)]


# ---------------------------------------------------------------- one way in


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", [
    "absent", "below a file", "folder", "pipe", "socket", "device", "loop", "null", "long"])
def test_what_is_no_file_is_one_sentence_and_never_waited_for(tmp_path, reader, kind):
    path = tmp_path / "a.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(path))
    elif kind == "device":
        path = Path("/dev/null")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "below a file":
        path.touch()
        path = path / "b"
    elif kind == "null":
        path = tmp_path / "a\0b"
    elif kind == "long":
        path = tmp_path / ("x" * 300)
    with pytest.raises(UserError, match=r"(does not exist|cannot be read: [^;]*)") as error:
        reader(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_permission_is_one_sentence(tmp_path, monkeypatch, reader):
    def refuse(path, flags):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"a\.json cannot be read: Permission denied"):
        reader(tmp_path / "a.json")


def test_a_file_longer_than_it_may_be_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", limit=5) == b"12345"
    with pytest.raises(UserError, match="a has more than the 0 MB"):
        read_bytes(tmp_path / "a", limit=4)


@pytest.mark.parametrize("reader", [read_text, read_json, read_yaml])
def test_bytes_that_are_no_text_are_one_sentence(tmp_path, reader):
    (tmp_path / "a").write_bytes(b"abc: \xff")
    with pytest.raises(UserError, match=r"a is not text in UTF-8 \(byte 5\)"):
        reader(tmp_path / "a")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["a", "clipseg-vlsm_dense-vlc", "set.v1", "0", "_x", "x" * 100])
def test_names_that_are_good(name):
    assert check_name("dataset", name) == name


@pytest.mark.parametrize("name", [
    "", "-x", "--help", ".", "..", ".x", "a/b", "../a", "a b", "x;touch PWNED;", "$(id)", "`id`", "a|b", "a&b", "a\nb",
    "a\n", "a\0b", "ü", "a\u202eb", "x" * 101, "x" * 5000, "a'b", 'a"b', "*", "~", "{a,b}", "a\\b", "C:"])
def test_names_that_a_path_or_a_shell_would_misread(name):
    with pytest.raises(UserError, match="^recipe .*: a name consists of letters from A to Z") as error:
        check_name("recipe", name)
    assert str(error.value).isprintable() and len(str(error.value)) < 250


def test_a_run_of_the_longest_names_can_be_planned(tmp_path):
    run = check_run_name(f"{'x' * 100}-{'y' * 100}-{2**32 - 1}")
    write_json(tmp_path / f"{run}.evaluate.yaml", {})
    assert stat.S_ISREG(os.stat(tmp_path / f"{run}.evaluate.yaml").st_mode)


def test_an_error_that_names_no_file_is_explained_too():
    assert explained(OSError(errno.ENOSPC, "No space left on device"), "printing") == (
        "printing: No space left on device; free space, then run the command again.")


# ---------------------------------------------------------------- JSON and statuses


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
    ("[" * 100_000, "nested too deep"), ('{"a": ' * 900 + "1" + "}" * 900, "nested too deep"),
    ("[" * 900 + "]" * 900, "nested too deep"), ("[1]", "holds a list instead of an object"), ("null", "holds null"),
    ('"x"', "holds a text"), ("{}", "lacks the key 'b'"), ('{"b": 1' + "0" * 5000 + "}", "not valid JSON"),
    ("\ufffd", "not valid JSON")])
def test_json_of_another_form_is_one_sentence(tmp_path, text, fault):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"a\.json.*{fault}") as error:
        read_object(path, "b")
    assert "\n" not in str(error.value)


def test_a_folder_in_place_of_a_json_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read: it is a folder"):
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
