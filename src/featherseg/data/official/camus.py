"""CAMUS: cardiac ultrasound of 500 patients in two views, with three structures a frame (by hand from its page)."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from featherseg.data.assemble import Pixels
from featherseg.data.frames import read_frame
from featherseg.data.layout import find_folder
from featherseg.data.lists import Entry, named_in
from featherseg.data.spec import DatasetSpec, Files, medvlsm_lists
from featherseg.errors import UserError

_PAGE = "https://humanheart-project.creatis.insa-lyon.fr/database/#collection/6373703d73e9f0047faa1bc8"
_STRUCTURES = {1: "left ventricular cavity", 2: "myocardium", 3: "left atrium cavity"}
_ENDINGS = (".mhd", ".nii.gz")
_WORDS = (r".+ of (?P<shape>\w+) shape in .+ view of the heart at end of the .+ cycle of an? (?P<age>.+)-year-old "
          r"(?P<sex>\w+) with (?P<quality>\w+) image quality\.")


def complete(entry: Entry) -> Entry:
    """The target by the mask's number, the attributes that level P7 names, and the folder of its image.

    The folders `training` and `testing` both count their patients from 1.

    Raises:
        UserError: the row names its mask in another way.
    """
    found = re.fullmatch(r"mask_([123])/((patient\d{4})_([24]CH)_(E[DS]))_gt\.png", entry.mask)
    if not found or entry.image != f"{found[2]}.png":
        raise UserError(f"{entry.where}: img_name is {entry.image!r} and mask_name {entry.mask!r}; get the list again.")
    folder = "testing" if entry.split == "test" else "training"
    attributes = {"view": found[4], "cycle": found[5], **named_in(entry.prompts, "p7", _WORDS)}
    return replace(entry, image=f"{folder}/{entry.image}", group=f"{folder}_{found[3]}",
                   target=_STRUCTURES[int(found[1])], attributes=entry.attributes | attributes)


def layout(raw: Path) -> Files:
    """`training/patient0001/patient0001_2CH_ED.mhd` with `_gt` for the labels, and `testing/` likewise; NIfTI too."""
    if list(raw.rglob("database_nifti")):
        raise UserError(f"{raw} holds database_nifti, the edition that counts its patients in another way than the "
                        "published lists; put training.zip and testing.zip into the inbox instead.")
    folders = {name: find_folder(raw, name) for name in ("training", "testing")}

    def files(entry: Entry) -> tuple[Pixels, list[Pixels]]:
        place = Path(entry.image)
        number = int(entry.mask[len("mask_")])
        folder = folders[place.parent.name] / place.stem.split("_")[0]
        image, labels = _frame_of(folder, place.stem), _frame_of(folder, f"{place.stem}_gt")
        return (Pixels(str(image), lambda: np.repeat(_grey(image)[..., None], 3, axis=2)),
                [Pixels(f"{labels}, label {number},", lambda: read_frame(labels) == number)])

    return files


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
    how=f"is downloaded by hand (training.zip and testing.zip) from {_PAGE}",
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
