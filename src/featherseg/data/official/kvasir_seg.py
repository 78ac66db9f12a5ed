"""Kvasir-SEG: 1000 colonoscopy images with a polyp mask each."""

from featherseg.data.raw.layout import images_and_masks
from featherseg.data.raw.spec import DatasetSpec, medvlsm_lists, open_archive

SPEC = DatasetSpec(
    name="kvasir_seg",
    title="Kvasir-SEG",
    source="https://datasets.simula.no/kvasir-seg/",
    licence="CC BY 4.0 as part of HyperKvasir; the Kvasir-SEG page asks for research and education use",
    citation="Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020",
    archives=(open_archive("kvasir_seg", "https://datasets.simula.no/downloads/kvasir-seg.zip"),),
    any_edition=True,
    lists=medvlsm_lists(
        "kvasir_seg", "kvasir_polyp",
        train="dbeeb45dbb244d3e298f24553ead9b5d360401e13286808409592e35d3b79d2a",
        val="c38ac7e698389648d3f2341fdf32200a85f87d084a45c971e339686fa8627dcd",
        test="e810a2fe9aa54dfbff188a91abd76d29feaf86916a4d3ba71f55711fcbc0be4c",
    ),
    target="polyp",
    field="endoscopy",
    layout=images_and_masks("Kvasir-SEG"),
    threshold=128,
    note="The published masks are JPEG files with grey edges by their compression; target is 128 and above.",
)
