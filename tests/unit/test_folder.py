import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_files import box, colours, everything_below, full_disk, picture_bytes, save, shared, write_json
from PIL import Image

from featherseg.config import DataParams, FolderParams
from featherseg.core.errors import UserError
from featherseg.data.folder.own_folder import check_folder, folder_notes, prepare_folder
from featherseg.data.prepare import prepare_dataset
from featherseg.data.prepared import PreparedDataset, prompt_of


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three images a, b and c with a mask each."""
    for seed, name in enumerate("abc"):
        save(tmp_path / f"in/images/{name}.png", colours(seed=seed))
        save(tmp_path / f"in/masks/{name}.png", box())
    return tmp_path / "in"


def take(folder: Path, **options) -> PreparedDataset:
    prepare_folder("own", folder, folder.parent / "out", **options)
    return PreparedDataset.read(folder.parent / "out")


def fails(folder: Path, fault: str, **options) -> None:
    """The folder is refused by one sentence, also by the check, and nothing is written."""
    with pytest.raises(UserError, match=fault) as error:
        take(folder, **options)
    assert "\n" not in str(error.value)
    assert all(path.startswith("in") for path in everything_below(folder.parent))
    assert any(re.search(fault, sentence) for sentence in check_folder(folder, **options))


def save_list(folder: Path, split: str, *rows: dict) -> None:
    """`anns/<split>.json`; `image` stands for the names of image and mask."""
    write_json(folder / f"anns/{split}.json", [
        {"img_name": f"{row['image']}.png", "mask_name": f"{row['image']}.png",
         **{key: value for key, value in row.items() if key != "image"}} for row in rows])


# ---------------------------------------------------------------- without a list


def test_images_and_masks_are_enough(folder):
    dataset = take(folder)
    assert [sample.sample_id for sample in dataset.samples] == [f"own/{name}/object" for name in "abc"]
    assert {sample.split for sample in dataset.samples} == {"train", "val", "test"}
    assert dataset.samples[0].prompts["p1"] == ["object"]
    assert (dataset.mask(dataset.samples[1]) == box()).all()
    assert check_folder(folder) == []


def test_prompts_are_made_where_the_folder_has_none(folder):
    red, grey = np.full((20, 30, 3), (214, 32, 32), np.uint8), np.full((20, 30, 3), 90, np.uint8)
    save(folder / "images/a.png", red)
    save(folder / "images/b.png", grey)
    save(folder / "masks/c.png", np.zeros((20, 30), bool))
    a, b, c = take(folder, class_name="polyp", descriptions={"polyp": ["a growth"]}).samples
    assert a.attributes == {"number": "one", "size": "small", "location": "left", "shape": None, "colour": "red"}
    assert a.prompts == {
        "p0": [""], "p1": ["polyp"], "p2": ["polyp"], "p3": ["red polyp"], "p4": ["small red polyp"],
        "p5": ["one small red polyp"], "p6": ["one small red polyp, located in left of the image"],
        "p7": ["polyp which is a growth"], "p8": ["one small red polyp which is a growth"],
        "p9": ["one small red polyp which is a growth located in left of the image"]}
    assert prompt_of(b, "fullest") == "one small polyp which is a growth located in left of the image"
    assert {text for level, texts in c.prompts.items() if level < "p7" for text in texts} == {"", "polyp"}
    card = (folder.parent / "out/card.md").read_text()
    assert "Prompts of 3 samples were made" in card
    assert "number of 1, size of 1, location of 1, shape of 3, colour of 2" in card


def test_every_structure_keeps_its_name_in_every_level(folder):
    save(folder / "masks/a__left_lung.png", box(rows=slice(2, 18)))
    for sample in take(folder).samples:
        assert all(sample.target in text for level, texts in sample.prompts.items() if level != "p0" for text in texts)
        assert prompt_of(sample, "fullest").endswith("of the image")


def test_prompts_of_the_folder_stand_alone(folder):
    (folder / "list.csv").write_text("image,prompt\na.png,the dark one\nb.png,\n")
    fails(folder, "the folder's list has prompts of its own", descriptions={"object": ["x"]})
    a, b = take(folder).samples
    assert a.prompts == {"p0": [""], "p1": ["the dark one"]} and b.prompts == {"p0": [""], "p1": ["object"]}
    assert a.attributes == b.attributes == {} and "were made" not in (folder.parent / "out/card.md").read_text()


def test_attributes_of_a_list_win_over_measured_ones(folder):
    (folder / "list.csv").write_text("image,location,number\na.png,near the hilum,\n")
    sample, = take(folder).samples
    assert sample.attributes["location"] == "near the hilum" and sample.attributes["number"] == "one"
    assert sample.prompts["p6"][0].endswith("object, located in near the hilum of the image")


@pytest.mark.parametrize("options, fault", [
    ({"field": "endoscopie"}, "unknown field of prompts 'endoscopie': did you mean 'endoscopy'"),
    ({"field": "street"}, "field 'street' has no prompt template for the class 'object'"),
    ({"descriptions": {"heart": ["a muscle"]}}, "unknown class with a description 'heart': valid values are object"),
])
def test_prompts_that_cannot_be_made(folder, options, fault):
    fails(folder, fault, **options)


def test_the_class_may_be_named(folder):
    assert take(folder, class_name="polyp").samples[0].prompts["p1"] == ["polyp"]


def test_several_structures_by_the_masks_name(folder):
    save(folder / "masks/a__left_lung.png", box())
    save(folder / "masks/a__heart.png", box(rows=slice(0, 2)))
    (folder / "masks/a.png").unlink()
    dataset = take(folder)
    assert [(sample.image_id, sample.target) for sample in dataset.samples] == [
        ("a", "heart"), ("a", "left lung"), ("b", "object"), ("c", "object")]
    assert dataset.samples[0].bbox == (3, 0, 9, 2)


def test_several_structures_by_the_masks_folder(folder):
    for name in "abc":
        (folder / f"masks/{name}.png").unlink()
        for target in ("left_lung", "heart"):
            save(folder / f"masks/{target}/{name}.png", box())
    assert Counter(sample.target for sample in take(folder).samples) == {"left lung": 3, "heart": 3}


def test_an_images_own_name_may_look_like_that_of_a_mask(folder):
    save(folder / "images/d__1.png", colours())
    save(folder / "masks/d__1__heart.png", box())
    save(folder / "images/e__2.png", colours())
    save(folder / "masks/e__2.png", box())
    assert [(sample.image_id, sample.target) for sample in take(folder).samples[3:]] == [
        ("d__1", "heart"), ("e__2", "object")]


@pytest.mark.parametrize("name", ["a_mask.png", "a_Segmentation.png", "a_gt.tif"])
def test_common_endings_of_masks_are_known(folder, name):
    (folder / "masks/a.png").unlink()
    save(folder / "masks" / name, box())
    assert take(folder).samples[0].sample_id == "own/a/object"


@pytest.mark.parametrize("image", ["x.jpg", "x.jpeg", "x.png", "x.tif", "x.tiff", "x.bmp", "x.JPG"])
@pytest.mark.parametrize("channels", [3, 1])
def test_files_of_any_kind(tmp_path, image, channels):
    ramp = np.linspace(0, 255, 600).reshape(20, 30).astype(np.uint8)
    pixels = np.dstack([ramp, 255 - ramp, ramp // 2]) if channels == 3 else ramp
    save(tmp_path / "in/images" / image, pixels)
    save(tmp_path / "in/masks/x.bmp", box())
    dataset = take(tmp_path / "in")
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    difference = np.abs(dataset.image(dataset.samples[0]).astype(int) - expected)
    assert difference.max() <= (25 if Path(image).suffix.lower() in (".jpg", ".jpeg") else 0)


def test_16_bits_and_transparency(tmp_path):
    save(tmp_path / "in/images/deep.tif", (colours()[..., 0].astype(np.uint16) * 16))
    save(tmp_path / "in/images/clear.png", np.dstack([colours(), np.zeros((20, 30), dtype=np.uint8)]))
    for name in ("deep", "clear"):
        save(tmp_path / f"in/masks/{name}.png", (box() * 65535).astype(np.uint16))
    dataset = take(tmp_path / "in")
    assert (dataset.image(dataset.samples[0]) == colours()).all()
    assert np.ptp(dataset.image(dataset.samples[1])) > 240
    assert all((dataset.mask(sample) == box()).all() for sample in dataset.samples)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (50, 10_000)])
def test_images_of_any_size(tmp_path, height, width):
    save(tmp_path / "in/images/x.png", colours(height, width))
    save(tmp_path / "in/masks/x.png", np.ones((height, width), dtype=bool))
    sample = take(tmp_path / "in").samples[0]
    assert (sample.height, sample.width, sample.area_fraction) == (height, width, 1.0)
    assert (tmp_path / "out/contact_sheet.png").exists()


def test_a_mask_fits_the_upright_image(folder):
    exif = Image.Exif()
    exif[0x0112] = 8
    save(folder / "images/a.jpg", colours(), exif=exif)
    (folder / "images/a.png").unlink()
    fails(folder, r"masks/a.png is 30x20 pixels but its image .*a.jpg is 20x30 \(upright\)")
    save(folder / "masks/a.png", box(30, 20))
    assert take(folder).samples[0].height == 30


def test_an_empty_mask_is_counted(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    save(folder / "masks/a.png", np.zeros((20, 30), dtype=bool))
    prepare_dataset("own", DataParams(folders={"own": FolderParams(path="in")}))
    assert "1 masks are empty" in capsys.readouterr().out
    assert "3, 1 of them empty" in Path("data/processed/own/card.md").read_text()


# ---------------------------------------------------------------- with a list


def test_json_lists_give_splits_prompts_and_targets(folder):
    save_list(folder, "train", {"image": "a", "structure": "left lung", "patient": 7, "modality": "x-ray",
                                "prompts": {"p0": "", "p1": ["x", "y"]}})
    save_list(folder, "testA", {"image": "b"},
              {"image": "c", "split": "unnamed", "attributes": {"size": "small"}})
    b, c, a = take(folder, class_name="lung").samples
    assert [(sample.image_id, sample.split, sample.target) for sample in (a, b, c)] == [
        ("a", "train", "left lung"), ("b", "testA", "lung"), ("c", "unnamed", "lung")]
    assert a.prompts == {"p0": [""], "p1": ["x", "y"]} and b.prompts == {"p0": [""], "p1": ["lung"]}
    assert a.group == "7" and a.attributes == {"modality": "x-ray"} and c.attributes == {"size": "small"}


def test_a_list_names_files_with_whatever_extension(folder):
    write_json(folder / "anns/test.json", [{"img_name": "images/a.jpg", "mask_name": "masks/a.jpg"}])
    assert [sample.image_id for sample in take(folder).samples] == ["a"]
    assert "2 images are in no list" in (folder.parent / "out/card.md").read_text()
    save_list(folder, "test", {"image": "a"}, {"image": "b"})
    take(folder)
    assert "1 image is in no list" in (folder.parent / "out/card.md").read_text()


def test_a_csv_gives_the_same(folder):
    (folder / "samples.csv").write_text(
        "image,mask,structure,split,patient_id,p1,p2,size\n"
        'a.png,a.png,polyp,train,P1,polyp,"[""red polyp"", ""rosy polyp""]",small\n'
        "b,b.png,polyp,val,P1,polyp,,\n", encoding="utf-8-sig")
    a, b = take(folder).samples
    assert (a.split, a.group, a.target, a.attributes) == ("train", "P1", "polyp", {"size": "small"})
    assert a.prompts == {"p0": [""], "p1": ["polyp"], "p2": ["red polyp", "rosy polyp"]}
    assert b.prompts == {"p0": [""], "p1": ["polyp"]} and b.attributes == {}
    assert "1 group (patient) in several splits (train and val: 1)" in (folder.parent / "out/card.md").read_text()


@pytest.mark.parametrize(("cell", "spacing"), [
    ("0.5", (0.5, 0.5)), ("0.5 0.25", (0.5, 0.25)), ('"0.5, 0.25"', (0.5, 0.25)), ("0.5x0.25", (0.5, 0.25)),
    ('"[0.5, 0.25]"', (0.5, 0.25)), ("", None)])
def test_a_list_says_the_millimetres_of_a_pixel(folder, cell, spacing):
    (folder / "list.csv").write_text(f"image,pixel_spacing\na.png,{cell}\nb.png,1\n")
    a, b = take(folder).samples
    assert (a.spacing, b.spacing) == (spacing, (1, 1))
    assert a.prompts.keys() >= {"p1", "p6"} and "pixel" not in str(a.prompts)


@pytest.mark.parametrize("given", [0.5, [0.5, 0.5], "0.5"])
def test_a_json_list_says_it_too(folder, given):
    save_list(folder, "train", {"image": "a", "pixel_spacing": given})
    assert take(folder).samples[0].spacing == (0.5, 0.5)


@pytest.mark.parametrize("cell", ["0", "-1", "nan", "inf", "wide", "1 2 3", "0.5 mm"])
def test_a_spacing_that_is_none_is_one_sentence(folder, cell):
    (folder / "list.csv").write_text(f"image,pixel_spacing\na.png,{cell}\n")
    fails(folder, f"line 2: pixel_spacing is '{cell}'; give the millimetres of a pixel as one number above 0")


@pytest.mark.parametrize("cell", ["1,5", "0,5"])
def test_a_decimal_comma_is_not_taken_for_two_numbers(folder, cell):
    (folder / "list.csv").write_text(f"image;pixel_spacing\na.png;{cell}\n")
    fails(folder, f"line 2: pixel_spacing is '{cell}'; give the millimetres of a pixel as one number above 0")


def test_a_csv_of_images_speaks_for_all_their_masks(folder):
    save(folder / "masks/a__heart.png", box())
    (folder / "patients.csv").write_text("Image,Patient,prompt\na.png,p,the thing\nb.png,p,\nc.png,q,\n")
    samples = take(folder).samples
    assert [(sample.image_id, sample.target, sample.group) for sample in samples] == [
        ("a", "object", "p"), ("a", "heart", "p"), ("b", "object", "p"), ("c", "object", "q")]
    splits = {sample.group: sample.split for sample in samples}
    assert [sample.split for sample in samples] == [splits["p"]] * 3 + [splits["q"]]
    assert sorted(splits.values()) == ["test", "train"]
    assert samples[0].prompts["p1"] == ["the thing"] and samples[2].prompts["p1"] == ["object"]


def test_a_csv_of_targets_finds_each_ones_mask_by_name(folder):
    save(folder / "masks/a__heart.png", box())
    save(folder / "masks/a__left_lung.png", box(rows=slice(0, 2)))
    (folder / "masks/a.png").unlink()
    (folder / "list.csv").write_text("image,target,split\na,left lung,test\na,heart,test\n")
    samples = take(folder).samples
    assert [(sample.target, sample.bbox[1]) for sample in samples] == [("left lung", 0), ("heart", 5)]


def test_a_list_may_hold_sentences(folder):
    save_list(folder, "train", {"image": "a", "sentences": ["the left one", "left " * 500]},
              {"image": "b", "sentences": [{"idx": 0, "sent_id": 7, "sent": "the red one"}], "sentences_num": 1},
              {"image": "c", "sentences": ["not meant"], "prompts": {"p1": "x", "sentences": ["one", "two"]}})
    a, b, c = take(folder).samples
    assert a.prompts == {"p0": [""], "sentences": ["the left one", "left " * 500]}
    assert b.prompts["sentences"] == ["the red one"] and c.prompts == {"p1": ["x"], "sentences": ["one", "two"]}


def test_a_csv_may_hold_a_sentence_a_line(folder):
    save(folder / "masks/a__left.png", box(rows=slice(0, 2)))
    (folder / "masks/a.png").rename(folder / "masks/a__right.png")
    (folder / "list.csv").write_text("\n".join([
        "image,target,split,p1,sentence", "a.png,left,testA,lung,the upper one", "b.png,,train,,alone",
        'a.png,left,testA,,"up, and left"', "a.png,right,testA,,the lower one", "b.png,,train,,"]))
    samples = {(sample.image_id, sample.target): sample for sample in take(folder).samples}
    assert len(samples) == 3 and {sample.split for sample in samples.values()} == {"testA", "train"}
    assert samples["a", "left"].prompts == {
        "p0": [""], "p1": ["lung"], "sentences": ["the upper one", "up, and left"]}
    assert samples["a", "right"].prompts["sentences"] == ["the lower one"]
    assert samples["b", "object"].prompts["sentences"] == ["alone"]


def test_a_csv_may_hold_a_list_of_sentences(folder):
    (folder / "list.csv").write_text('image,sentences\na.png,"[""x"", ""y""]"\nb.png,z\n')
    a, b = take(folder).samples
    assert a.prompts["sentences"] == ["x", "y"] and b.prompts["sentences"] == ["z"]
@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_may_have_other_separators(folder, mark):
    (folder / "list.csv").write_text(f"image{mark}split{mark}p1\na.png{mark}val{mark}one, red\n")
    sample, = take(folder).samples
    assert (sample.image_id, sample.split, sample.prompts["p1"]) == ("a", "val", ["one, red"])


def test_a_dot_belongs_to_a_name(folder):
    for part in ("images", "masks"):
        (folder / part / "a.png").rename(folder / part / "1.2.840.png")
    write_json(folder / "anns/test.json", [{"img_name": "1.2.840", "mask_name": "1.2.840", "prompts": None}])
    sample, = take(folder).samples
    assert sample.image_id == "1.2.840" and sample.prompts["p1"] == ["object"]


def test_folders_named_like_lists_are_none(folder):
    (folder / "anns/old.json").mkdir(parents=True)
    (folder / "old.csv").mkdir()
    assert len(take(folder).samples) == 3


def test_attributes_come_only_from_cumulative_prompts(folder):
    cumulative = {"p1": "polyp", "p2": "round polyp", "p3": "red round polyp", "p4": "small red round polyp",
                  "p5": "one small red round polyp",
                  "p6": "one small red round polyp, located in top of the image"}
    save_list(folder, "train", {"image": "a", "prompts": cumulative},
              {"image": "b", "prompts": {**cumulative, "p3": "polyp that is red"}},
              {"image": "c", "prompts": {**cumulative, "p6": "at the top"}})
    a, b, c = take(folder).samples
    assert a.attributes == {"shape": "round", "colour": "red", "size": "small", "number": "one",
                            "location": "top"}
    assert b.attributes == c.attributes == {}


# ---------------------------------------------------------------- what is wrong


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="the folder nowhere does not exist"):
        prepare_folder("own", "nowhere", tmp_path / "out")


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_part_that_is_not_there(folder, part):
    (folder / part).rename(folder / "other")
    fails(folder, f"has no folder {part}/")


def test_no_image(folder):
    for name in "abc":
        (folder / f"images/{name}.png").unlink()
    fails(folder, "holds no image")


@pytest.mark.parametrize("name", ["z ", " z", "z\\y"])
def test_a_name_that_no_sample_can_have(folder, name):
    save(folder / f"images/{name}.png", colours())
    save(folder / f"masks/{name}.png", box())
    fails(folder, f"{re.escape(name)}.png' has a blank at an end of its name or a backslash")


def test_a_missing_mask(folder):
    (folder / "masks/b.png").unlink()
    fails(folder, r"images/b.png has no mask; add .*masks/b.png")


def test_a_mask_of_no_image(folder):
    save(folder / "masks/z.png", box())
    fails(folder, r"masks/z.png belongs to no image")


def test_a_mask_of_another_size(folder):
    save(folder / "masks/b.png", box(21, 30))
    fails(folder, r"masks/b.png is 30x21 pixels but its image .*images/b.png is 30x20")


def test_a_grey_mask(folder):
    save(folder / "masks/b.png", colours()[..., 0])
    fails(folder, r"masks/b.png has \d+ grey levels .*`threshold`")
    dataset = take(folder, threshold=100)
    assert (dataset.mask(dataset.samples[1]) == (colours()[..., 0] >= 100)).all()


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_truncated_file(folder, part):
    data = picture_bytes(colours(200, 200), "PNG")
    (folder / part / "b.png").write_bytes(data[:len(data) // 2])
    fails(folder, rf"{part}/b.png cannot be read as a picture")


def test_an_unreadable_file(folder):
    (folder / "images/b.png").write_bytes(b"nothing")
    fails(folder, "images/b.png cannot be read as a picture .its format is unknown")


def test_two_images_of_one_name(folder):
    save(folder / "images/a.jpg", colours())
    fails(folder, r"images/a.png and .*images/a.jpg have one name")


def test_a_target_listed_twice(folder):
    save_list(folder, "train", {"image": "a"}, {"image": "b"})
    save_list(folder, "val", {"image": "a"})
    fails(folder, r"val.json, row 0: image 'a' has a target 'object' already \(.*train.json, row 0\)")


@pytest.mark.parametrize(("row", "fault"), [
    ({"image": "a", "prompts": {"p1": []}}, "train.json, row 1: prompt p1 is an empty list"),
    ({"image": "a", "prompts": {}}, "row 1: there is no prompt"),
    ({"image": "a", "prompts": {"level 1": "x"}}, "row 1: prompt level 'level 1' is unknown"),
    ({"image": "z"}, "row 1: images/ has no z.png"),
    ({"image": "a", "mask_name": "z.png"}, "row 1: masks/ has no z.png"),
    ({"image": "a", "img_name": None}, "row 1: img_name is missing"),
    ({"image": "a", "structure": 3}, "row 1: target is 3"),
    ({"image": "a", "split": 3}, "row 1: split is 3"),
    ({"image": "a", "attributes": "small"}, "row 1: attributes is 'small'"),
    ({"image": "a", "sentences": ["x", " "]}, "row 1: sentence 2 has no word"),
    ({"image": "a", "prompts": {"sentences": [""]}}, "row 1: sentence 1 has no word"),
    ({"image": "a", "sentences": "x"}, "row 1: sentences is 'x'; give a list"),
    ({"image": "a", "sentences": [{"raw": "x"}]}, "row 1: prompt sentences is"),
    ({"image": "a", "sentences": []}, "row 1: prompt sentences is an empty list"),
])
def test_a_bad_row(folder, row, fault):
    save_list(folder, "train", {"image": "b"}, row)
    fails(folder, fault)


@pytest.mark.parametrize(("text", "fault"), [
    ("[1", "not valid JSON"), ("{}", "not a list"), ("[3]", "row 0 is 3"), ("[]", "has no rows"),
    ('[{"img_name": "a.png", "mask_name": "/"}]', "row 0: masks/ has no /"),
    (r'[{"img_name": "a.png", "mask_name": "a.png", "patient": "\ud83d"}]', "row 0 holds half of a surrogate pair"),
])
def test_a_bad_list(folder, text, fault):
    (folder / "anns").mkdir()
    (folder / "anns/train.json").write_text(text)
    fails(folder, fault)


@pytest.mark.parametrize(("text", "fault"), [
    ("image,mask\n,a.png\n", "line 2: the column 'image' is empty"),
    ("image,p1\na.png,[]\n", "line 2: prompt p1 is an empty list"),
    ("image,p1\na.png,[x\n", "line 2: prompt p1 starts like a JSON list"),
    ("image,mask\na.png,z.png\n", "line 2: masks/ has no z.png"),
    ('image,sentences\na.png,"[""x"", """"]"\n', "line 2: sentence 2 has no word"),
    ("image,split,sentence\na.png,train,x\na.png,val,y\n", "line 3: split or group differs .* line 2"),
    ("image,mask\na.png,.\n", r"line 2: masks/ has no \."),
    ("image,prompt\na.png,a red, round polyp\n", "line 2 has more cells than the header"),
    ("image,mask\n", "the list of .* has no rows"),
    ("image,image\na.png,b.png\n", "list.csv has several columns 'image'"),
    ("picture,split\na.png,test\n", "list.csv has no column `image`"),
    ('image,prompt\na.png,"a polyp\nb.png,x\n', "list.csv is not a CSV file .*unexpected end of data"),
    ("image,split\na.png,test\nb.png,\n", "line 3: the split is empty where other rows name one"),
    (f"{'x' * 200_000},image\na,a.png\n", "is not a CSV file in UTF-8 .field larger"),
])
def test_a_bad_table(folder, text, fault):
    (folder / "list.csv").write_text(text)
    fails(folder, fault)


def test_splits_by_any_usual_word(folder):
    (folder / "list.csv").write_text("image,split\na.png,Training\nb.png, valid\nc.png,fold 3\n")
    assert [sample.split for sample in take(folder).samples] == ["train", "val", "fold 3"]
    (folder / "list.csv").unlink()
    save_list(folder, "testing", {"image": "a"})
    assert take(folder).samples[0].split == "test"


def test_a_blank_cell_is_no_prompt(folder):
    (folder / "list.csv").write_text("image,p1,p2\na.png,polyp,  \n")
    assert take(folder).samples[0].prompts == {"p0": [""], "p1": ["polyp"]}


def test_a_csv_may_give_whole_paths(folder):
    (folder / "list.csv").write_text(f"image,mask\n{folder}/images/a.png,{folder}/masks/a.png\n")
    assert [sample.image_id for sample in take(folder).samples] == ["a"]


def test_a_table_among_the_lists_in_json(folder):
    (folder / "anns").mkdir()
    (folder / "anns/train.csv").write_text("image\na.png\n")
    fails(folder, "train.csv is no list in JSON, as anns/ holds them; put a table into")


def test_a_list_of_another_system(folder):
    """Other slashes, an accented letter as two characters, a file name's ending in capitals, a byte order mark."""
    save(folder / "images/cafe\N{COMBINING ACUTE ACCENT}.png", colours())
    save(folder / "masks/caf\N{LATIN SMALL LETTER E WITH ACUTE}.png", box())
    (folder / "LIST.CSV").write_text(
        "image,mask\r\nimages\\a.png,masks\\a.png\r\ncaf\N{LATIN SMALL LETTER E WITH ACUTE}.png,\r\n",
        encoding="utf-8-sig", newline="")
    assert [sample.image_id for sample in take(folder).samples] == ["a", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"]
    (folder / "anns").mkdir()
    (folder / "anns/train.json").write_text('[{"img_name": "b.png", "mask_name": "b.png"}]', encoding="utf-8-sig")
    assert [sample.image_id for sample in take(folder).samples] == ["b"]


def test_a_csv_may_name_targets_as_files_do(folder):
    save(folder / "masks/a__left_lung.png", box())
    (folder / "masks/a.png").unlink()
    (folder / "list.csv").write_text("image,target\na.png,left_lung\n")
    assert [sample.target for sample in take(folder).samples] == ["left_lung"]


def test_folders_of_masks_may_be_links(folder):
    for name in "abc":
        (folder / f"masks/{name}.png").rename(folder.parent / f"{name}.png")
        save(folder / f"masks/heart/{name}.png", box())
        save(folder.parent / f"in lungs/{name}.png", box())
    (folder / "masks/lungs").symlink_to(folder.parent / "in lungs")
    (folder / "masks/again").symlink_to(folder / "masks")
    assert Counter(sample.target for sample in take(folder).samples) == {"heart": 3, "lungs": 3}


@pytest.mark.parametrize("split", ["", " "])
def test_a_split_without_a_name(folder, split):
    save_list(folder, "train", {"image": "a", "split": split})
    fails(folder, "row 0: split is ' ?'; give a text")


def test_a_target_without_a_letter(folder):
    fails(folder, "a.png: the target of .*a.png is blank; name it", class_name=" ")


def test_two_tables(folder):
    for name in ("x.csv", "y.csv"):
        (folder / name).write_text("image\na.png\n")
    fails(folder, r"several lists \(x.csv, y.csv\)")


def test_a_table_that_is_not_text(folder):
    (folder / "x.csv").write_bytes("image,p1\na.png,é\n".encode("latin-1"))
    fails(folder, "x.csv is not a CSV file in UTF-8")
    (folder / "x.csv").write_text("image,p1\na.png,x\n", encoding="utf-16")
    fails(folder, "x.csv is not a CSV file in UTF-8 .it looks like UTF-16")


def test_targets_that_a_files_name_would_not_tell_apart(folder):
    write_json(folder / "anns/test.json", [
        {"img_name": "a.png", "mask_name": "a.png", "target": target} for target in ("left, lung", "left; lung")])
    fails(folder, "target 'left, lung', which differs from 'left; lung' by punctuation alone, already")


def test_a_target_too_long_for_a_files_name(folder):
    fails(folder, "'a' and its target 'é{60}...' together have a name longer than the 255 bytes", class_name="é" * 130)
    save_list(folder, "test", {"image": "a", "target": "x" * 251})
    fails(folder, "row 0: image 'a' and its target")
    save_list(folder, "test", {"image": "a", "target": "x" * 248})
    assert take(folder).samples[0].target == "x" * 248


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_a_mask_of_negative_levels(folder, kind):
    (folder / "masks/b.png").unlink()
    Image.fromarray(np.where(box(), -1, 0).astype(kind)).save(folder / "masks/b.tif")
    fails(folder, "b.tif has negative levels")
    dataset = take(folder, threshold=0)
    assert (dataset.mask(dataset.samples[1]) == ~box()).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_a_mask_of_wide_numbers_is_read(folder, kind):
    (folder / "masks/b.png").unlink()
    Image.fromarray(box().astype(kind)).save(folder / "masks/b.tif")
    dataset = take(folder)
    assert (dataset.mask(dataset.samples[1]) == box()).all()


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_name_that_is_not_text(folder, part):
    (folder / part / "b.png").rename(folder / part / "caf\udce9.png")
    fails(folder, rf"the name .*caf.*udce9.* in .*{part} is not in UTF-8")


RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def painted(*colours) -> np.ndarray:
    """uint8 (20, 30, channels): columns of some colours side by side."""
    return np.repeat(np.array(colours, np.uint8), 30 // len(colours), axis=0)[None].repeat(20, axis=0)


@pytest.mark.parametrize(("pixels", "fault"), [
    (painted((0, 0, 0), RED, GREEN), "a.png has more than two colours"),
    (painted(WHITE, RED), "a.png has two colours of one brightness"),
    (painted((*WHITE, 0), (*WHITE, 255)), "a.png shows its shape by transparency alone"),
])
def test_a_shape_that_levels_do_not_show(folder, pixels, fault):
    save(folder / "masks/a.png", pixels)
    fails(folder, fault)
    [with_threshold] = check_folder(folder, threshold=200)
    assert "colours" in with_threshold or "transparency" in with_threshold


@pytest.mark.parametrize("pixels", [painted((0, 0, 0), RED), painted((0, 0, 0, 0), (*GREEN, 90))])
def test_a_mask_of_one_colour(folder, pixels):
    save(folder / "masks/a.png", pixels)
    assert take(folder).samples[0].area_fraction == 0.5


def test_a_threshold_above_both_levels_of_a_mask(folder):
    save(folder / "masks/a.png", box().astype(np.uint8))
    fails(folder, "a.png has no level above 1, so that with the threshold 128 nothing would be target", threshold=128)
    (folder / "masks/a.png").unlink()
    save(folder / "masks/a.jpg", box().astype(np.uint8) * 9, quality=95)
    fails(folder, "a.jpg has no level above [0-9]+, so that with the threshold 128")


TWELVE = np.repeat(np.arange(12, dtype=np.uint8), 50).reshape(20, 30)


@pytest.mark.parametrize(("name", "pixels", "threshold", "levels"), [
    ("a.jpg", np.repeat(np.array([0, 1, 2], np.uint8), 10)[None].repeat(20, axis=0), 128, "1, 2"),
    ("a.png", TWELVE, 128, "1 to 11"),
    ("a.tif", np.linspace(0, 0.3, 600, dtype=np.float32).reshape(20, 30), 0.5, "[0-9.e-]+ to 0.3"),
])
def test_levels_that_all_lie_under_the_threshold(folder, name, pixels, threshold, levels):
    """Check, prepare and the card say in one note how many files are empty by it, and what one of them holds."""
    (folder / "masks/a.png").unlink()
    image = Image.fromarray(pixels)
    image.save(folder / "masks" / name, **({"quality": 95} if name.endswith("jpg") else {}))
    save(folder / "masks/b.png", np.zeros((20, 30), np.uint8))  # empty, and no level lies under anything
    known: list[str] = []
    assert check_folder(folder, threshold=threshold, notes=known) == []
    said = (rf"1 of 3 mask files has levels other than 0 that all lie under the threshold {threshold}, so that nothing "
            rf"is target \({name}: {levels}\); lower `threshold`, or rescale")
    assert len(known) == 1 and re.match(said, known[0])
    assert prepare_folder("own", folder, folder.parent / "out", threshold=threshold) == known
    card = (folder.parent / "out/card.md").read_text()
    assert card.count("lie under the threshold") == 1 and PreparedDataset.read(
        folder.parent / "out").samples[0].area_fraction == 0


def test_a_lower_threshold_needs_no_note(folder):
    (folder / "masks/a.png").unlink()
    save(folder / "masks/a.jpg", np.repeat(np.array([0, 2], np.uint8), 15)[None].repeat(20, axis=0), quality=95)
    assert not [note for note in prepare_folder("own", folder, folder.parent / "out", threshold=2) if "under" in note]


def test_a_threshold_for_masks_of_probabilities(folder):
    (folder / "masks/a.png").unlink()
    soft = np.where(box(), 0.75, np.linspace(0, 0.4, 30)).astype(np.float32)
    Image.fromarray(soft).save(folder / "masks/a.tif")
    params = DataParams(folders={"own": FolderParams(path=str(folder), threshold=0.5)})
    dataset = take(folder, threshold=params.folders["own"].threshold)
    assert (dataset.mask(dataset.samples[0]) == box()).all()


def test_a_threshold_is_for_black_and_white_files_of_one_bit_too(folder):
    Image.fromarray(box()).save(folder / "masks/a.png", bits=1)
    assert Image.open(folder / "masks/a.png").mode == "1"
    dataset = take(folder, threshold=128)
    assert (dataset.mask(dataset.samples[0]) == box()).all()


@pytest.mark.parametrize("part", ["images", "masks"])
def test_values_that_are_no_numbers(folder, part):
    save(folder / part / "b.tif", np.where(box(), 1, np.nan).astype(np.float32))
    (folder / part / "b.png").unlink()
    fails(folder, rf"{part}/b.tif holds values that are no numbers")


def test_broken_metadata(folder):
    save(folder / "images/b.png", colours(), exif=b"nothing of use")
    fails(folder, "images/b.png cannot be read as a picture")


def test_all_faults_are_listed_at_once(folder):
    save(folder / "masks/z.png", box())
    (folder / "masks/a.png").unlink()
    (folder / "images/b.png").write_bytes(b"nothing")
    save(folder / "masks/c.png", box(5, 5))
    files = ("masks/z.png", "images/a.png", "images/b.png", "masks/c.png")
    for fault, file in zip(check_folder(folder), files, strict=True):
        assert file in fault
    with pytest.raises(UserError, match=r"masks/z.png .*1 more faults: `featherseg check` lists them"):
        take(folder)


def test_a_full_disk(folder):
    with pytest.raises(UserError, match="out could not be written"), full_disk(300):
        take(folder)
    assert all(path.startswith("in") for path in everything_below(folder.parent))


# ---------------------------------------------------------------- what one file says and the next one denies


def marked(value, ground=0, place=None) -> np.ndarray:
    """A mask that marks its target by one level or colour on another."""
    pixels = np.full((20, 30, *np.shape(value)), ground, np.uint8)
    pixels[box() if place is None else place] = value
    return pixels


@pytest.mark.parametrize(("first", "second", "shown"), [
    (marked(1), marked(2), "1 on 0 in 2 files .b.png, .... , 2 on 0 in 1 file .a.png."),
    (marked(1), marked(2, ground=1), "2 on 1 in 1 file"), (marked(RED), marked(GREEN), "#ff0000 on 0 in 2 files"),
    (marked(2, ground=1), marked(1, ground=1), "1 in 1 file"),
    (marked(255), marked(255, ground=1), "255 on 0 in 2 files .b.png, ....., 255 on 1 in 1 file .a.png."),
])
def test_masks_that_mark_one_target_differently(folder, first, second, shown):
    for name in "abc":
        save(folder / f"masks/{name}.png", second if name == "a" else first)
    [fault] = check_folder(folder)
    assert "the masks of 'object' do not mark it alike" in fault
    fails(folder, "do not mark it alike")


def test_a_level_beside_white_is_said(folder):
    save(folder / "masks/a.png", marked(1))
    notes = prepare_folder("own", folder, folder.parent / "out")
    expected = "'object' mark it by several levels or colours: 1 on 0 in 1 file (a.png), 255 on 0 in 2 files"
    assert expected in notes[-1] and expected in (folder.parent / "out/card.md").read_text()


def test_levels_that_may_be_raters_or_classes_are_said(folder):
    shares = marked(127, place=box(rows=slice(2, 12), columns=slice(3, 13)))
    shares[box(rows=slice(4, 10), columns=slice(5, 11))] = 255
    for name in "ab":
        save(folder / f"masks/{name}.png", shares)
    expected = ("2 masks of 'object' have 3 grey levels (0 83.3%, 127 10.7%, 255 6.0%); the threshold 128 counts 255 "
                "as target and 0, 127 as background")
    [note] = prepare_folder("own", folder, folder.parent / "out", threshold=128)
    assert note.startswith(expected) and "if the levels are classes, save one mask file a structure" in note
    assert expected in (folder.parent / "out/card.md").read_text()


def test_a_threshold_says_what_different_levels_mean(folder):
    save(folder / "masks/a.png", marked(1))
    assert [sample.area_fraction for sample in take(folder, threshold=1).samples] == [0.05] * 3


@pytest.mark.parametrize("threshold", [None, 128])
def test_jpeg_masks_of_different_colours(folder, threshold):
    for name, colour in (("a", RED), ("b", GREEN), ("c", GREEN)):
        (folder / f"masks/{name}.png").unlink()
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[16:48, 16:48] = colour
        save(folder / f"images/{name}.png", colours(64, 64))
        save(folder / f"masks/{name}.jpg", pixels, quality=90)
    fails(folder, "do not mark it alike: red in 1 file", threshold=threshold)


def test_different_targets_may_be_marked_differently(folder):
    save(folder / "masks/a__heart.png", marked(1))
    save(folder / "masks/b__lung.png", marked(2))
    save(folder / "masks/c__lung.png", marked(0))
    for name in "abc":
        (folder / f"masks/{name}.png").unlink()
    assert len(take(folder).samples) == 3
    assert "several levels" not in (folder.parent / "out/card.md").read_text()


# ---------------------------------------------------------------- what is passed over


def test_a_diagnosis_does_not_replace_the_class(folder):
    (folder / "list.csv").write_text("image_name,sex,target\na,male,0\nb,male,1\nc,female,0\n")
    notes = " ".join(folder_notes(folder, "skin lesion"))
    assert "(0, 1) name no structure" in notes and "the column sex is not read" in notes
    samples = take(folder, class_name="skin lesion").samples
    assert {sample.target for sample in samples} == {"skin lesion"}
    assert [sample.attributes["label"] for sample in samples] == ["0", "1", "0"]
    card = (folder.parent / "out/card.md").read_text()
    assert "(0, 1) name no structure" in card and "sex" in card
    fails_in_check = check_folder(folder)
    assert len(fails_in_check) == 1 and "targets of 3 masks are numbers (0, 1)" in fails_in_check[0]


@pytest.mark.parametrize("column", ["class", "label", "structure"])
def test_other_words_for_a_target_do_not_replace_the_class_either(folder, column):
    (folder / "list.csv").write_text(f"image,{column}\na,benign\nb,malignant\nc,benign\n")
    assert {sample.target for sample in take(folder, class_name="lesion").samples} == {"lesion"}
    assert {sample.target for sample in take(folder).samples} == {"benign", "malignant"}


def test_a_list_of_several_targets_an_image_names_them(folder):
    (folder / "list.csv").write_text("image,mask,target\na,a,heart\na,b,lung\nb,c,lung\n")
    assert [sample.target for sample in take(folder, class_name="organ").samples] == ["heart", "lung", "lung"]
    assert any("class_name (organ) is not used" in note for note in folder_notes(folder, "organ"))


def test_numbers_are_no_names_of_targets(folder):
    for name in "abc":
        (folder / f"masks/{name}.png").rename(folder / f"masks/{name}__1.png")
    fails(folder, r"targets of 3 masks are numbers \(1\)")


@pytest.mark.parametrize("ending", [".dcm", ".jp2", ".heic", ".avif", ".npy", ".nii.gz", ""])
def test_files_of_other_kinds_are_counted_and_named(folder, ending, capsys, monkeypatch):
    (folder / f"images/d{ending}").write_bytes(b"DICM")
    (folder / f"masks/d{ending}").write_bytes(b"DICM")
    (folder / "masks/.hidden.dcm").write_bytes(b"DICM")
    notes = folder_notes(folder)
    assert [f"1 file in {part}/ passed over (d{ending})" in note for part, note in zip(
        ("images", "masks"), notes, strict=True)] == [True, True]
    monkeypatch.chdir(folder.parent)
    prepare_dataset("own", DataParams(folders={"own": FolderParams(path=str(folder))}))
    assert capsys.readouterr().out.count("passed over") == 2
    assert (folder.parent / "data/processed/own/card.md").read_text().count("passed over") == 2


@pytest.mark.parametrize("header", ["image,mask,mask_name", "image,image_name,mask", "image,target,class",
                                    "image,patient,patient_id", "image,split,set", "image,prompt,p1",
                                    "image,sentence,sentences"])
def test_two_columns_of_one_meaning(folder, header):
    (folder / "list.csv").write_text(f"{header}\na,a,a\nb,b,b\n")
    fails(folder, "has several columns of one meaning")


def test_two_keys_of_one_meaning(folder):
    save_list(folder, "train", {"image": "a", "structure": "lung", "label": "heart"}, {"image": "b"}, {"image": "c"})
    fails(folder, "structure 'lung' and label 'heart' have one meaning")


def test_a_folder_of_masks_without_permission(folder, monkeypatch):
    (folder / "masks/lung").mkdir()
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("lung"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match="masks/lung: Permission denied"):
        take(folder)
    assert "masks/lung: Permission denied" in check_folder(folder)[0]


@pytest.mark.parametrize("mark", ["\r", "\x85", "\x1b", "\u2028"])
def test_control_characters(folder, mark):
    save_list(folder, "train", {"image": "a", "structure": f"left{mark}lung"}, {"image": "b"}, {"image": "c"})
    fails(folder, "row 0: the target 'left.*lung' has a control character")
    (folder / "anns/train.json").unlink()
    (folder / "list.csv").write_text(f'image,group\na,"p{mark}q"\nb,p\nc,p\n', newline="")
    fails(folder, "line 2: the group 'p.*q' has a control character")
    (folder / "list.csv").unlink()
    (folder / "images/b.png").rename(folder / f"images/b{mark}.png")
    fails(folder, "has a control character in it; rename the file")


@pytest.mark.parametrize("header", ["image", "mask", "target"])
def test_very_long_names(folder, header):
    names = {"image": "a", "mask": "a", "target": "x"} | {header: "x" * 5000}
    (folder / "list.csv").write_text("image,mask,target\n" + ",".join(names.values()) + "\n")
    [fault] = check_folder(folder)
    assert len(fault) < 800
    assert "does not exist" in check_folder(folder / ("x" * 5000))[0]


def test_a_list_nested_too_deep(folder):
    write_json(folder / "anns/train.json", [])
    (folder / "anns/train.json").write_text('[{"img_name": "a.png", "mask_name": "a.png", "attributes": '
                                            + '{"x": ' * 900 + "1" + "}" * 901 + "]")
    assert any("nested too deep" in fault for fault in check_folder(folder))


@pytest.mark.parametrize("name", ["NA", "nan", "null", "None"])
def test_words_that_tables_take_for_nothing_are_names(folder, name):
    for part in ("images", "masks"):
        (folder / part / "a.png").rename(folder / part / f"{name}.png")
    (folder / "list.csv").write_text(f"image,target,group,split\n{name},{name},{name},train\nb,x,y,val\nc,x,z,test\n")
    sample = take(folder).samples[0]
    assert (sample.image_id, sample.target, sample.group) == (name, name, name)


# ---------------------------------------------------------------- real folders

PACKS = {
    "dsb2018_nuclei": (86, {"nuclei": 86}, {"train": 50, "val": 23, "test": 13}),
    "wingspan_cxr": (259, {"left lung": 259, "right lung": 259, "heart": 259},
                     {"train": 486, "val": 120, "test": 171}),
    "kvasir_seg": (1000, {"polyp": 1000}, {"train": 765, "val": 99, "test": 98, "unnamed": 38}),
    "isic2016": (1051, {"skin lesion": 1051}, {"train": 672, "val": 74, "test": 305}),
}


@pytest.mark.parametrize("name", ["dsb2018_nuclei", *(
    pytest.param(name, marks=pytest.mark.slow) for name in PACKS if name != "dsb2018_nuclei")])
def test_a_real_folder_needs_no_more_than_a_path(tmp_path, name):
    images, targets, splits = PACKS[name]
    prepare_folder(name, shared("datapack") / name, tmp_path / "out")
    dataset = PreparedDataset.read(tmp_path / "out")
    assert len({sample.image for sample in dataset.samples}) == images
    assert Counter(sample.target for sample in dataset.samples) == targets
    assert Counter(sample.split for sample in dataset.samples) == splits
    assert "see LICENSE and PROVENANCE.md there" in (tmp_path / "out/card.md").read_text()


@pytest.mark.parametrize("name", PACKS)
def test_a_real_folders_masks_are_where_its_lists_say(tmp_path, name):
    pack = shared("datapack") / name
    (tmp_path / "in").mkdir()
    for part in ("images", "masks"):
        (tmp_path / "in" / part).symlink_to(pack / part)
    boxes = {}
    for path in sorted((pack / "anns").glob("*.json")):
        rows = json.loads(path.read_text())[:6]
        write_json(tmp_path / "in/anns" / path.name, rows)
        boxes |= {(Path(row["img_name"]).stem, row["structure"]): row for row in rows}
    dataset = take(tmp_path / "in")
    assert len(dataset.samples) == len(boxes)
    for sample in dataset.samples:
        row = boxes[sample.image_id, sample.target]
        assert (sample.split, list(sample.bbox)) == (row["split"], row["bbox"])
        assert sample.area_fraction == pytest.approx(row["area_fraction"], abs=1e-5)
        assert (sample.height, sample.width) == (row["height"], row["width"])
        assert sample.prompts["p1"] == [row["prompts"]["p1"]]


# ---------------------------------------------------------------- a source where the output goes


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("out", [".", "images", "masks/deep", "..", "../link", "../link/images/x"])
def test_a_folder_is_never_written_where_it_lies(folder, out):
    (folder / "list.csv").write_text("image,split\na.png,train\nb.png,val\nc.png,test\n")
    (folder.parent / "link").symlink_to(folder)
    before = below(folder)
    with pytest.raises(UserError, match="would be written where .* is read"):
        prepare_folder("own", folder, folder / out)
    assert below(folder) == before


def test_a_folder_of_links_into_its_own_output_is_refused(folder):
    out = folder.parent / "out"
    for part in ("images", "masks"):
        (out / part).mkdir(parents=True)
        for file in list((folder / part).iterdir()):
            file.rename(out / part / file.name)
            file.symlink_to(out / part / file.name)
    before = below(out)
    with pytest.raises(UserError, match="is read"):
        prepare_folder("own", folder, out)
    assert below(out) == before


def test_a_place_of_its_own_inside_the_folder_is_fine(folder):
    for _ in range(2):
        prepare_folder("own", folder, folder / "prepared")
    assert len(PreparedDataset.read(folder / "prepared").samples) == 3
