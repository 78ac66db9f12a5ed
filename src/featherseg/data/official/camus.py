"""CAMUS: cardiac ultrasound of 500 patients in two views, with three structures a frame (by hand from its page)."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from featherseg.core.errors import UserError
from featherseg.core.files import read_text
from featherseg.data.assemble import Pixels
from featherseg.data.folder.lists import Entry, named_in
from featherseg.data.raw.frames import frame_spacing, read_frame
from featherseg.data.raw.layout import find_folder
from featherseg.data.raw.spec import DatasetSpec, Files, medvlsm_lists

_PAGE = "https://humanheart-project.creatis.insa-lyon.fr/database/#collection/6373703d73e9f0047faa1bc8"
_STRUCTURES = {1: "left ventricular cavity", 2: "myocardium", 3: "left atrium cavity"}
_ENDINGS = (".mhd", ".nii.gz")
_TRAINING = 450
_BELOW_TWENTY = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
                 "sixteen seventeen eighteen nineteen").split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_NUMBERS = dict(zip([*_BELOW_TWENTY, *_TENS], [*range(20), *range(20, 100, 10)], strict=True))
_WORDS = (r".+ of (?P<shape>\w+) shape in .+ view of the heart at end of the .+ cycle of an? (?P<age>.+)-year-old "
          r"(?P<sex>\w+) with (?P<quality>\w+) image quality\.")


def complete(entry: Entry) -> Entry:
    """The target by the mask's number, the attributes that level P7 names, and the folder of its image.

    The folders `training` and `testing` both count their patients from 1.

    Raises:
        UserError: the row names its mask in another way.
    """
    match = re.fullmatch(r"mask_([123])/((patient\d{4})_([24]CH)_(E[DS]))_gt\.png", entry.listed_mask)
    if not match or entry.image != f"{match[2]}.png":
        raise UserError(f"{entry.where}: img_name is {entry.image!r} and mask_name {entry.mask!r}; get the list again.")
    folder = "testing" if entry.split == "test" else "training"
    attributes = {"view": match[4], "cycle": match[5], **named_in(entry.prompts, "p7", _WORDS)}
    return replace(entry, image=f"{folder}/{entry.image}", group=f"{folder}_{match[3]}",
                   target=_STRUCTURES[int(match[1])], attributes=entry.attributes | attributes)


def layout(raw: Path) -> Files:
    """Either edition, its frames as MetaImage or NIfTI-1, with `_gt` for the labels.

    `training/patient0001/patient0001_2CH_ED.mhd` and `testing/` likewise, or `database_nifti/patient0001/...`, where
    the 450 patients of training are followed by the 50 of testing; there each is compared with the prompts.
    """
    counted_on = next((path for path in sorted(raw.rglob("database_nifti")) if path.is_dir()), None)
    folders = {} if counted_on else {name: find_folder(raw, name) for name in ("training", "testing")}

    def files(entry: Entry) -> tuple[Pixels, list[Pixels]]:
        part, stem, number = Path(entry.image).parent.name, Path(entry.image).stem, int(entry.listed_mask[len("mask_")])
        if counted_on:
            patient, frame = int(stem[len("patient"):][:4]), stem.partition("_")[2]
            stem = f"patient{patient + (_TRAINING if part == 'testing' else 0):04d}_{frame}"
            folder = counted_on / stem.split("_")[0]
            _check_patient(folder, entry)
        else:
            folder = folders[part] / stem.split("_")[0]
        image, labels = _frame_of(folder, stem), _frame_of(folder, f"{stem}_gt")
        return (Pixels(str(image), lambda: np.repeat(_grey(image)[..., None], 3, axis=2), lambda: frame_spacing(image)),
                [Pixels(f"{labels}, label {number},", lambda: read_frame(labels) == number)])

    return files


def _check_patient(folder: Path, entry: Entry) -> None:
    """Compare sex, age and image quality of a patient's folder with those that the published prompts name.

    Raises:
        UserError: they differ, so that the folder's number is not that of the lists.
    """
    path = folder / f"Info_{entry.attributes['view']}.cfg"
    lines = read_text(path, encoding="latin-1").splitlines() if path.exists() else []
    pairs = (line.partition(":") for line in lines)
    here = {key.strip(): value.strip().lower() for key, _, value in pairs}
    listed = {"Sex": entry.attributes.get("sex", "")[:1], "Age": str(_number(entry.attributes.get("age", ""))),
              "ImageQuality": entry.attributes.get("quality", "")}
    for key, value in listed.items():
        if here.get(key) != value:
            raise UserError(f"{path} says {key} {here.get(key, '(nothing)')} where the published list says {value} "
                            f"({entry.where}), so it is another patient; put training.zip and testing.zip into the "
                            "inbox instead.")


def _number(words: str) -> int | None:
    """The number of "seventy-three"; None for other words."""
    parts = words.split("-")
    if len(parts) > 2 or any(part not in _NUMBERS for part in parts):
        return None
    return sum(_NUMBERS[part] for part in parts)


def _frame_of(folder: Path, stem: str) -> Path:
    paths = [folder / f"{stem}{ending}" for ending in _ENDINGS]
    return next((path for path in paths if path.exists()), paths[0])


def _grey(path: Path) -> np.ndarray:
    """Grey of a frame, uint8 (H, W).

    Raises:
        UserError: it has other than the whole numbers 0 to 255.
    """
    values = read_frame(path)
    grey = values.astype(np.uint8)
    if not (grey == values).all():
        raise UserError(f"{path} has other grey levels than 0 to 255; get it again.")
    return grey


SPEC = DatasetSpec(
    name="camus",
    title="CAMUS",
    source=_PAGE,
    licence="as its page says",
    citation="Leclerc et al., Deep Learning for Segmentation using an Open Large-Scale Dataset in 2D "
             "Echocardiography, TMI 2019",
    how=f"is downloaded by hand (training.zip and testing.zip, or the NIfTI edition) from {_PAGE}",
    lists=medvlsm_lists(
        "camus", "camus",
        train=None,
        val="5dcdcd8f9dfd35b50de253cf48f640f3e3778456eb87a5b05761643a84d7ecb5",
        test="bf6a4e702e02a17a8f944ccbfd0a18c6adcc4aa878ed17e48e1c3f783e111dbf",
    ),
    target="heart structure",
    layout=layout,
    complete=complete,
    note="val is of the folder training and test of the folder testing, which both count their patients from 1: "
         "equal names are different patients.",
)
