"""BKAI-IGH NeoPolyp: 1000 colonoscopy images with polyp masks (Kaggle account needed)."""

from pathlib import Path

from featherseg.data.raw.layout import find_folder
from featherseg.data.raw.spec import DatasetSpec, Files, medvlsm_lists


def layout(raw: Path) -> Files:
    """`train/train/<id>.jpeg` and `train_gt/train_gt/<id>.jpeg`."""
    images, masks = find_folder(raw, "train/train"), find_folder(raw, "train_gt/train_gt")
    return lambda entry: (images / entry.image, [masks / entry.listed_mask])


SPEC = DatasetSpec(
    name="bkai",
    title="BKAI-IGH NeoPolyp",
    source="https://www.kaggle.com/c/bkai-igh-neopolyp/data",
    licence="as the competition's rules say",
    citation="Ngoc Lan et al., NeoUNet: Towards Accurate Colon Polyp Segmentation and Neoplasm Detection, "
             "2021",
    how="needs a Kaggle account: download it from https://www.kaggle.com/c/bkai-igh-neopolyp/data",
    lists=medvlsm_lists(
        "bkai", "bkai_polyp",
        train="d1a37e0275154bac7de42cdeb8ab3e10ab7bcbe77556a0dd10fd039318203b7c",
        val="71a43719f438d76885d1db84fd3cf636f4c0857da738a7dcd82fb4493ac4d241",
        test="7685154697b2f3ebc2c57a2131b87927fd86bc64073670fcc8d2105cd8d61745",
    ),
    target="polyp",
    field="endoscopy",
    layout=layout,
    threshold=128,
    note="The published masks are JPEG files, red for neoplastic and green for other polyps; target is a "
         "pixel whose strongest channel is 128 or more.",
)
