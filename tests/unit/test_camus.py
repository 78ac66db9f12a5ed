"""CAMUS in its official layout: two folders of patients, which both count from 1."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import write_json, write_zip
from frame_files import meta_image, nifti

from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason
from featherseg.data.prepare import prepare_official
from featherseg.data.prepared import PreparedDataset
from featherseg.data.raw.download import download
from featherseg.data.raw.specs import SPECS

FRAMES = [f"{view}_{cycle}" for view in ("2CH", "4CH") for cycle in ("ED", "ES")]


def grey(folder: str) -> np.ndarray:
    return np.full((20, 16), {"training": 40, "testing": 90}[folder], dtype=np.uint8)


def labels(folder: str) -> np.ndarray:
    """Bands of the labels 0 to 3 down the rows, one row higher in `testing`."""
    return np.repeat(np.roll(np.repeat([0, 1, 2, 3], 5), -1 if folder == "testing" else 0)[:, None], 16, axis=1)


def patient(folder: str, name: str, form: str) -> dict[str, bytes]:
    files = {f"{folder}/{name}/Info_2CH.cfg": b"ED: 1\nSex: M\n"}
    for frame in FRAMES:
        for stem, content in ((f"{name}_{frame}", grey(folder)), (f"{name}_{frame}_gt", labels(folder))):
            place = f"{folder}/{name}/{stem}"
            files |= {f"{place}.nii.gz": nifti(content.astype(np.uint8))} if form == "nifti" else meta_image(
                place, content, packed=form == "zraw")
    return files


def rows(name: str) -> list[dict]:
    return [{"img_name": f"{name}_{frame}.png", "mask_name": f"mask_{number}/{name}_{frame}_gt.png",
             "prompts": {"p0": "", "p1": f"structure {number}"}} for frame in FRAMES for number in (1, 2, 3)]


def fetched(tmp_path: Path, form: str = "raw", lists: dict | None = None, archives: dict | None = None) -> Path:
    archives = archives or {
        "training.zip": patient("training", "patient0001", form) | patient("training", "patient0002", form),
        "testing.zip": patient("testing", "patient0001", form)}
    for archive, members in archives.items():
        write_zip(tmp_path / "inbox" / archive, members)
    lists = lists or {"train": rows("patient0002"), "val": rows("patient0001"), "test": rows("patient0001")}
    for split, content in lists.items():
        write_json(tmp_path / f"inbox/{split}.json", content)
    spec = replace(SPECS["camus"], lists=tuple(replace(one, sha256=None) for one in SPECS["camus"].lists))
    download(spec, tmp_path / "raw", tmp_path / "inbox", checksums=tmp_path / "sums.json")
    assert not_run_reason(tmp_path / "raw") is None
    return tmp_path


def prepared(tmp_path: Path) -> PreparedDataset:
    prepare_official("camus", tmp_path / "raw", tmp_path / "out")
    return PreparedDataset.read(tmp_path / "out")


@pytest.mark.parametrize("form", ["raw", "zraw", "nifti"])
def test_three_structures_a_frame_and_patients_of_one_name_stay_apart(tmp_path, form):
    dataset = prepared(fetched(tmp_path, form))
    assert len(dataset.samples) == 36 and len({sample.image for sample in dataset.samples}) == 12
    found = {(sample.split, sample.group) for sample in dataset.samples}
    assert found == {("train", "training_patient0002"), ("val", "training_patient0001"),
                     ("test", "testing_patient0001")}
    for split, folder in (("val", "training"), ("test", "testing")):
        samples = dataset.split(split)[:3]
        assert [sample.target for sample in samples] == ["left ventricular cavity", "myocardium", "left atrium cavity"]
        assert [sample.prompts["p1"] for sample in samples] == [["structure 1"], ["structure 2"], ["structure 3"]]
        for number, sample in enumerate(samples, start=1):
            assert (dataset.mask(sample) == (labels(folder) == number)).all()
            assert (dataset.image(sample) == grey(folder)[..., None]).all()
            assert sample.attributes["view"] == "2CH" and sample.attributes["cycle"] == "ED"
            assert sample.spacing == (None if form == "nifti" else (0.154, 0.308)), "the drawn NIfTI does not say it"


def test_the_card_says_that_names_do_not_join(tmp_path):
    card = (prepared(fetched(tmp_path)).path / "card.md").read_text()
    assert "equal names are different patients" in card and "Left out" not in card


def test_without_the_published_masks_of_testing_there_is_one_sentence(tmp_path):
    fetched(tmp_path)
    (tmp_path / "raw/testing/patient0001/patient0001_2CH_ED_gt.mhd").unlink()
    with pytest.raises(UserError, match="testing/patient0001/patient0001_2CH_ED_gt.mhd does not exist"):
        prepared(tmp_path)
    assert not (tmp_path / "out").exists()


def one_folder(tmp_path: Path, age: int = 73, sex: str = "F") -> Path:
    """The edition in which the patients of testing follow the 450 of training; its lists say who a patient is."""
    listed = ("Myocardium of oval shape in two-chamber view of the heart at end of the diastole cycle of a "
              "{age}-year-old {sex} with {quality} image quality.")
    members, lists = {}, {"train": [], "val": rows("patient0001"), "test": rows("patient0001")}
    for name, number, who, words in (("training", 1, (56, "M", "Good"), ("fifty-six", "male", "good")),
                                     ("testing", 451, (age, sex, "Poor"), ("seventy-three", "female", "poor"))):
        for path, content in patient(name, f"patient{number:04d}", "nifti").items():
            if path.endswith(".cfg"):
                continue
            members[path.replace(name, "CAMUS_public/database_nifti")] = content
        for view in ("2CH", "4CH"):
            members[f"CAMUS_public/database_nifti/patient{number:04d}/Info_{view}.cfg"] = (
                f"ED: 1\nSex: {who[1]}\nAge: {who[0]}\nImageQuality: {who[2]}\nEF: 50\n").encode()
        for row in lists["test" if name == "testing" else "val"]:
            row["prompts"] |= {"p7": listed.format(age=words[0], sex=words[1], quality=words[2])}
    return fetched(tmp_path, lists=lists, archives={"CAMUS_public.zip": members})


def test_the_edition_in_one_folder_has_the_patients_of_testing_after_those_of_training(tmp_path):
    dataset = prepared(one_folder(tmp_path))
    assert len(dataset.samples) == 24
    for split, folder in (("val", "training"), ("test", "testing")):
        sample = dataset.split(split)[1]
        assert sample.group == f"{folder}_patient0001" and sample.target == "myocardium"
        assert (dataset.mask(sample) == (labels(folder) == 2)).all()
        assert (dataset.image(sample) == grey(folder)[..., None]).all()
    assert dataset.split("test")[0].attributes == {
        "view": "2CH", "cycle": "ED", "shape": "oval", "age": "seventy-three", "sex": "female", "quality": "poor"}


@pytest.mark.parametrize(("who", "said"), [
    ({"age": 74}, "patient0451/Info_2CH.cfg says Age 74 where the published list says 73"),
    ({"sex": "M"}, "patient0451/Info_2CH.cfg says Sex m where the published list says f"),
])
def test_another_patient_than_the_list_describes_is_refused(tmp_path, who, said):
    one_folder(tmp_path, **who)
    with pytest.raises(UserError, match=f"{said}.*it is another patient; put training.zip"):
        prepared(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_patient_of_whom_nothing_is_said_is_refused(tmp_path):
    one_folder(tmp_path)
    next((tmp_path / "raw").rglob("patient0451/Info_2CH.cfg")).unlink()
    with pytest.raises(UserError, match=r"says Sex \(nothing\) where the published list says f"):
        prepared(tmp_path)


def test_a_row_that_names_no_mask_of_the_set_is_one_sentence(tmp_path):
    lists = {"train": [], "val": [], "test": rows("patient0001")}
    lists["test"][0]["mask_name"] = "mask_4/patient0001_2CH_ED_gt.png"
    with pytest.raises(UserError, match="test.json, row 0: img_name is .* and mask_name 'mask_4/"):
        prepared(fetched(tmp_path, lists=lists))


def test_grey_beyond_eight_bits_is_refused(tmp_path):
    fetched(tmp_path)
    path = tmp_path / "raw/testing/patient0001/patient0001_4CH_ES.mhd"
    path.write_text(path.read_text().replace("MET_UCHAR", "MET_USHORT"))
    path.with_suffix(".raw").write_bytes(np.full((20, 16), 300, dtype=np.uint16).tobytes())
    with pytest.raises(UserError, match="patient0001_4CH_ES.mhd has other grey levels than 0 to 255"):
        prepared(tmp_path)
