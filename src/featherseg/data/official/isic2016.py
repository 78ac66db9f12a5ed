"""ISIC 2016 (ISBI 2016 challenge, part 1): dermoscopy images with a skin lesion mask each."""

from pathlib import Path

from featherseg.data.folder.lists import Entry
from featherseg.data.raw.layout import find_folder
from featherseg.data.raw.spec import DatasetSpec, Files, medvlsm_lists, open_archive

_PREFIX = "ISBI2016_ISIC_Part1"
_PARTS = ("Training", "Test")


def layout(raw: Path) -> Files:
    """`ISBI2016_ISIC_Part1_{Training,Test}_{Data,GroundTruth}/`; the lists' splits do not say which part."""
    folders = {part: (find_folder(raw, f"{_PREFIX}_{part}_Data"), find_folder(raw, f"{_PREFIX}_{part}_GroundTruth"))
               for part in _PARTS}

    def files(entry: Entry) -> tuple[Path, list[Path]]:
        part = "Test" if (folders["Test"][0] / entry.image).exists() else "Training"
        images, masks = folders[part]
        return images / entry.image, [masks / entry.listed_mask]

    return files


SPEC = DatasetSpec(
    name="isic2016",
    title="ISIC 2016, part 1",
    source="https://challenge.isic-archive.com/data/",
    licence="CC-0",
    citation="Gutman et al., Skin Lesion Analysis toward Melanoma Detection, ISBI 2016",
    archives=tuple(
        open_archive("isic2016", f"https://isic-challenge-data.s3.amazonaws.com/2016/{_PREFIX}_{part}_{kind}.zip")
        for part in _PARTS for kind in ("Data", "GroundTruth")
    ),
    lists=medvlsm_lists(
        "isic2016", "isic",
        train="9132486ee8700c79fdc2029ea513a3b351c309bace48c723b980751130b6f390",
        val="61ea1d7a7de49f20f2871448fd8af0c06f197b25f017dff4481104380a9d11e1",
        test="e1086e5463f5e74b598b053abd2c4d041782b8edc0e689807b9db2c6692ae1e5",
    ),
    target="skin lesion",
    field="skin",
    layout=layout,
)
