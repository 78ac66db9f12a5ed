"""CVC-ClinicDB: 612 frames of 29 colonoscopy sequences with polyp masks (Kaggle account needed)."""

from pathlib import Path

from featherseg.data.raw.layout import find_folder
from featherseg.data.raw.spec import DatasetSpec, Files, medvlsm_lists


def layout(raw: Path) -> Files:
    """`PNG/Original/<n>.png` and `PNG/Ground Truth/<n>.png`."""
    images, masks = find_folder(raw, "PNG/Original"), find_folder(raw, "PNG/Ground Truth")
    return lambda entry: (images / entry.image, [masks / entry.listed_mask])


SPEC = DatasetSpec(
    name="clinicdb",
    title="CVC-ClinicDB",
    source="https://www.kaggle.com/datasets/balraj98/cvcclinicdb",
    licence="as its page says",
    citation="Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, CMIG 2015",
    how="needs a Kaggle account: download it from https://www.kaggle.com/datasets/balraj98/cvcclinicdb",
    lists=medvlsm_lists(
        "clinicdb", "clinicdb_polyp",
        train="a7cc54ce840934524373ec6d8c5d398f018a43e5fe78d00f234663dd9c9915bb",
        val="8bf3714c8cbce61dc60e5a4a44570504cd37e3b52df653ba60f0bf8e10a9a08b",
        test="981a00a339524416ef232a787a437052dfa0a682753e51a74dc64d66ea40e5de",
    ),
    target="polyp",
    field="endoscopy",
    layout=layout,
    threshold=128,
    note="The published split cuts through the 29 sequences: neighbouring frames are in train and test.",
)
