"""Rows in files, folders that are filled once, and locks."""

import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest

from featherseg.core.caches import RowFile, RowWriter, cached_folder, key_of
from featherseg.core.errors import UserError
from featherseg.core.locks import exclusive


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))


def rows_on_disk(path: Path) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(7, 3, 2)).astype(np.float32)
    with RowWriter(path, 7, (3, 2), np.float32) as writer:
        writer.append(rows[:4])
        writer.append(rows[4:])
    return rows


def test_rows_are_read_in_the_asked_order(tmp_path):
    rows = rows_on_disk(tmp_path / "rows.npy")
    file = RowFile(tmp_path / "rows.npy")
    assert len(file) == 7
    assert np.array_equal(file.read([6, 0, 0, 3]), rows[[6, 0, 0, 3]])
    assert file.read([]).shape == (0, 3, 2)
    assert np.array_equal(np.load(tmp_path / "rows.npy"), rows)


@pytest.mark.parametrize("kept", [0, 20, 200])
def test_a_cut_file_is_refused(tmp_path, kept):
    path = tmp_path / "rows.npy"
    rows_on_disk(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="rows.npy is damaged.*delete the folder"):
        RowFile(path)


def test_a_folder_is_filled_once(tmp_path):
    calls = []

    def fill(folder: Path) -> None:
        calls.append(folder)
        (folder / "value").write_text("1")

    first, second = cached_folder("kind", "key", fill), cached_folder("kind", "key", fill)
    assert first == second == tmp_path / "cache/kind/key"
    assert (first / "value").read_text() == "1" and len(calls) == 1


def test_nothing_is_left_of_a_fill_that_failed_or_was_killed(tmp_path):
    leftover = tmp_path / "cache/kind/.key.12345678.partial"
    leftover.mkdir(parents=True)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise UserError("no")

    with pytest.raises(UserError):
        cached_folder("kind", "key", fail)
    assert [path.name for path in (tmp_path / "cache/kind").iterdir()] == ["key.lock"]


def _hold(path: Path, order: multiprocessing.SimpleQueue) -> None:
    with exclusive(path, "waiting"):
        order.put("first in")
        time.sleep(0.5)
        order.put("first out")


def test_the_second_waits_and_says_so(tmp_path, capfd):
    context = multiprocessing.get_context("fork")
    order = context.SimpleQueue()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", order))
    holder.start()
    assert order.get() == "first in"
    with exclusive(tmp_path / "lock", "another one is at it"):
        assert order.get() == "first out"
    holder.join()
    assert "another one is at it" in capfd.readouterr().err


def test_who_does_not_wait_is_told(tmp_path):
    context = multiprocessing.get_context("fork")
    order = context.SimpleQueue()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", order))
    holder.start()
    order.get()
    with pytest.raises(UserError, match="taken"), exclusive(tmp_path / "lock", "taken", wait=False):
        pass
    holder.join()


@pytest.mark.parametrize("place", [0, 37, -1])
def test_a_flipped_byte_is_an_error_where_it_is_read(tmp_path, place):
    path = tmp_path / "rows.npy"
    rows = np.arange(42, dtype=np.float32).reshape(7, 3, 2)
    with RowWriter(path, 7, (3, 2), np.float32) as writer:
        writer.append(rows[:4])
        writer.append(rows[4:])
    content = bytearray(path.read_bytes())
    start = len(content) - rows.nbytes
    place = place % rows.nbytes
    content[start + place] ^= 1
    path.write_bytes(content)
    file, damaged = RowFile(path), place // (rows.nbytes // 7)
    intact = [row for row in range(7) if row != damaged]
    np.testing.assert_array_equal(file.read(intact), rows[intact])
    with pytest.raises(UserError, match=f"row {damaged} has changed.*delete the folder"):
        file.read([intact[0], damaged])


@pytest.mark.parametrize("content", [None, b"", b"1234"], ids=["absent", "empty", "cut"])
def test_rows_without_their_sums_are_damaged(tmp_path, content):
    path = tmp_path / "rows.npy"
    with RowWriter(path, 2, (3,), np.uint8) as writer:
        writer.append(np.ones((2, 3)))
    sums = path.with_name("rows.npy.crc32")
    sums.unlink() if content is None else sums.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        RowFile(path)


def test_a_lock_goes_with_a_killed_process(tmp_path):
    context = multiprocessing.get_context("fork")
    order = context.SimpleQueue()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", order))
    holder.start()
    order.get()
    holder.kill()
    holder.join()
    with exclusive(tmp_path / "lock", "waiting"):
        assert order.empty()


def test_keys_follow_values():
    assert key_of(1, {"a": 2, "b": 3}) == key_of(1, {"b": 3, "a": 2}) != key_of(1, {"a": 2, "b": 4})


def test_a_cache_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot hold a lock: .*; set FEATHERSEG_CACHE"):
        with exclusive(tmp_path / "file" / "resume" / "lock", "taken"):
            raise AssertionError("there is no lock")
