import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import box, colours, everything_below, picture_bytes, shared, write_json, write_zip
from PIL import Image

from featherseg.config import DataParams
from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason, write_status
from featherseg.data import prepare
from featherseg.data.folder.lists import Entry, read_list
from featherseg.data.prepare import prepare_dataset, prepare_official
from featherseg.data.prepared import PreparedDataset
from featherseg.data.raw.download import download
from featherseg.data.raw.published import with_leaks, without_leaks
from featherseg.data.raw.spec import DatasetSpec
from featherseg.data.raw.specs import SPECS

PROMPTS = {"p0": "", "p1": "polyp", "p2": "round polyp", "p3": "pink round polyp",
           "p4": "small pink round polyp", "p5": "one small pink round polyp",
           "p6": "one small pink round polyp, located in top left of the image",
           "p7": ["polyp which is x", "polyp which is y"]}
JPEG, PNG = picture_bytes(colours(40, 60), "JPEG"), picture_bytes(box(40, 60), "PNG")
JPEG_MASK = picture_bytes(box(40, 60), "JPEG")


def row(image: str, mask: str) -> dict:
    return {"img_name": image, "mask_name": mask, "prompts": PROMPTS, "bbox": [1, 2, 3, 4], "cat": 0}


def fetched(name: str, members: dict[str, dict[str, bytes]], lists: dict[str, list], mirror: Path,
            raw: Path) -> None:
    """Download a dataset of tiny archives from a mirror; its pinned lists are those given."""
    for archive, content in members.items():
        write_zip(mirror / name / archive, content)
    for split, rows in lists.items():
        write_json(mirror / name / f"{split}.json", rows)
    spec = SPECS[name]
    spec = replace(spec, lists=tuple(replace(resource, sha256=None) for resource in spec.lists))
    download(spec, raw, mirror / "inbox", mirror, mirror / "sums.json")
    assert not_run_reason(raw) is None


def prepared(name: str, tmp_path: Path, **options) -> PreparedDataset:
    prepare_official(name, tmp_path / "raw", tmp_path / "out", **options)
    return PreparedDataset.read(tmp_path / "out")


def kvasir(tmp_path: Path, lists: dict[str, list[str]]) -> None:
    names = {name for split in lists.values() for name in split}
    fetched("kvasir_seg", {"kvasir-seg.zip": {
        **{f"Kvasir-SEG/images/{name}.jpg": JPEG for name in names},
        **{f"Kvasir-SEG/masks/{name}.jpg": JPEG_MASK for name in names},
        "Kvasir-SEG/kavsir_bboxes.json": b"{}"}},
        {split: [row(f"{name}.jpg", f"{name}.jpg") for name in names] for split, names in lists.items()},
        tmp_path / "mirror", tmp_path / "raw")


def test_kvasir_seg_from_its_archive_to_samples(tmp_path):
    kvasir(tmp_path, {"train": ["a", "b"], "val": ["c"], "test": ["d"]})
    dataset = prepared("kvasir_seg", tmp_path)
    assert [(sample.sample_id, sample.split) for sample in dataset.samples] == [
        ("kvasir_seg/a/polyp", "train"), ("kvasir_seg/b/polyp", "train"),
        ("kvasir_seg/c/polyp", "val"), ("kvasir_seg/d/polyp", "test")]
    sample = dataset.samples[0]
    assert (tmp_path / "out" / sample.image).read_bytes() == JPEG
    assert sample.prompts["p7"] == PROMPTS["p7"] and sample.prompts["p1"] == ["polyp"]
    assert sample.attributes == {"shape": "round", "colour": "pink", "size": "small", "number": "one",
                                 "location": "top left"}
    assert (dataset.mask(sample) == box(40, 60)).mean() > 0.99
    assert "128 and above" in (tmp_path / "out/card.md").read_text()


def test_isic_from_its_four_archives_to_samples(tmp_path):
    prefix = "ISBI2016_ISIC_Part1"
    names = {"Training": ["ISIC_1", "ISIC_2", "ISIC_3"], "Test": ["ISIC_4"]}
    archives = {}
    for part, stems in names.items():
        data, truth = f"{prefix}_{part}_Data", f"{prefix}_{part}_GroundTruth"
        archives[f"{data}.zip"] = {f"{data}/{stem}.jpg": JPEG for stem in stems}
        archives[f"{truth}.zip"] = {f"{truth}/{stem}_Segmentation.png": PNG for stem in stems}
    splits = {"train": ["ISIC_1", "ISIC_1", "ISIC_2", "ISIC_4"], "val": ["ISIC_3"], "test": ["ISIC_4"]}
    lists = {split: [row(f"{stem}.jpg", f"{stem}_Segmentation.png") for stem in stems]
             for split, stems in splits.items()}
    fetched("isic2016", archives, lists, tmp_path / "mirror", tmp_path / "raw")
    dataset = prepared("isic2016", tmp_path)
    assert [(sample.image_id, sample.split, sample.target) for sample in dataset.samples] == [
        ("ISIC_1", "train", "skin lesion"), ("ISIC_2", "train", "skin lesion"),
        ("ISIC_3", "val", "skin lesion"), ("ISIC_4", "test", "skin lesion")]
    card = (tmp_path / "out/card.md").read_text()
    assert "Left out: 1 row of train, which test lists too." in card
    assert "Left out: 1 row of train, listed twice." in card
    kept = prepared("isic2016", tmp_path, keep_published_faults=True)
    assert Counter(sample.split for sample in kept.samples) == {"train": 4, "val": 1, "test": 1}
    assert len({sample.sample_id for sample in kept.samples}) == 6
    assert Counter(sample.group for sample in kept.samples) == {
        "ISIC_1": 2, "ISIC_2": 1, "ISIC_3": 1, "ISIC_4": 2}
    assert "2 rows repeat" in (tmp_path / "out/card.md").read_text()


def test_a_set_as_published_keeps_the_rows_and_counts_every_grey_as_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kvasir(tmp_path, {"train": ["a", "a"], "val": ["c"], "test": ["a"]})
    (tmp_path / "raw").rename(tmp_path / "kvasir_seg")
    monkeypatch.setattr(prepare, "RAW", tmp_path)
    prepare.prepare_dataset("kvasir_seg_published", DataParams(as_published={"kvasir_seg_published": "kvasir_seg"}))
    kept = PreparedDataset.read(tmp_path / "data/processed/kvasir_seg_published")
    assert Counter(sample.split for sample in kept.samples) == {"train": 2, "val": 1, "test": 1}
    assert {sample.dataset for sample in kept.samples} == {"kvasir_seg_published"}
    prepare_official("kvasir_seg", tmp_path / "kvasir_seg", tmp_path / "corrected")
    corrected = PreparedDataset.read(tmp_path / "corrected")
    assert len(corrected.samples) == 2
    levels = np.asarray(Image.open(io.BytesIO(JPEG_MASK)).convert("L"))
    assert np.array_equal(kept.mask(kept.samples[0]), levels > 0)
    assert np.array_equal(corrected.mask(corrected.samples[0]), levels >= 128)
    assert (levels > 0).sum() > (levels >= 128).sum() * 1.01
    assert "every level above 0" in (tmp_path / "data/processed/kvasir_seg_published/card.md").read_text()


def test_busi_unites_the_masks_of_one_image(tmp_path):
    second = box(40, 60, rows=slice(20, 30), columns=slice(30, 50))
    root = "Dataset_BUSI_with_GT"
    fetched("busi", {"Dataset_BUSI.zip": {
        f"{root}/benign/benign (1).png": JPEG, f"{root}/benign/benign (1)_mask.png": PNG,
        f"{root}/benign/benign (1)_mask_1.png": picture_bytes(second, "PNG"),
        f"{root}/benign/benign (10).png": JPEG, f"{root}/benign/benign (10)_mask.png": PNG,
        f"{root}/normal/normal (1).png": JPEG,
        f"{root}/normal/normal (1)_mask.png": picture_bytes(np.zeros((40, 60), dtype=bool), "PNG")}},
        {"train": [row("1_benign.png", "1_benign.png")], "val": [row("10_benign.png", "10_benign.png")],
         "test": [row("1_normal.png", "1_normal.png")]}, tmp_path / "mirror", tmp_path / "raw")
    dataset = prepared("busi", tmp_path)
    assert (dataset.mask(dataset.samples[0]) == box(40, 60) | second).all()
    assert (dataset.mask(dataset.samples[1]) == box(40, 60)).all()
    assert dataset.samples[2].area_fraction == 0
    assert "1 of them empty" in (tmp_path / "out/card.md").read_text()


def test_busi_has_masks_of_one_bit(tmp_path):
    mask = io.BytesIO()
    Image.fromarray(box(40, 60)).save(mask, "PNG")
    fetched("busi", {"Dataset_BUSI.zip": {
        "Dataset_BUSI_with_GT/benign/benign (1).png": JPEG,
        "Dataset_BUSI_with_GT/benign/benign (1)_mask.png": mask.getvalue()}},
        {"train": [row("1_benign.png", "1_benign.png")], "val": [], "test": []}, tmp_path / "mirror", tmp_path / "raw")
    dataset = prepared("busi", tmp_path)
    assert (dataset.mask(dataset.samples[0]) == box(40, 60)).all()


@pytest.mark.parametrize("name, image, root", [("busi", "1_benign.png", "Dataset_BUSI_with_GT/benign/benign (1)"),
                                               ("kvasir_seg", "1.png", None)])
def test_an_open_set_under_another_name(tmp_path, name, image, root):
    """The same files, offered elsewhere, in an archive of any name."""
    members = ({f"{root}.png": JPEG, f"{root}_mask.png": PNG} if root else
               {f"Kvasir-SEG/Kvasir-SEG/{part}/{image}": PNG for part in ("images", "masks")})
    write_zip(tmp_path / "inbox/archive (2).zip", members)
    for split in ("train", "val", "test"):
        write_json(tmp_path / f"mirror/{name}/{split}.json", [row(image, image)] if split == "test" else [])
    spec = replace(SPECS[name], lists=tuple(replace(one, sha256=None) for one in SPECS[name].lists))
    download(spec, tmp_path / "raw", tmp_path / "inbox", tmp_path / "mirror", tmp_path / "checksums.json")
    assert len(prepared(name, tmp_path).samples) == 1


@pytest.mark.parametrize(("name", "image", "mask", "folders"), [
    ("bkai", "x.jpeg", "x.jpeg", ("train/train", "train_gt/train_gt")),
    ("clinicdb", "1.png", "1.png", ("PNG/Original", "PNG/Ground Truth")),
    ("dfu", "1.jpg", "1.png", ("DFUC2022_train_images", "DFUC2022_train_masks")),
])
def test_an_archive_that_the_user_put_there(tmp_path, name, image, mask, folders):
    fetched(name, {"archive.zip": {f"{folders[0]}/{image}": JPEG, f"{folders[1]}/{mask}": JPEG_MASK}},
            {"train": [], "val": [], "test": [row(image, mask)]}, tmp_path / "mirror", tmp_path / "raw")
    [sample] = prepared(name, tmp_path).samples
    assert sample.split == "test" and 0.01 < sample.area_fraction < 0.02


def test_what_an_archive_lacks_is_one_sentence_and_leaves_nothing(tmp_path):
    kvasir(tmp_path, {"train": ["a"], "val": ["b"], "test": ["c"]})
    (tmp_path / "raw/Kvasir-SEG/masks/c.jpg").unlink()
    with pytest.raises(UserError, match="Kvasir-SEG/masks/c.jpg does not exist"):
        prepared("kvasir_seg", tmp_path)
    assert not any(path.startswith(("out", ".out")) for path in everything_below(tmp_path))


def test_an_archive_of_another_layout_is_one_sentence(tmp_path):
    kvasir(tmp_path, {"train": ["a"], "val": ["b"], "test": ["c"]})
    (tmp_path / "raw/Kvasir-SEG/masks").rename(tmp_path / "raw/Kvasir-SEG/labels")
    with pytest.raises(UserError, match="holds 0 folders Kvasir-SEG/masks"):
        prepared("kvasir_seg", tmp_path)


def test_the_reason_for_missing_data_is_handed_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("chexlocalize", "clinicdb"):
        download(SPECS[name], Path("data/raw") / name, Path("data/inbox") / name)
        prepare_dataset(name, DataParams())
        dataset = PreparedDataset.read(Path("data/processed") / name)
        assert dataset.status == {"status": "not_run", "reason": not_run_reason(Path("data/raw") / name)}
        assert SPECS[name].title in dataset.status["reason"] and "https://" in dataset.status["reason"]
    assert "data/inbox/clinicdb/" in dataset.status["reason"]


def test_every_set_of_the_papers_has_a_way_to_its_data():
    assert sorted(SPECS) == [
        "bkai", "busi", "camus", "camvid", "chexlocalize", "cityscapes", "clinicdb", "coco_train2014", "colondb",
        "cvc300", "dfu", "etis", "isic2016", "kvasir_seg", "pranet_test", "refcoco", "refcoco_plus",
        "refcocog_google", "refcocog_umd"]
    for name, spec in SPECS.items():
        shared = isinstance(spec, DatasetSpec) and spec.images
        assert spec.name == name and [bool(spec.archives), bool(spec.how), bool(shared)].count(True) == 1
        assert not getattr(spec, "layout", None) or {resource.file for resource in spec.lists} == {
            "train.json", "val.json", "test.json"}
        assert spec.source.startswith("https://") and spec.licence and spec.citation


def entries(**splits: str) -> list[Entry]:
    return [Entry("", f"{name}.png", f"{name}.png", split)
            for split, names in splits.items() for name in names]


def test_a_leak_is_kept_where_it_is_scored():
    kept, notes = without_leaks(entries(train="abcb", test="cd", val="ade"))
    assert [(image, entry.split) for image, entry in kept] == [
        ("b", "train"), ("c", "test"), ("d", "test"), ("a", "val"), ("e", "val")]
    assert notes == [
        "Left out: 1 row of train, which test lists too.", "Left out: 1 row of train, listed twice.",
        "Left out: 1 row of train, which val lists too.", "Left out: 1 row of val, which test lists too."]


def test_published_leaks_can_be_kept():
    kept, notes = with_leaks(entries(train="aab", test="a"))
    assert [image for image, _ in kept] == ["a", "a.train1", "b", "a.test2"]
    assert notes == ["Kept as published: 2 rows repeat an image of another row or split."]
    assert with_leaks(entries(train="a")) == ([("a", entries(train="a")[0])], [])


@pytest.mark.parametrize(("folder", "name", "expected", "left_out"), [
    ("kvasir_polyp", "kvasir_seg", {"train": 800, "val": 100, "test": 100}, []),
    ("isic", "isic2016", {"train": 806, "val": 90, "test": 379}, [
        "Left out: 3 rows of train, which test lists too.", "Left out: 1 row of train, listed twice."]),
    ("bkai_polyp", "bkai", {"train": 796, "val": 100, "test": 100}, [
        "Left out: 1 row of train, which test lists too.", "Left out: 1 row of train, listed twice.",
        "Left out: 2 rows of train, which val lists too."]),
    ("clinicdb_polyp", "clinicdb", {"train": 490, "val": 61, "test": 61}, []),
    ("busi", "busi", {"train": 624, "val": 78, "test": 78}, []),
    ("dfu", "dfu", {"train": 1600, "val": 200, "test": 200}, []),
    ("colondb_polyp", "colondb", {"train": 20, "test": 360}, []),
    ("etis_polyp", "etis", {"train": 20, "test": 176}, []),
    ("chexlocalize", "chexlocalize", {"train": 1279, "val": 446, "test": 452}, []),
])
def test_the_published_lists_are_those_that_are_pinned(folder, name, expected, left_out):
    from featherseg.core.files import sha256_file

    lists, problems = shared("annotations") / "medvlsm" / folder, []
    read = []
    for resource in SPECS[name].lists:
        assert sha256_file(lists / resource.file) == resource.sha256
        read += map(SPECS[name].complete, read_list(lists / resource.file, problems))
    kept, notes = without_leaks(read)
    assert problems == [] and notes == left_out
    assert Counter(entry.split for _, entry in kept) == expected
    words = [entry.attributes.get("location") for _, entry in kept if not entry.prompts["p1"][0].startswith("No ")]
    assert sum(map(bool, words)) >= 0.99 * len(words)


def test_the_lists_of_camus_name_three_structures_in_four_frames_of_fifty_patients_each():
    lists, problems = shared("annotations") / "medvlsm/camus", []
    read = [SPECS["camus"].complete(entry) for split in ("val", "test")
            for entry in read_list(lists / f"{split}.json", problems)]
    kept, notes = without_leaks(read)
    assert problems == notes == [] and Counter(entry.split for _, entry in kept) == {"val": 600, "test": 600}
    assert len({name for name, _ in kept}) == 400 and len({entry.group for _, entry in kept}) == 100
    assert set(Counter(entry.target for _, entry in kept).values()) == {400}
    assert all(set(entry.attributes) == {"view", "cycle", "shape", "age", "sex", "quality"} for _, entry in kept)


def test_busi_names_the_attributes_of_its_tumors():
    form = "One small, medium a shadow-shaped malignant tumor at the top left, center in the breast ultrasound image."
    entry = Entry("", "1_malignant.png", "1_malignant.png", "test", prompts={"p0": [""], "p6": [form]})
    assert SPECS["busi"].complete(entry).attributes == {
        "number": "one", "size": "small, medium", "shape": "a shadow", "type": "malignant",
        "location": "top left, center"}
    normal = replace(entry, prompts={"p6": ["No tumor in the breast ultrasound image."]})
    assert SPECS["busi"].complete(normal).attributes == {}


def test_raw_data_are_never_written_over(tmp_path):
    (tmp_path / "raw/kvasir_seg").mkdir(parents=True)
    write_status(tmp_path / "raw/kvasir_seg", "an account is needed")
    (tmp_path / "processed").symlink_to(tmp_path / "raw")
    with pytest.raises(UserError, match="would be written where .* is read"):
        prepare_official("kvasir_seg", tmp_path / "raw/kvasir_seg", tmp_path / "processed/kvasir_seg")
    assert everything_below(tmp_path / "raw") == ["kvasir_seg", "kvasir_seg/status.json"]
