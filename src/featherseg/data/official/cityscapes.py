"""Cityscapes: 3475 street scenes of 21 cities with nineteen classes (account needed)."""

from pathlib import Path

from featherseg.data.raw.layout import find_folder
from featherseg.data.raw.spec import LabelMapSpec, Scene
from featherseg.data.splits import split_by_hash

_PAGE = "https://www.cityscapes-dataset.com/downloads/"
_CLASSES = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
            20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
            27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"}
_IMAGE, _LABELS = "_leftImg8bit.png", "_gtFine_labelIds.png"


def scenes(raw: Path) -> list[Scene]:
    """`leftImg8bit/<split>/<city>/<frame>_leftImg8bit.png` and `gtFine/<split>/<city>/<frame>_gtFine_labelIds.png`."""
    images, labels = find_folder(raw, "leftImg8bit"), find_folder(raw, "gtFine")
    entries = []
    for part in ("train", "val"):
        for image in sorted(images.glob(f"{part}/*/[!.]*{_IMAGE}")):
            city, frame = image.parent.name, image.name.removesuffix(_IMAGE)
            split = "test" if part == "val" else "val" if split_by_hash(city) == "val" else "train"
            sequence = "_".join(frame.split("_")[:2])
            entries.append(Scene(frame, image, labels / part / city / f"{frame}{_LABELS}", split, sequence))
    return entries


SPEC = LabelMapSpec(
    name="cityscapes",
    title="Cityscapes",
    source=_PAGE,
    licence="non-commercial, as its licence says",
    citation="Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016",
    how=f"needs an account: download leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from {_PAGE}",
    indices=dict.fromkeys((*range(34), 255)) | _CLASSES,
    scenes=scenes,
    note="The labels of the published test are withheld: test is the published val, and val some cities of the "
         "published train, by the hash of their name.",
)
