"""RefCOCO, RefCOCO+ and G-Ref from archives of the published form to samples, and what may be wrong with them."""

import pickle
import random
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import refer_files
from data_files import colours, everything_below, picture_bytes
from pycocotools import mask as coco
from refer_files import (
    HEIGHT,
    WIDTH,
    annotation,
    box_of,
    file_name,
    python_2_pickle,
    rectangle,
    reference,
    write_archives,
)

from featherseg.config import DataParams
from featherseg.core.errors import UserError
from featherseg.core.files import read_json
from featherseg.data import prepare
from featherseg.data.prepare import prepare_dataset
from featherseg.data.prepared import PreparedDataset, prompt_of
from featherseg.data.raw import specs
from featherseg.data.raw.download import download
from featherseg.data.raw.plain_pickle import read_plain_pickle
from featherseg.data.raw.segmentation import mask_of

SQUARE = rectangle(10, 5, 30, 25)


@pytest.fixture(autouse=True)
def _images_of_our_own(monkeypatch):
    """The archive of COCO's images is not the published one, whose checksum is known."""
    spec = specs.SPECS["coco_train2014"]
    monkeypatch.setitem(specs.SPECS, spec.name, replace(spec, archives=(replace(spec.archives[0], sha256=None),)))


def take(tmp_path: Path, monkeypatch, references: list[dict], annotations: list[dict], name: str = "refcoco",
         sizes: dict[str, int] | None = None, **options) -> PreparedDataset:
    """Write archives into a mirror, and run download and prepare as the stages do."""
    spec = specs.SPECS[name]
    archive = spec.archives[0].file
    write_archives(tmp_path / "mirror", references, annotations, archive=archive, split_by=spec.split_by, **options)
    sizes = Counter(one["split"] for one in references) if sizes is None else sizes
    monkeypatch.setitem(specs.SPECS, name, replace(spec, sizes=sizes))
    monkeypatch.chdir(tmp_path)
    for source in (name, "coco_train2014"):
        download(specs.SPECS[source], prepare.RAW / source, Path("data/inbox") / source, Path("mirror"))
    prepare_dataset(name, DataParams())
    return PreparedDataset.read(prepare.PROCESSED / name)


def fails(tmp_path: Path, monkeypatch, fault: str, *data, **options) -> None:
    """The archives are refused by one sentence, and nothing is written."""
    with pytest.raises(UserError, match=fault) as error:
        take(tmp_path, monkeypatch, *data, **options)
    assert "\n" not in str(error.value)
    assert not any("processed/" in path for path in everything_below(tmp_path))


# ---------------------------------------------------------------- from archives to samples


@pytest.mark.parametrize(("name", "splits"), [
    ("refcoco", ("train", "val", "testA", "testB")), ("refcoco_plus", ("train", "val", "testA", "testB")),
    ("refcocog_umd", ("train", "val", "test")), ("refcocog_google", ("train", "val"))])
@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_from_the_archives_to_samples(tmp_path, monkeypatch, name, splits, protocol):
    references = [reference(number, split, 1 + number % 3) for number, split in enumerate(splits)]
    annotations = [annotation(number, [SQUARE], 1 + number % 3) for number in range(9)]
    dataset = take(tmp_path, monkeypatch, references, annotations, name, protocol=protocol)
    assert [sample.split for sample in dataset.samples] == list(splits)
    first = dataset.samples[0]
    assert first.sample_id == f"{name}/COCO_train2014_000000000001/person" and first.group == first.image_id
    assert first.prompts == {"p0": [""], "p1": ["person"], "sentences": ["left one", "the red one", "Man"]}
    assert first.attributes == {"ref_id": 0, "ann_id": 0, "category": "person"}
    assert (dataset.mask(first) == box_of(10, 5, 30, 25)).all()
    card = (prepare.PROCESSED / name / "card.md").read_text()
    assert specs.SPECS[name].title in card and f"{3 * len(splits)} sentences of 1 to 3 words" in card


def test_an_image_is_read_in_its_archive_and_only_where_a_reference_needs_it(tmp_path, monkeypatch):
    dataset = take(tmp_path, monkeypatch, [reference(5, image_id=2)], [annotation(5, [SQUARE], 2)])
    assert everything_below(Path("data/raw/coco_train2014")) == ["status.json", "train2014.zip"]
    assert everything_below(dataset.path / "images") == [file_name(2)]
    with zipfile.ZipFile("mirror/train2014.zip") as archive:
        assert (dataset.path / "images" / file_name(2)).read_bytes() == archive.read(f"train2014/{file_name(2)}")
    assert read_json("data/checksums.json").keys() == {"coco_train2014/train2014.zip", "refcoco/refcoco.zip"}


def test_our_own_download_of_the_images_is_not_copied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_archives(tmp_path / ".cache/downloads/coco_train2014", [], [])
    download(specs.SPECS["coco_train2014"], Path("raw"), Path("inbox"), checksums=Path("sums.json"))
    kept, cached = (Path(place) / "train2014.zip" for place in ("raw", ".cache/downloads/coco_train2014"))
    assert kept.stat().st_ino == cached.stat().st_ino


def test_a_file_that_is_no_archive_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/train2014.zip").write_text("an error page")
    with pytest.raises(UserError, match="train2014.zip is neither a zip"):
        download(specs.SPECS["coco_train2014"], Path("raw"), Path("inbox"), checksums=Path("sums.json"))
    assert not Path("raw").exists() and not Path("sums.json").exists()


def test_several_references_to_one_image_have_names_of_their_own(tmp_path, monkeypatch):
    dataset = take(tmp_path, monkeypatch, [reference(4), reference(5), reference(6), reference(7)], [
        annotation(4, [SQUARE]), annotation(5, [rectangle(0, 0, 5, 5)]), annotation(6, [SQUARE], category_id=7),
        annotation(7, [SQUARE])])
    assert [sample.target for sample in dataset.samples] == ["person", "person 2", "cell phone", "person 3"]
    assert [sample.prompts["p1"] for sample in dataset.samples] == [["person"], ["person"], ["cell phone"], ["person"]]
    assert len(everything_below(dataset.path / "images")) == 1


def test_sentences_of_no_word_and_of_500_are_kept_and_counted(tmp_path, monkeypatch):
    dataset = take(tmp_path, monkeypatch, [reference(1, sentences=("", "word " * 500, "поліп"))],
                   [annotation(1, [SQUARE])])
    [sample] = dataset.samples
    assert sample.prompts["sentences"] == ["", " ".join(["word"] * 500), "поліп"]
    assert prompt_of(sample, "fullest") == ""
    card = (dataset.path / "card.md").read_text()
    assert "3 sentences of 0 to 500 words" in card and "1 sentences are empty" in card


def test_an_image_in_two_splits_is_said(tmp_path, monkeypatch):
    dataset = take(tmp_path, monkeypatch, [reference(1), reference(2, "val"), reference(3, "val", 2)],
                   [annotation(1, [SQUARE]), annotation(2, [SQUARE]), annotation(3, [SQUARE], 2)], "refcocog_google")
    assert "1 images occur in more than one split" in (dataset.path / "card.md").read_text()


def test_the_official_sizes_are_those_of_the_published_sets():
    sizes = {name: spec.sizes for name, spec in specs.SPECS.items() if name.startswith("refcoco")}
    assert sizes == {
        "refcoco": {"train": 42404, "val": 3811, "testA": 1975, "testB": 1810},
        "refcoco_plus": {"train": 42278, "val": 3805, "testA": 1975, "testB": 1798},
        "refcocog_umd": {"train": 42226, "val": 2573, "test": 5023},
        "refcocog_google": {"train": 44822, "val": 5000}}
    assert sum(sizes["refcoco"].values()) == 50_000
    assert sum(sizes["refcocog_umd"].values()) == sum(sizes["refcocog_google"].values()) == 49_822
    for name in sizes:
        [archive] = specs.SPECS[name].archives
        assert archive.url == ("https://bvisionweb1.cs.unc.edu/licheng/referit/data/"
                               f"{specs.SPECS[name].folder}.zip") and archive.sha256 is None


# ---------------------------------------------------------------- what is not to be had


@pytest.mark.parametrize("present", ["refcoco", "coco_train2014"])
def test_what_is_missing_is_handed_on(tmp_path, monkeypatch, present):
    write_archives(tmp_path / "mirror", [reference(1)], [annotation(1, [SQUARE])])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featherseg.data.raw.fetch.time.sleep", lambda _: None)
    for name in ("refcoco", "coco_train2014"):
        spec = specs.SPECS[name]
        unreachable = replace(spec.archives[0], url="http://127.0.0.1:9/file.zip")
        download(replace(spec, archives=(unreachable,)), prepare.RAW / name, Path("data/inbox") / name,
                 Path("mirror") if name == present else None)
    prepare_dataset("refcoco", DataParams())
    status = read_json("data/processed/refcoco/status.json")
    [absent] = {"refcoco", "coco_train2014"} - {present}
    assert status["status"] == "not_run" and f"into data/inbox/{absent}/" in status["reason"]


def test_the_images_alone_are_no_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_archives(tmp_path / "mirror", [], [])
    download(specs.SPECS["coco_train2014"], prepare.RAW / "coco_train2014", Path("inbox"), Path("mirror"))
    with pytest.raises(UserError, match="holds images only, for refcoco, refcoco_plus, refcocog_google, refcocog_umd"):
        prepare_dataset("coco_train2014", DataParams())


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(("references", "annotations", "fault"), [
    ([reference(1, ann_id=8)], [annotation(1, [SQUARE])], "refcoco, reference 1: annotation 8 is not in instances"),
    ([reference(1, image_id=8)], [annotation(1, [SQUARE], 8)], "reference 1: image 8 is not in instances"),
    ([reference(1)], [annotation(1, [SQUARE], 2)], "reference 1 is to image 1 but its annotation 1 .* image 2"),
    ([reference(1)], [annotation(1, [SQUARE], category_id=3)], "reference 1: category 3 is not in instances"),
    ([reference(1)], [annotation(1, [])], "annotation 1 has no mask: its segmentation has no polygon; get"),
    ([reference(1)], [{"id": 1, "image_id": 1, "category_id": 1}], "no mask: its segmentation is neither polygons"),
    ([reference(1, sentences=())], [annotation(1, [SQUARE])], r"at 0, sentences: list should have at least 1 item"),
    ([{**reference(1), "sentences": [{"raw": "x"}]}], [], r"refs\(unc\).p, at 0, sentences, 0, sent: field required"),
    ([{**reference(1), "ref_id": "1"}], [], r"refs\(unc\).p, at 0, ref_id: input should be a valid integer"),
])
def test_an_archive_that_does_not_fit_together(tmp_path, monkeypatch, references, annotations, fault):
    fails(tmp_path, monkeypatch, fault, references, annotations)


@pytest.mark.parametrize(("sizes", "fault"), [
    ({"train": 2}, "refcoco, split train: 1 references where 2 were published"),
    ({"train": 1, "testB": 1810}, "refcoco, split testB: 0 references where 1810 were published"),
    ({"val": 1}, r"1 references are of the split 'train', which the published set has not \(val\)"),
])
def test_sizes_and_names_of_splits_are_those_that_were_published(tmp_path, monkeypatch, sizes, fault):
    fails(tmp_path, monkeypatch, fault, [reference(1)], [annotation(1, [SQUARE])], sizes=sizes)


def test_an_image_that_the_archive_lacks(tmp_path, monkeypatch):
    write_archives(tmp_path / "other", [], [], images=(2,))
    original = prepare.prepare_referring

    def without_the_image(spec, raw, images, out):
        (images / "train2014.zip").write_bytes((tmp_path / "other/train2014.zip").read_bytes())
        original(spec, raw, images, out)

    monkeypatch.setattr(prepare, "prepare_referring", without_the_image)
    fails(tmp_path, monkeypatch, f"reference 1: .*coco_train2014 holds no image {file_name(1)}",
          [reference(1)], [annotation(1, [SQUARE])])


def test_an_image_that_is_damaged(tmp_path, monkeypatch):
    fails(tmp_path, monkeypatch, f"train2014.zip/train2014/{file_name(1)} cannot be read as a picture",
          [reference(1)], [annotation(1, [SQUARE])], spare=b"no picture")


@pytest.mark.parametrize("size", [(10, 10), (-3, 60), (10**9, 10**9)])
def test_an_image_of_another_size_than_its_entry_is_never_drawn(tmp_path, monkeypatch, size):
    """What pycocotools is asked for, it allocates."""
    monkeypatch.setattr("featherseg.data.raw.refer.mask_of", None)
    monkeypatch.setattr(refer_files, "HEIGHT", size[0])
    monkeypatch.setattr(refer_files, "WIDTH", size[1])
    fails(tmp_path, monkeypatch, f"{file_name(1)} has 12 rows and 17 columns, but instances.json says {size[0]} and "
          f"{size[1]}; get", [reference(1)], [annotation(1, [SQUARE])], spare=picture_bytes(colours(12, 17), "JPEG"))


@pytest.mark.parametrize("member", ["prompts", "sample_id"])
def test_half_a_letter_is_said(tmp_path, monkeypatch, member):
    """A pickle's or a JSON file's text may hold what UTF-8 cannot."""
    references = [reference(1, sentences=("fine", "half \ud800 a letter" if member == "prompts" else "fine"))]
    monkeypatch.setattr(refer_files, "CATEGORY", "person" if member == "prompts" else "cat\udfff")
    fails(tmp_path, monkeypatch, f"its {member} cannot be written as UTF-8", references, [annotation(1, [SQUARE])],
          pickled=pickle.dumps(references))


# ---------------------------------------------------------------- pickles


class Danger:
    """Runs code where it is unpickled by the ordinary means."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_with_code_is_refused_and_nothing_of_it_runs(tmp_path, monkeypatch, protocol):
    content = pickle.dumps([reference(1), Danger(tmp_path / "ran")], protocol)
    pickle.loads(content)
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    fails(tmp_path, monkeypatch, r"refs\(unc\).p names \w+\.\S+, but .* nothing of it was run", [reference(1)], [],
          pickled=content)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [
    b"cos\nsystem\n(S'true'\ntR.", b"(S'true'\nios\nsystem\n.", b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93.", b"(cos\nsystem\nS'true'\no."])
def test_every_way_to_name_a_function_is_refused(tmp_path, content):
    (tmp_path / "x.p").write_bytes(content)
    with pytest.raises(UserError, match=r"x.p names (os.system|builtins.eval), but"):
        read_plain_pickle(tmp_path / "x.p")


@pytest.mark.parametrize("content", [
    b"", b"garbage", b"P0\n.", b"\x80\x02\x82\x01.", b"}(S'a'\nI1\nub.", b"\x80\x04\x8f.", b"(lp0\ng7\n.",
    b"\x80\x02\x8bFFFF.", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f."[:-1], b"(dp0\n(lI1\ns."])
def test_a_damaged_pickle_is_one_sentence(tmp_path, content):
    (tmp_path / "x.p").write_bytes(content)
    with pytest.raises(UserError, match="x.p is damaged or no pickle of plain data") as error:
        read_plain_pickle(tmp_path / "x.p")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", [0, 2])
def test_cut_and_flipped_pickles_never_get_past_one_sentence(tmp_path, protocol):
    good, draw = python_2_pickle([reference(1), reference(2)], protocol), random.Random(0)
    path, refused = tmp_path / "x.p", 0
    for number in range(400):
        content = bytearray(good)
        if number % 2:
            del content[draw.randrange(len(content)):]
        else:
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(bytes(content))
        try:
            read_plain_pickle(path)
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused > 200


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_read_whole(tmp_path, protocol):
    value = {"a": [1, -2, 2**70, 1.5, None, True, ("x",), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, [], ()], "é": "ü" * 300}
    (tmp_path / "x.p").write_bytes(pickle.dumps(value, protocol))
    assert read_plain_pickle(tmp_path / "x.p") == value
    if protocol < 3:
        (tmp_path / "x.p").write_bytes(python_2_pickle(value, protocol))
        assert read_plain_pickle(tmp_path / "x.p") == value


# ---------------------------------------------------------------- masks


def compressed(mask: np.ndarray) -> dict:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def runs(mask: np.ndarray) -> dict:
    flat = mask.flatten(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def test_several_polygons_are_united():
    mask = mask_of([SQUARE, rectangle(20, 10, 50, 15), rectangle(0, 35, 60, 40)], HEIGHT, WIDTH)
    assert mask.dtype == bool
    assert (mask == box_of(10, 5, 30, 25) | box_of(20, 10, 50, 15) | box_of(0, 35, 60, 40)).all()


def test_a_polygon_of_two_points_encloses_nothing():
    assert (mask_of([[1.0, 2.0, 3.0, 4.0], SQUARE], HEIGHT, WIDTH) == box_of(10, 5, 30, 25)).all()
    with pytest.raises(UserError, match="no polygon"):
        mask_of([[1.0, 2.0, 3.0, 4.0]], HEIGHT, WIDTH)


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths_are_read_compressed_or_not(seed):
    draw = np.random.default_rng(seed)
    mask = draw.random((HEIGHT, WIDTH)) < (0.5, 0.02, 0.99, 0.0, 1.0, 0.3)[seed]
    if seed == 5:
        mask = np.kron(mask[:10, :10], np.ones((30, 50), bool))
    for written in (runs(mask), compressed(mask)):
        assert (mask_of(written, *mask.shape) == mask).all()


@pytest.mark.parametrize(("segmentation", "fault"), [
    (None, "neither polygons nor run lengths"), ("x", "neither"), ([], "has no polygon"), ([3], "a polygon that is no"),
    ([[1, 2, 3, 4, 5]], "a polygon that is no"), ([[0, 0, 1e9, 0, 1e9, 1e9]], "a polygon that is no"),
    ([[0, 0, float("nan"), 0, 1, 1]], "a polygon that is no"), ([["a", 0, 1, 1, 2, 2]], "a polygon that is no"),
    ({"size": [3, 4], "counts": [12]}, r"of size \[3, 4\] but the image has 40 rows and 60"),
    ({"size": [40, 60], "counts": [10, 5]}, "run lengths of 15 pixels but the image has 2400"),
    ({"size": [40, 60], "counts": [10, -5, 2395]}, "has no run lengths"),
    ({"size": [40, 60], "counts": [10.5, 2389.5]}, "has no run lengths"), ({"size": [40, 60]}, "has no run lengths"),
    ({"size": [40, 60], "counts": "c26>0000"}, "run lengths"), ({"size": [40, 60], "counts": "é🦜"}, "run lengths"),
    ({"size": [40, 60], "counts": ""}, "run lengths of 0 pixels"),
    ({"size": [40, 60], "counts": "o" * 10**7}, "run lengths that no image has"),
])
def test_a_segmentation_that_is_none_is_said_and_never_drawn(segmentation, fault):
    with pytest.raises(UserError, match=fault):
        mask_of(segmentation, HEIGHT, WIDTH)
