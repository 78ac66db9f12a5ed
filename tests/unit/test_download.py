import hashlib
import io
import multiprocessing
import os
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from archive_server import running
from data_files import everything_below, full_disk, write_zip

from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, read_json
from featherseg.data.raw import extract as extract_module
from featherseg.data.raw.checksums import Checksums
from featherseg.data.raw.download import download, download_dataset
from featherseg.data.raw.extract import extract
from featherseg.data.raw.fetch import Unreachable
from featherseg.data.raw.fetch import fetch as fetch_now
from featherseg.data.raw.spec import DatasetSpec, Resource
from featherseg.data.raw.specs import SPECS

CONTENT = bytes(os.urandom(50_000))
KEY = "toy/toy.zip"


@pytest.fixture
def server():
    with running() as server:
        server.files["file"] = CONTENT
        yield server


def fetch(server, folder, **options):
    fetch_now(server.url("file"), folder / "file", pause=0, **{"attempts": 2, **options})
    return (folder / "file").read_bytes()


# ---------------------------------------------------------------- one file


def test_a_cut_costs_only_the_rest(server, tmp_path):
    server.cut_after = [12_000, 9_000]
    assert fetch(server, tmp_path) == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=12000-", "bytes=21000-"]
    assert everything_below(tmp_path) == ["file"]


def test_a_partial_download_outlives_its_process(server, tmp_path):
    server.cut_after = [12_000, 0, 0, 0]
    with pytest.raises(Unreachable, match="cut after 12000 of 50000 bytes"):
        fetch(server, tmp_path)
    assert everything_below(tmp_path) == ["file.part", "file.part.json"]
    server.cut_after.clear()
    server.requests.clear()
    assert fetch(server, tmp_path) == CONTENT
    assert server.requests == [("file", "bytes=12000-")]


def test_two_versions_are_never_joined(server, tmp_path):
    server.cut_after = [12_000, 0, 0, 0]
    with pytest.raises(Unreachable):
        fetch(server, tmp_path)
    server.cut_after.clear()
    server.etag, server.files["file"] = '"v2"', CONTENT[::-1]
    assert fetch(server, tmp_path) == CONTENT[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_a_download_starts_over(server, tmp_path, etag):
    server.etag, server.cut_after = etag, [12_000]
    assert fetch(server, tmp_path) == CONTENT
    assert [asked for _, asked in server.requests] == [None, None]


def test_last_modified_is_a_version_too(server, tmp_path):
    server.etag, server.last_modified = None, "Sat, 01 Jan 2022 00:00:00 GMT"
    server.cut_after = [12_000]
    assert fetch(server, tmp_path) == CONTENT
    assert server.requests[-1] == ("file", "bytes=12000-")


def test_a_server_without_ranges_is_asked_for_all_of_it(server, tmp_path):
    server.ranges, server.cut_after = False, [12_000]
    assert fetch(server, tmp_path) == CONTENT


def test_a_server_that_always_cuts_at_the_same_byte_is_given_up(server, tmp_path):
    server.ranges, server.cut_after = False, [12_000] * 50
    with pytest.raises(Unreachable, match="cut after"):
        fetch(server, tmp_path, attempts=3)
    assert len(server.requests) == 4


def test_a_wrong_range_is_not_appended(server, tmp_path):
    server.wrong_range, server.cut_after = True, [12_000]
    assert fetch(server, tmp_path) == CONTENT


def test_a_complete_part_is_not_asked_for_beyond_its_end(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    (tmp_path / "file.part.json").write_text('{"version": "\\"v1\\""}')
    assert fetch(server, tmp_path) == CONTENT


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(server, tmp_path):
    server.files["file"], server.pause = CONTENT[:5000], 0.1
    assert fetch(server, tmp_path, timeout=0.35) == CONTENT[:5000]
    (tmp_path / "file").unlink()
    server.pause, server.cut_after = 0.8, [0]
    with pytest.raises(Unreachable, match="cut|timed out"):
        fetch(server, tmp_path, timeout=0.2, attempts=1)
    server.piece, server.cut_after = 1, []
    with pytest.raises(Unreachable, match="sent [0-9] bytes in 0 seconds, which is too slow"):
        fetch(server, tmp_path, timeout=0.1, patience=0.25)


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    server.errors = [503, 429]
    assert fetch(server, tmp_path, attempts=3) == CONTENT
    server.errors, before = [404], len(server.requests)
    with pytest.raises(Unreachable, match="404"):
        fetch(server, tmp_path, attempts=3)
    assert len(server.requests) == before + 1


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(server, tmp_path):
    server.pause, server.piece = 0.02, 1
    with pytest.raises(Unreachable, match="bytes in 0 seconds, which is too slow"):
        fetch(server, tmp_path, patience=0.2)
    assert 0 < (tmp_path / "file.part").stat().st_size < 100


def test_a_server_that_never_ends_its_headers_is_given_up(server, tmp_path):
    server.slow_head = 0.05
    with pytest.raises(Unreachable, match="took more than 0 seconds to answer"):
        fetch(server, tmp_path, patience=0.3, attempts=1)


@pytest.mark.parametrize("length", ["abc", "-1", "1e3", "0x10"])
def test_a_length_that_is_none_is_a_cause_like_any_other(server, tmp_path, length):
    server.length = length
    with pytest.raises(Unreachable, match="a length that is no number of bytes"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("length", ["9" * 18, "9" * 40])
def test_a_length_that_no_disk_has_is_refused_before_a_byte_is_kept(server, tmp_path, length):
    server.length = length
    with pytest.raises(UserError, match="file needs .* GB but .* GB left"):
        fetch(server, tmp_path)
    assert everything_below(tmp_path) == []


def test_a_file_of_unknown_length_is_whole_but_not_without_end(server, tmp_path, monkeypatch):
    server.length = ""
    assert fetch(server, tmp_path) == CONTENT
    monkeypatch.setattr("featherseg.data.raw.fetch.LARGEST", 20_000)
    with pytest.raises(Unreachable, match="sends more than"):
        fetch(server, tmp_path)


def test_what_comes_behind_the_announced_bytes_is_not_kept(server, tmp_path):
    server.more = b"more" * 1000
    assert fetch(server, tmp_path) == CONTENT


def test_a_redirection_is_followed_and_a_circle_is_not(server, tmp_path):
    server.files["real"] = CONTENT
    server.redirects = {"file": "/other", "other": server.url("real")}
    assert fetch(server, tmp_path) == CONTENT
    server.redirects = {"file": "/other", "other": "/file"}
    with pytest.raises(Unreachable, match="redirects more than 5 times"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("target", ["http://example.org/file", "ftp://example.org/x", "file:///etc/passwd", "http://\x1b"])
def test_a_redirection_to_where_anybody_can_listen_is_not_followed(server, tmp_path, target):
    server.redirects = {"file": target}
    with pytest.raises(Unreachable, match="redirects to .*, which is not encrypted") as error:
        fetch(server, tmp_path)
    assert str(error.value).isprintable()


def test_a_reason_phrase_cannot_steer_the_terminal(server, tmp_path):
    server.errors, server.reason = [404], "\x1b[2J<script>\x85" + "x" * 5000
    with pytest.raises(Unreachable) as error:
        fetch(server, tmp_path)
    assert str(error.value).isprintable() and len(str(error.value)) < 200


def test_progress_is_printed_also_where_there_is_no_terminal_and_the_clock_stands_still(
        server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("time.time", lambda: 1e9)
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    assert fetch(server, tmp_path) == CONTENT
    assert "downloading file: 50.0k/50.0k" in capsys.readouterr().err


def test_a_cache_folder_that_cannot_be_made_is_one_sentence(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the folder .*file/below cannot be made"):
        fetch_now(server.url("file"), tmp_path / "file/below/x")
    (tmp_path / "x.part").mkdir()
    with pytest.raises(UserError, match="x.part could not be written: Is a directory"):
        fetch_now(server.url("file"), tmp_path / "x")


def test_a_full_disk_keeps_what_has_arrived(server, tmp_path):
    with pytest.raises(UserError, match="file.part could not be written.*goes on where it stopped"), \
            full_disk(20_000):
        fetch(server, tmp_path)
    server.requests.clear()
    assert fetch(server, tmp_path) == CONTENT
    assert server.requests == [("file", "bytes=20000-")]


# ---------------------------------------------------------------- one archive


def tar_of(path, *members):
    with tarfile.open(path, "w:gz") as file:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            info.linkname = "/etc/passwd"
            file.addfile(info, io.BytesIO(content))
    return path


def zip_with_link(path):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, "/etc/passwd")
    return path


@pytest.mark.parametrize(("make", "fault"), [
    (lambda path: write_zip(path, {"a": "x", "../evil": "x"}), r"'\.\./evil' would land outside"),
    (lambda path: write_zip(path, {"a": "x", "b/../../evil": "x"}), "would land outside"),
    (lambda path: write_zip(path, {"a": "x", "..\\evil": "x"}), "would land outside"),
    (lambda path: write_zip(path, {"a": "x", "/tmp/evil": "x"}), "would land outside"),
    (lambda path: write_zip(path, {"a": "x", "C:/evil": "x"}), "would land outside"),
    (lambda path: tar_of(path, ("a", tarfile.REGTYPE, b"x"), ("../evil", tarfile.REGTYPE, b"x")), "outside"),
    (lambda path: tar_of(path, ("a", tarfile.REGTYPE, b"x"), ("l", tarfile.SYMTYPE, b"")), "'l' is a link"),
    (lambda path: tar_of(path, ("a", tarfile.REGTYPE, b"x"), ("l", tarfile.LNKTYPE, b"")), "'l' is a link"),
    (lambda path: tar_of(path, ("a", tarfile.REGTYPE, b"x"), ("l", tarfile.FIFOTYPE, b"")), "or a device"),
    (zip_with_link, "'link' is a link"),
])
def test_what_reaches_out_of_the_folder_is_refused_before_anything_is_written(tmp_path, make, fault):
    archive = make(tmp_path / "x.zip")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=fault):
        extract(archive, tmp_path / "folder")
    assert everything_below(tmp_path) == ["folder", "x.zip"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"], ["c/a/b/d", "c/a"]])
def test_one_name_for_a_file_and_a_folder_is_said_of_the_archive(tmp_path, kind, names):
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        write_zip(path, dict.fromkeys(names, "x"))
    else:
        with tarfile.open(path, "w") as file:
            for name in names:
                file.addfile(tarfile.TarInfo(name))
    shared_name = min(names, key=len)
    with (pytest.raises(UserError, match=f"x.{kind}: '{shared_name}' is a file and a folder at once"),
          atomic_path(tmp_path / "folder") as folder):
        folder.mkdir()
        extract(path, folder)
    assert everything_below(tmp_path) == [f"x.{kind}"]


def test_a_name_longer_than_a_files_may_be_is_said_of_the_archive(tmp_path):
    write_zip(tmp_path / "x.zip", {f"a/{'é' * 130}.png": "x"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="x.zip: a member's name is longer than the 255 bytes"):
        extract(tmp_path / "x.zip", tmp_path / "folder")


def test_a_zip_and_a_tar_are_unpacked(tmp_path):
    write_zip(tmp_path / "a.zip", {"d/e.txt": "zip", "empty/": "", "__MACOSX/d/e.txt": "junk"})
    tar_of(tmp_path / "b.tar.gz", ("t", tarfile.DIRTYPE, b""), ("t/f.txt", tarfile.REGTYPE, b"tar"))
    (tmp_path / "out").mkdir()
    for name in ("a.zip", "b.tar.gz"):
        extract(tmp_path / name, tmp_path / "out")
    assert everything_below(tmp_path / "out") == ["d", "d/e.txt", "empty", "t", "t/f.txt"]
    assert (tmp_path / "out/d/e.txt").read_text() == "zip" and (tmp_path / "out/t/f.txt").read_text() == "tar"


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(extract_module, "ALWAYS_ALLOWED", 1000)
    write_zip(tmp_path / "x.zip", {"zeros": bytes(1_000_000)})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="too much for an archive"):
        extract(tmp_path / "x.zip", tmp_path / "folder")
    assert everything_below(tmp_path / "folder") == []


def test_an_archive_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(extract_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=6))
    write_zip(tmp_path / "x.zip", {"a": "content"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="free space"):
        extract(tmp_path / "x.zip", tmp_path / "folder")


@pytest.mark.parametrize("content", [b"no archive", None])
def test_a_damaged_archive_is_one_sentence(tmp_path, content):
    good = write_zip(tmp_path / "good.zip", {"a": os.urandom(5000)}).read_bytes()
    flipped = bytearray(good)
    flipped[1000] ^= 1
    (tmp_path / "x.zip").write_bytes(content or bytes(flipped))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="x.zip is (damaged|neither a zip)"):
        extract(tmp_path / "x.zip", tmp_path / "folder")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_damaged_tar_is_one_sentence_and_nothing_of_it_is_kept(tmp_path, kind):
    path = tar_of(tmp_path / f"x.tar.{kind}", *((name, tarfile.REGTYPE, os.urandom(1_000_000)) for name in "ab"))
    packed = bytearray(path.read_bytes())
    packed[-500_000] ^= 255
    path.write_bytes(packed)
    with pytest.raises(UserError, match=f"x.tar.{kind} is damaged"), atomic_path(tmp_path / "folder") as folder:
        folder.mkdir()
        extract(path, folder)
    assert everything_below(tmp_path) == [f"x.tar.{kind}"]


def test_a_damaged_zip_of_another_compression_or_with_broken_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a", os.urandom(5000))
    whole = (tmp_path / "x.zip").read_bytes()
    write_zip(tmp_path / "y.zip", {"é": "x"})
    (tmp_path / "x.zip").write_bytes(whole[:1000] + bytes(100) + whole[1100:])
    (tmp_path / "y.zip").write_bytes((tmp_path / "y.zip").read_bytes().replace("é".encode(), b"\xff\xfe"))
    (tmp_path / "folder").mkdir()
    for name in "xy":
        with pytest.raises(UserError, match=f"{name}.zip is damaged"):
            extract(tmp_path / f"{name}.zip", tmp_path / "folder")


# ---------------------------------------------------------------- one dataset


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inbox").mkdir()
    return tmp_path


@pytest.fixture
def archive(server):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("images/one.txt", "content")
    server.files["toy.zip"] = buffer.getvalue()
    return buffer.getvalue()


def toy(server, sha256=None, **changes):
    resource = Resource("toy.zip", server.url("toy.zip"), sha256, ("toy/toy.zip", "toy.zip"))
    return DatasetSpec(**{"name": "toy", "title": "Toy", "source": "", "licence": "", "citation": "",
                          "target": "t", "archives": (resource,), "layout": lambda raw: None, **changes})


def get(spec, mirror=None):
    download(spec, Path("raw"), Path("inbox"), mirror, Path("checksums.json"))
    return read_json("raw/status.json")


def test_an_open_archive_is_fetched_once_and_its_checksum_recorded(project, server, archive):
    assert get(toy(server)) == {"status": "ok", "reason": None}
    assert Path("raw/images/one.txt").read_text() == "content"
    assert read_json("checksums.json") == {KEY: hashlib.sha256(archive).hexdigest()}
    get(toy(server))
    assert len(server.requests) == 1


def test_a_file_that_differs_from_its_record_is_refused_and_nothing_changes(project, server, archive):
    get(toy(server))
    before = everything_below(project / "raw")
    write_zip(project / "inbox/toy.zip", {"images/two.txt": "other"})
    with pytest.raises(UserError, match=f"inbox/toy.zip has .* recorded .* remove the record '{KEY}'"):
        get(toy(server))
    assert everything_below(project / "raw") == before
    assert read_json("checksums.json") == {KEY: hashlib.sha256(archive).hexdigest()}


def test_a_download_that_differs_from_its_pin_is_refused_and_removed(project, server, archive):
    with pytest.raises(UserError, match="the project pins 0000"):
        get(toy(server, sha256="0" * 64))
    assert everything_below(Path(".cache/downloads")) == ["toy"] and not Path("raw").exists()


def test_a_damaged_download_is_not_recorded_and_fetched_again(project, server, archive):
    server.files["toy.zip"] = archive[:-10]
    with pytest.raises(UserError, match="toy.zip is (damaged|neither)"):
        get(toy(server))
    assert not Path("checksums.json").exists() and not Path("raw").exists()
    server.files["toy.zip"] = archive
    assert get(toy(server))["status"] == "ok"


@pytest.mark.parametrize("place", ["mirror/toy/toy.zip", "mirror/toy.zip", "inbox/toy.zip"])
def test_a_mirror_and_the_inbox_come_before_the_network(project, server, archive, place):
    Path("mirror").mkdir()
    Path(place).parent.mkdir(exist_ok=True)
    Path(place).write_bytes(archive)
    assert get(toy(server), mirror=Path("mirror"))["status"] == "ok"
    assert server.requests == []


def test_a_mirror_that_is_not_there_is_an_error(project, server):
    with pytest.raises(UserError, match="data.mirror: the folder nowhere does not exist"):
        get(toy(server), mirror=Path("nowhere"))


def test_no_network_is_a_result_with_its_reason(project, server, archive, monkeypatch):
    get(toy(server))
    monkeypatch.setenv("FEATHERSEG_CACHE", str(project / "other"))
    monkeypatch.setattr("featherseg.data.raw.fetch.time.sleep", lambda _: None)
    status = get(toy(server, archives=(Resource("toy.zip", "http://127.0.0.1:9/toy.zip", None, ()),)))
    assert status["status"] == "not_run"
    assert "http://127.0.0.1:9/toy.zip cannot be had" in status["reason"] and "inbox/" in status["reason"]
    assert everything_below(Path("raw")) == ["status.json"]


def test_a_set_that_needs_an_account_says_where_to_get_it(project, server):
    spec = toy(server, archives=(), how="needs an account: get it from https://example.org")
    assert get(spec) == {"status": "not_run", "reason": (
        "Toy needs an account: get it from https://example.org and put the archive, unchanged, into inbox/.")}
    Path("inbox/.gitkeep").touch()
    Path("inbox/readme.txt").write_text("no archive")
    assert get(spec)["reason"].endswith(
        "into inbox/ (what lies there, readme.txt, is no zip or tar archive; pack it as one).")
    write_zip(Path("inbox/archive (1).zip"), {"images/one.txt": "content"})
    assert get(spec)["status"] == "ok"
    assert everything_below(Path("raw")) == ["images", "images/one.txt", "status.json"]
    assert list(read_json("checksums.json")) == ["toy/archive (1).zip"]


def test_lists_come_with_the_archive(project, server, archive):
    server.files["train.json"] = b"[]"
    lists = (Resource("train.json", server.url("train.json"), hashlib.sha256(b"[]").hexdigest(), ()),)
    get(toy(server, lists=lists))
    assert Path("raw/anns/train.json").read_bytes() == b"[]"
    server.files["train.json"] = b"[1]"
    Path(".cache/downloads/toy/train.json").unlink()
    with pytest.raises(UserError, match="train.json has the sha256"):
        get(toy(server, lists=lists))


def test_an_open_line_without_a_known_checksum_is_not_asked(project, server, archive):
    address = "http://example.org/toy.zip"
    status = get(toy(server, archives=(Resource("toy.zip", address, None, ()),)))
    assert status["status"] == "not_run" and "is not encrypted and nobody publishes a checksum" in status["reason"]


def test_every_official_file_comes_encrypted_or_pinned():
    resources = [resource for spec in SPECS.values() for resource in (*spec.archives, *spec.lists)]
    assert len(resources) > 30
    assert [resource.url for resource in resources if resource.url.startswith("http:") and not resource.sha256] == []
    [images] = SPECS["coco_train2014"].archives
    assert images.url.startswith("https://") and len(images.sha256) == 64


def test_a_record_of_first_use_is_said(project, server, archive, capsys):
    get(toy(server))
    assert f"recorded at first use, in checksums.json: {KEY}; the project knows no checksum" in capsys.readouterr().out
    get(toy(server))
    assert "recorded" not in capsys.readouterr().out


def _download_in_another_process(name, port, go):
    resource = Resource("toy.zip", f"http://127.0.0.1:{port}/toy.zip", None, ())
    spec = DatasetSpec(name=name, title="", source="", licence="", citation="", target="t", archives=(resource,),
                       layout=lambda raw: None)
    go.wait(30)
    download(spec, Path("raw") / name, Path("inbox"), None, Path("checksums.json"))


@pytest.mark.parametrize("names", [["a", "a", "a", "a"], ["a", "b", "c", "d"]])
def test_downloads_at_once_all_succeed_and_lose_no_record(project, server, archive, names):
    """Of one set, one of them asks the server; of several, every checksum is recorded."""
    server.pause, server.piece = 0.02, 20
    context = multiprocessing.get_context("fork")
    go = context.Barrier(len(names))
    processes = [context.Process(target=_download_in_another_process, args=(name, server.port, go)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(server.requests) == len(set(names))
    assert read_json("checksums.json").keys() == {f"{name}/toy.zip" for name in names}
    for name in names:
        assert read_json(f"raw/{name}/status.json")["status"] == "ok"
        assert Path(f"raw/{name}/images/one.txt").read_text() == "content"


def test_two_versions_met_at_first_use_at_once_are_not_both_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = Checksums(Path("sums.json")), Checksums(Path("sums.json"))
    for known, content in ((first, b"a"), (second, b"b")):
        Path("x").write_bytes(content)
        known.check("x", Path("x"))
    first.record()
    with pytest.raises(UserError, match="another process has recorded .* for 'x'"):
        second.record()
    assert read_json("sums.json") == {"x": hashlib.sha256(b"a").hexdigest()}


def test_a_download_that_the_disk_has_no_room_to_unpack_is_kept(project, server, archive, monkeypatch):
    monkeypatch.setattr(extract_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=len(archive)))
    monkeypatch.setattr(extract_module, "_checked", lambda archive, members: iter([SimpleNamespace(size=10**12)]))
    with pytest.raises(UserError, match="unpacks to 1000.0 GB"):
        get(toy(server))
    assert Path(".cache/downloads/toy/toy.zip").read_bytes() == archive


def test_a_full_disk_while_an_archive_is_copied_is_one_sentence(project, server, archive):
    write_zip(Path("inbox/toy.zip"), {"random": os.urandom(100_000)})
    with pytest.raises(UserError, match="raw.*(File too large|No space left)") as error, full_disk(10_000):
        get(toy(server, unpack=False))
    assert "\n" not in str(error.value) and not any("raw" in path for path in everything_below(project))


def test_a_full_disk_leaves_no_raw_data(project, server, archive):
    write_zip(Path("inbox/toy.zip"), {"zeros": bytes(100_000)})
    with pytest.raises(UserError, match="raw could not be written"), full_disk(10_000):
        get(toy(server))
    assert not any("raw" in path for path in everything_below(project))


def test_an_unknown_dataset_names_the_known_ones(project):
    with pytest.raises(UserError, match="unknown dataset 'kvasir': did you mean 'kvasir_seg'"):
        download_dataset("kvasir")


@pytest.mark.parametrize("mirror", ["raw", "."])
def test_an_archive_is_never_unpacked_over_itself(project, server, archive, mirror):
    Path("raw/toy").mkdir(parents=True)
    place = Path("raw/toy.zip" if mirror == "raw" else "toy/toy.zip")
    place.parent.mkdir(exist_ok=True)
    write_zip(place, {"images/one.txt": "content"})
    if mirror == ".":
        Path("raw/toy").rmdir()
        Path("raw").rmdir()
        Path("raw").symlink_to("toy")
    content = place.read_bytes()
    with pytest.raises(UserError, match="raw would be written where .* is read"):
        get(toy(server), mirror=Path(mirror))
    assert place.read_bytes() == content
