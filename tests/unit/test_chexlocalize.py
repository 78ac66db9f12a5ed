"""CheXlocalize in its official layout: run lengths by image and finding, images by patient and study."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import box, colours, picture_bytes, write_json, write_zip

from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason
from featherseg.data.prepare import prepare_official
from featherseg.data.prepared import PreparedDataset
from featherseg.data.raw.download import download
from featherseg.data.raw.specs import SPECS

HEIGHT, WIDTH = 30, 40
IMAGE = picture_bytes(colours(HEIGHT, WIDTH)[..., 0], "JPEG")
FRONTAL, LATERAL = "patient64541_study1_view1_frontal", "patient64741_study1_view2_lateral"
MASKS = {"Airspace Opacity": box(HEIGHT, WIDTH), "Support Devices": box(HEIGHT, WIDTH, slice(20, 28), slice(30, 36))}


def runs(mask: np.ndarray) -> dict:
    """Run lengths as the set publishes them: compressed text."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def row(study: str, finding: str) -> dict:
    return {"img_name": f"{study}.jpg", "mask_name": f"{study}_{finding}.png", "segment_id": study,
            "prompts": {"p0": "", "p1": f"{finding} in a chest Xray."}}


def fetched(tmp_path: Path, segmentations: dict | None = None, lists: dict | None = None) -> Path:
    import json

    segmentations = segmentations or {study: {name: runs(mask) for name, mask in MASKS.items()}
                                      for study in (FRONTAL, LATERAL)}
    write_zip(tmp_path / "inbox/chexlocalize.zip", {
        "CheXlocalize/gt_segmentations_val.json": json.dumps({FRONTAL: segmentations[FRONTAL]}),
        "CheXlocalize/gt_segmentations_test.json": json.dumps({LATERAL: segmentations[LATERAL]}),
        "CheXlocalize/gt_annotations_val.json": "{}",
        "CheXpert/val/patient64541/study1/view1_frontal.jpg": IMAGE,
        "CheXpert/test/patient64741/study1/view2_lateral.jpg": IMAGE})
    lists = lists or {"train": [row(LATERAL, "airspace_opacity"), row(LATERAL, "support_devices")], "val": [],
                      "test": [row(FRONTAL, "support_devices")]}
    for split, content in lists.items():
        write_json(tmp_path / f"inbox/{split}.json", content)
    spec = SPECS["chexlocalize"]
    spec = replace(spec, lists=tuple(replace(one, sha256=None) for one in spec.lists))
    download(spec, tmp_path / "raw", tmp_path / "inbox", checksums=tmp_path / "sums.json")
    assert not_run_reason(tmp_path / "raw") is None
    return tmp_path


def prepared(tmp_path: Path) -> PreparedDataset:
    prepare_official("chexlocalize", tmp_path / "raw", tmp_path / "out")
    return PreparedDataset.read(tmp_path / "out")


def test_each_finding_of_an_image_is_a_sample(tmp_path):
    dataset = prepared(fetched(tmp_path))
    assert [(sample.image_id, sample.target, sample.split, sample.group) for sample in dataset.samples] == [
        (LATERAL, "airspace opacity", "train", "patient64741"), (LATERAL, "support devices", "train", "patient64741"),
        (FRONTAL, "support devices", "test", "patient64541")]
    for sample in dataset.samples:
        assert (dataset.mask(sample) == MASKS[sample.target.title()]).all()
    assert [sample.attributes["view"] for sample in dataset.samples] == ["lateral", "lateral", "frontal"]
    assert dataset.samples[0].prompts["p1"] == ["airspace_opacity in a chest Xray."]
    assert (dataset.path / dataset.samples[0].image).read_bytes() == IMAGE


@pytest.mark.parametrize(("finding", "value", "said"), [
    ("Edema", None, "support devices: there are no run lengths"),
    ("Support Devices", {"size": [HEIGHT, WIDTH], "counts": [7]}, "support devices: its segmentation has run lengths"),
    ("Support Devices", "all", "support devices: there are no run lengths"),
    ("Support Devices", {"size": [HEIGHT, WIDTH, 3], "counts": [7]}, "support devices: there are no run lengths"),
])
def test_run_lengths_that_are_none_are_one_sentence(tmp_path, finding, value, said):
    broken = {FRONTAL: {finding: value}, LATERAL: {name: runs(mask) for name, mask in MASKS.items()}}
    with pytest.raises(UserError, match=f"gt_segmentations_val.json, {FRONTAL}, {said}"):
        prepared(fetched(tmp_path, broken))


def test_a_mask_of_another_size_than_its_image_is_one_sentence(tmp_path):
    small = {name: runs(box(20, 30)) for name in MASKS}
    with pytest.raises(UserError, match="support devices is 30x20 pixels but its image .*view1_frontal.jpg is 40x30"):
        prepared(fetched(tmp_path, {FRONTAL: small, LATERAL: {name: runs(mask) for name, mask in MASKS.items()}}))


@pytest.mark.parametrize(("img", "mask", "said"), [
    ("patient1_study1_view1_frontal.jpg", "patient1_study1_view1_frontal_edema.png", "holds no image patient1_study1"),
    ("scan.jpg", "scan_edema.png", "img_name is 'scan.jpg' and mask_name 'scan_edema.png'"),
])
def test_a_row_of_an_image_that_is_not_there_is_one_sentence(tmp_path, img, mask, said):
    lists = {"train": [], "val": [], "test": [{"img_name": img, "mask_name": mask}]}
    with pytest.raises(UserError, match=said):
        prepared(fetched(tmp_path, lists=lists))


def test_without_the_run_lengths_there_is_one_sentence(tmp_path):
    fetched(tmp_path)
    (tmp_path / "raw/CheXlocalize/gt_segmentations_test.json").write_text("[]")
    with pytest.raises(UserError, match="gt_segmentations_test.json is no map"):
        prepared(tmp_path)
    (tmp_path / "raw/CheXlocalize/gt_segmentations_test.json").unlink()
    with pytest.raises(UserError, match="holds 0 files gt_segmentations_test.json"):
        prepared(tmp_path)
