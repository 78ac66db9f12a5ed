"""CVC-300, ColonDB and ETIS: three sets for testing only, whose images lie in one bundle."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from data_files import box, colours, picture_bytes, write_json, write_zip

from featherseg.config import DataParams
from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason
from featherseg.data.prepare import prepare_dataset
from featherseg.data.prepared import PreparedDataset
from featherseg.data.raw.download import download
from featherseg.data.raw.specs import SPECS

IMAGE, MASK = picture_bytes(colours(40, 60), "PNG"), picture_bytes(box(40, 60), "PNG")
FOLDERS = {"cvc300": "CVC-300", "colondb": "CVC-ColonDB", "etis": "ETIS-LaribPolypDB"}


def row(name: str) -> dict:
    return {"img_name": name, "mask_name": name, "segment_id": 1, "prompts": {"p0": "", "p1": f"polyp of {name}"}}


@pytest.fixture
def bundle(tmp_path, monkeypatch) -> Path:
    """The bundle in the inbox as it is published; CVC-300's images are not those of its lists, which are ColonDB's."""
    monkeypatch.chdir(tmp_path)
    images = {"cvc300": ["3.png", "7.png"], "colondb": ["1.png", "2.png", "3.png"], "etis": ["1.png", "2.png"]}
    write_zip(tmp_path / "data/inbox/pranet_test/TestDataset.zip", {
        f"TestDataset/{FOLDERS[name]}/{kind}/{file}": content for name, files in images.items() for file in files
        for kind, content in (("images", IMAGE), ("masks", MASK))} | {
            "TestDataset/CVC-300/images/._3.png": b"of macOS"})
    lists = {"colondb": (["1.png"], ["2.png", "3.png"]), "etis": (["2.png"], ["1.png"])}
    lists["cvc300"] = lists["colondb"]
    for name, (train, test) in lists.items():
        for split, files in (("train", train), ("val", []), ("test", test)):
            write_json(tmp_path / f"data/inbox/{name}/{split}.json", [row(file) for file in files])
    for name in ("pranet_test", *FOLDERS):
        spec = SPECS[name]
        spec = replace(spec, lists=tuple(replace(resource, sha256=None) for resource in spec.lists))
        download(spec, Path("data/raw") / name, Path("data/inbox") / name)
        assert not_run_reason(Path("data/raw") / name) is None
    return tmp_path


def prepared(name: str, **params) -> PreparedDataset:
    prepare_dataset(name, DataParams(**params))
    return PreparedDataset.read(Path("data/processed") / name)


@pytest.mark.parametrize(("name", "images"), [("colondb", "123"), ("etis", "12")])
def test_every_listed_image_is_scored_and_none_trained_on(bundle, name, images):
    dataset = prepared(name)
    assert sorted(sample.image_id for sample in dataset.split("test")) == list(images) and len(images) == len(
        dataset.samples)
    assert {sample.prompts["p1"][0] for sample in dataset.samples} == {f"polyp of {image}.png" for image in images}
    assert (dataset.mask(dataset.samples[0]) == box(40, 60)).all()
    assert "1 rows of the other lists are of the split test too" in (dataset.path / "card.md").read_text()


def test_published_splits_can_be_kept(bundle):
    assert Counter(sample.split for sample in prepared("etis", keep_published_faults=True).samples) == {
        "train": 1, "test": 1}


def test_cvc300_has_its_own_images_and_not_the_prompts_of_colondb(bundle):
    dataset = prepared("cvc300")
    assert [(sample.image_id, sample.split) for sample in dataset.samples] == [("3", "test"), ("7", "test")]
    assert "polyp of 3.png" not in str([sample.prompts for sample in dataset.samples])
    assert "located in top left of the image" in dataset.samples[0].prompts["p6"][0]
    card = (dataset.path / "card.md").read_text()
    assert "Left out: all 3 rows of the published lists" in card
    assert "Prompts of 2 samples were made from masks and pixels, in the words of the field endoscopy" in card


def test_cvc300_as_published_describes_images_of_colondb(bundle):
    dataset = prepared("cvc300", keep_published_faults=True)
    assert [(sample.image_id, sample.prompts["p1"]) for sample in dataset.samples] == [("3", ["polyp of 3.png"])]
    assert "2 rows name no image here" in (dataset.path / "card.md").read_text()


def test_lists_that_fit_cvc300_are_used(bundle):
    write_json(bundle / "data/raw/cvc300/anns/test.json", [row("3.png"), row("7.png")])
    write_json(bundle / "data/raw/cvc300/anns/train.json", [])
    assert [sample.prompts["p1"] for sample in prepared("cvc300").samples] == [["polyp of 3.png"], ["polyp of 7.png"]]


def test_without_the_bundle_its_reason_is_handed_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, lists in (("pranet_test", ()), ("etis", ("train", "val", "test"))):
        for split in lists:
            write_json(Path(f"data/inbox/{name}/{split}.json"), [])
        spec = SPECS[name]
        spec = replace(spec, lists=tuple(replace(resource, sha256=None) for resource in spec.lists))
        download(spec, Path("data/raw") / name, Path("data/inbox") / name)
    reason = prepared("etis").status["reason"]
    assert "download TestDataset.zip from https://" in reason and "data/inbox/pranet_test/" in reason


def test_the_bundle_is_no_dataset(bundle):
    with pytest.raises(UserError, match="pranet_test holds images only, for colondb, cvc300, etis; prepare one"):
        prepare_dataset("pranet_test", DataParams())
