"""DFU 2022: 2000 foot photographs with ulcer masks (by request)."""

from pathlib import Path

from featherseg.data.raw.layout import find_file_by_name
from featherseg.data.raw.spec import DatasetSpec, Files, medvlsm_lists


def layout(raw: Path) -> Files:
    """Images `<n>.jpg` and masks `<n>.png`, each name once in the archive."""
    find = find_file_by_name(raw)
    return lambda entry: (find(entry.image), [find(entry.listed_mask)])


SPEC = DatasetSpec(
    name="dfu",
    title="DFU 2022",
    source="https://dfu-challenge.github.io/dfuc2022.html",
    licence="by agreement with the organisers",
    citation="Kendrick et al., Translating Clinical Delineation of Diabetic Foot Ulcers into Machine "
             "Interpretable Segmentation, 2022",
    how="is given on request: ask for it at https://dfu-challenge.github.io/dfuc2022.html",
    lists=medvlsm_lists(
        "dfu", "dfu",
        train="b80ca000296a95401f7d94ab09c4e5faeee5a68acd1792620424198ad089b171",
        val="c9489451d371b1ed58e95f2275db0ca41466121ff2bd2d0d8d58427490202daf",
        test="cc54edb98c2240043ccf1f9d37c62eef8ca671a1310e5f38219274fe3ede4570",
    ),
    target="foot ulcer",
    field="skin",
    layout=layout,
    threshold=128,
)
