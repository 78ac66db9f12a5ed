"""Archives and pickles that are small on the disk and would be large in memory, on the disk or in time."""

import gzip
import io
import lzma
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from data_files import everything_below, write_zip
from pydantic import TypeAdapter, ValidationError

from featherseg.core.errors import UserError
from featherseg.core.files import read_json
from featherseg.data.raw import extract as extract_module
from featherseg.data.raw import plain_pickle
from featherseg.data.raw.extract import extract, is_archive, open_zip
from featherseg.data.raw.plain_pickle import read_plain_pickle
from featherseg.data.raw.refer import Instances, Records, Reference, _images_of, _read

END = bytes(1024)


def header(name="a", size=0, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(member_size=0, **fields):
    info = tarfile.TarInfo("a")
    info.size, info.pax_headers = member_size, {name.replace("__", "."): value for name, value in fields.items()}
    return info.tobuf(tarfile.PAX_FORMAT)


def block(content):
    return content + bytes(-len(content) % 512)


def sparse():
    return pax(1024, GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="10") + b"1" * 1024 + END


TARS = {
    "a pax header of 3 GB": (header(size=3 << 30, kind=tarfile.XHDTYPE) + END, "an extended header of 3,221,225,472"),
    "a global header": (header(size=1 << 20, kind=tarfile.XGLTYPE) + END, "an extended header of"),
    "a long name of 1 GB": (header(size=1 << 30, kind=tarfile.GNUTYPE_LONGNAME) + END, "an extended header of"),
    "a long link": (header(size=1 << 30, kind=tarfile.GNUTYPE_LONGLINK) + END, "an extended header of"),
    "a negative header": (header(size=-512, kind=tarfile.XHDTYPE) + END, "an extended header of -512"),
    "a negative member": (header(size=-512) + header("b") + END, "damaged"),
    "a negative size in pax": (pax(size="-512") + END, "damaged"),
    "an old sparse member": (header(kind=tarfile.GNUTYPE_SPARSE) + END, "a sparse member"),
    "a sparse member without an end of its map": (sparse(), "a sparse member"),
    "a null in a name": (pax(path="a\0b") + END, "damaged"),
    "100 folders": (pax(path="a/" * 100 + "b") + END, "64 folders"),
    "a broken header in the middle": (header(size=5) + block(b"first") + b"x" * 512 + header("b") + 40 * END,
                                      "a broken header, or something behind the end"),
}


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_hostile_tar_is_one_sentence_and_nothing_is_written(tmp_path, kind, pack):
    content, fault = TARS[kind]
    (tmp_path / "x.tar").write_bytes(pack(content))
    (tmp_path / "folder").mkdir()
    assert is_archive(tmp_path / "x.tar")
    with pytest.raises(UserError, match=f"x.tar.*{fault}") as error:
        extract(tmp_path / "x.tar", tmp_path / "folder")
    assert "\n" not in str(error.value) and everything_below(tmp_path) == ["folder", "x.tar"]


@pytest.mark.parametrize("name", [
    "//a", "///a", "//", "/a", "a/" * 100 + "b", "a/" * 30_000, "../a", ".", "a\\..\\..\\b"])
def test_a_hostile_name_in_a_zip_is_refused_where_it_is_unpacked_and_where_it_is_read_in_place(tmp_path, name):
    write_zip(tmp_path / "x.zip", {name: b"x"})
    (tmp_path / "folder").mkdir()
    for use in (lambda: extract(tmp_path / "x.zip", tmp_path / "folder"), lambda: _images_of(tmp_path)):
        with pytest.raises(UserError, match="x.zip"):
            use()
    assert everything_below(tmp_path / "folder") == []


def test_archives_as_tar_and_zip_make_them_of_the_folder_they_are_in(tmp_path):
    attributes = pax(1, SCHILY__xattr__com__apple__FinderInfo="A" * 20_000)
    (tmp_path / "x.tar").write_bytes(header("./", kind=tarfile.DIRTYPE) + attributes + block(b"x") + END)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("./", "")
        file.writestr("./a", "x")
    for archive in ("x.tar", "x.zip"):
        folder = tmp_path / f"from {archive}"
        folder.mkdir()
        extract(tmp_path / archive, folder)
        assert everything_below(folder) == ["a"] and (folder / "a").read_bytes() == b"x"


@pytest.mark.parametrize(("constant", "value", "fault"), [
    ("LARGEST_DIRECTORY", 100, "a list of members of"), ("MOST_MEMBERS", 3, "more than 3 members")])
def test_a_list_of_members_that_memory_has_no_room_for(tmp_path, monkeypatch, constant, value, fault):
    write_zip(tmp_path / "x.zip", {str(number): b"" for number in range(10)})
    (tmp_path / "folder").mkdir()
    open_zip(tmp_path / "x.zip").close()
    monkeypatch.setattr(extract_module, constant, value)
    for use in (open_zip, lambda path: extract(path, tmp_path / "folder")):
        with pytest.raises(UserError, match=fault):
            use(tmp_path / "x.zip")


def test_a_compression_that_names_its_own_memory_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a", "x")
    with pytest.raises(UserError, match="cannot be unpacked .compression method 14.; .* plain zip"):
        extract(tmp_path / "x.zip", tmp_path)
    (tmp_path / "x.tar.xz").write_bytes(lzma.compress(header() + END))
    extract(tmp_path / "x.tar.xz", tmp_path)
    monkeypatch.setattr(extract_module, "LARGEST_DICTIONARY", 1 << 20)
    with pytest.raises(UserError, match="x.tar.xz is neither|x.tar.xz is damaged"):
        extract(tmp_path / "x.tar.xz", tmp_path)


def test_zeros_behind_the_end_are_read_only_so_far(tmp_path, monkeypatch):
    whole = header(size=5) + block(b"first") + END
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(whole + bytes(3 << 20)))
    (tmp_path / "folder").mkdir()
    extract(tmp_path / "x.tar.gz", tmp_path / "folder")
    assert (tmp_path / "folder/a").read_bytes() == b"first"
    monkeypatch.setattr(extract_module, "LONGEST_PADDING", 1 << 20)
    with pytest.raises(UserError, match="more than 1 MB of zeros behind the end"):
        extract(tmp_path / "x.tar.gz", tmp_path / "folder")


def test_a_tar_of_endless_headers_is_bounded_in_bytes(tmp_path, monkeypatch):
    """Members of no bytes add nothing to the sum of sizes."""
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"".join(header(str(n)) for n in range(2000)) + END))
    monkeypatch.setattr(extract_module, "ALWAYS_ALLOWED", 1000)
    monkeypatch.setattr(extract_module, "MAX_RATIO", 1)
    with pytest.raises(UserError, match="too much for an archive"):
        extract(tmp_path / "x.tar.gz", tmp_path)


def test_several_xz_streams_with_padding_are_one_file(tmp_path):
    whole = header(size=5) + block(b"first") + END
    packed = lzma.compress(whole[:700]) + bytes(8) + lzma.compress(whole[700:]) + bytes(2 << 20)
    (tmp_path / "x.tar.xz").write_bytes(packed)
    extract(tmp_path / "x.tar.xz", tmp_path)
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_named_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "x.zip")
    for use in (is_archive, lambda path: extract(path, tmp_path), open_zip, read_plain_pickle):
        with pytest.raises(UserError, match="a named pipe, not a file"):
            use(tmp_path / "x.zip")


# ---------------------------------------------------------------- pickles and JSON


def test_a_pickle_that_repeats_itself_is_counted_as_often(tmp_path):
    shared = [{"sent": "x"}] * 1000
    (tmp_path / "x.p").write_bytes(pickle.dumps([shared] * 10_000))
    with pytest.raises(UserError, match="x.p holds more than 4,000,000 values"):
        read_plain_pickle(tmp_path / "x.p")
    cycle = [()]
    cycle.append((cycle,))
    (tmp_path / "x.p").write_bytes(pickle.dumps(cycle))
    with pytest.raises(UserError, match="nested too deep"):
        read_plain_pickle(tmp_path / "x.p")


@pytest.mark.parametrize("content", [b"(" * 50, b"]" * 50, b"]\x94" * 25, b"](" + b"h\x00" * 25, b"K\x010" * 20])
def test_a_pickle_of_too_many_instructions_is_given_up(tmp_path, monkeypatch, content):
    monkeypatch.setattr(plain_pickle, "MOST_STEPS", 30)
    (tmp_path / "x.p").write_bytes(content + b".")
    with pytest.raises(UserError, match="x.p (holds more than 30 instructions|is damaged)"):
        read_plain_pickle(tmp_path / "x.p")


NO_REFERENCE = {"ref_id": 1, "ann_id": 1, "image_id": 1, "split": "train", "sentences": [""] * 100}


@pytest.mark.parametrize(("kind", "content", "place"), [
    (Records[Reference], [""] * 100, "0"), (Records[Reference], [NO_REFERENCE], "0, sentences, 0"),
    (Instances, {"images": [""] * 100, "annotations": [], "categories": []}, "images, 0"),
    (Instances, {"images": [], "annotations": [""] * 100, "categories": []}, "annotations, 0")])
def test_records_are_given_up_at_the_first_fault(tmp_path, kind, content, place):
    """A record of each of two million faults takes gigabytes."""
    with pytest.raises(ValidationError) as error:
        TypeAdapter(kind).validate_python(content)
    assert error.value.error_count() == 1
    with pytest.raises(UserError, match=f"x.p, at {place}: "):
        _read(kind, tmp_path / "x.p", lambda path: content)


@pytest.mark.parametrize(("constant", "content"), [
    ("MOST_CONTAINERS", "[" + "{}," * 50 + "{}]"), ("MOST_CONTAINERS", "[" + "[]," * 50 + "[]]"),
    ("MOST_VALUES", "[" + "0," * 50 + "0]")])
def test_json_of_too_many_values_is_not_read(tmp_path, monkeypatch, constant, content):
    (tmp_path / "x.json").write_text(content)
    assert len(read_json(tmp_path / "x.json")) == 51
    monkeypatch.setattr(f"featherseg.core.files.{constant}", 30)
    with pytest.raises(UserError, match="x.json holds more values than memory may have room for"):
        read_json(tmp_path / "x.json")


def test_memory_stays_bounded_while_hostile_files_are_refused(tmp_path):
    """In a process whose memory is limited to half of what each file would take."""
    zeros = bytes(1 << 20)
    with gzip.open(tmp_path / "pax.tar.gz", "wb", compresslevel=1) as file:
        file.write(header(size=800 << 20, kind=tarfile.XHDTYPE))
        for _ in range(800):
            file.write(zeros)
    (tmp_path / "x.p").write_bytes(pickle.dumps([[{"sent": "x"}] * 5000] * 5000))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/" * 16_000 + "b", "")
    (tmp_path / "x.zip").write_bytes(buffer.getvalue())
    script = """
import resource, sys
from pathlib import Path
from featherseg.data.raw.extract import extract
from featherseg.data.raw.plain_pickle import read_plain_pickle
from featherseg.core.errors import UserError
resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
for use in (lambda: extract(Path("pax.tar.gz"), Path(".")), lambda: extract(Path("x.zip"), Path(".")),
            lambda: read_plain_pickle(Path("x.p"))):
    try:
        use()
    except UserError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")})
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done.stderr
