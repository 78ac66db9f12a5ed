"""CheXlocalize: chest X-rays with the outlines of ten findings, in CheXpert's val and test images (by request)."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from featherseg.core.errors import UserError
from featherseg.core.files import read_json
from featherseg.data.assemble import Pixels
from featherseg.data.folder.lists import Entry, named_in
from featherseg.data.raw.layout import find_file_by_name
from featherseg.data.raw.segmentation import mask_of
from featherseg.data.raw.spec import DatasetSpec, Files, medvlsm_lists

_PAGE = "https://stanfordaimi.azurewebsites.net/datasets/23c56a0d-15de-405b-87c8-99c30138950c"
_PARTS = ("val", "test")
_WORDS = r".+ of shape (?P<shape>[\w -]+), and located in (?P<location>[a-z, ]+) of the \w+ view of a Chest Xray\."


def complete(entry: Entry) -> Entry:
    """The finding by the mask's name, the patient and the view by the image's, and the attributes that P4 names.

    Raises:
        UserError: the row names its mask in another way.
    """
    study = Path(entry.image).stem
    match = re.fullmatch(r"(patient\d+)_study\d+_view\d+_(frontal|lateral)", study)
    if not match or not entry.listed_mask.startswith(f"{study}_"):
        raise UserError(f"{entry.where}: img_name is {entry.image!r} and mask_name {entry.mask!r}; get the list again.")
    finding = Path(entry.listed_mask).stem.removeprefix(f"{study}_").replace("_", " ")
    attributes = {"view": match[2], **named_in(entry.prompts, "p4", _WORDS)}
    return replace(entry, target=finding, group=match[1], attributes=entry.attributes | attributes)


def layout(raw: Path) -> Files:
    """`gt_segmentations_{val,test}.json`, run lengths by image and finding, and CheXpert's images by study.

    The image of `patient64541_study1_view1_frontal` is `patient64541/study1/view1_frontal.jpg`.
    """
    find = find_file_by_name(raw)
    masks: dict[str, tuple[Path, dict[str, Any]]] = {}
    for part in _PARTS:
        path = find(f"gt_segmentations_{part}.json")
        masks |= {study: (path, findings) for study, findings in _findings(path).items()}
    images = {"_".join(path.parts[-3:]): path for path in raw.rglob("patient*/study*/view*.jpg")}

    def files(entry: Entry) -> tuple[Path, list[Pixels]]:
        study = Path(entry.image).stem
        if entry.image not in images or study not in masks:
            lacks = "run lengths of" if entry.image in images else "image"
            raise UserError(f"{entry.where}: {raw} holds no {lacks} {study}; pack CheXpert's val and test folders and "
                            "CheXlocalize's into the inbox and download again.")
        path, findings = masks[study]
        return images[entry.image], [_mask(f"{path}, {study}, {entry.target}", findings.get(entry.target or ""))]

    return files


def _findings(path: Path) -> dict[str, dict[str, Any]]:
    """Study -> finding, in lower case -> run lengths."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(findings, dict) for findings in content.values()):
        raise UserError(f"{path} is no map from image and finding to run lengths; get the archive again.")
    return {study: _in_lower_case(findings) for study, findings in content.items()}


def _in_lower_case(findings: dict[str, Any]) -> dict[str, Any]:
    return {finding.lower(): runs for finding, runs in findings.items()}


def _mask(name: str, runs: Any) -> Pixels:
    def read() -> Any:
        try:
            height, width = runs["size"]
            return mask_of(runs, height, width)
        except (TypeError, KeyError, ValueError):
            raise UserError(f"{name}: there are no run lengths; get the archive again.") from None
        except UserError as fault:
            raise UserError(f"{name}: {fault}; get the archive again.") from None

    return Pixels(name, read)


SPEC = DatasetSpec(
    name="chexlocalize",
    title="CheXlocalize",
    source=_PAGE,
    licence="by agreement, as its page says",
    citation="Saporta et al., Benchmarking saliency methods for chest X-ray interpretation, Nature Machine "
             "Intelligence 2022",
    how=f"is given on request: register at {_PAGE}, pack its folders CheXlocalize and CheXpert (val and test) into "
        "one zip",
    lists=medvlsm_lists(
        "chexlocalize", "chexlocalize",
        train="1cc63c2cf99ebe82ce5a8948ce9e34696e6ef1f7a3406135c7b1cfb4bea28988",
        val="7b3e21f8fbd4c3c01e326bbe9ddbd002a9324ed146cf03482f97fb8172fc90d4",
        test="1a1680885a37bceca481f6973eede4a47d3db0a8da9bc5087cd616e79770e3c4",
    ),
    target="finding",
    layout=layout,
    complete=complete,
    note="The three published splits are of CheXpert's val and test images; no patient is in two of them.",
)
