"""The real sets in the repository: ordinary folders, whole and within their limits."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featherseg.config import read_yaml
from featherseg.data.folder.own_folder import folder_splits

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "data/embedded"
SPLITS = {"polyp": {"train": 300, "val": 60, "test": 98}, "skin": {"train": 300, "val": 60, "test": 305},
          "chest": {"train": 486, "val": 120, "test": 171}}
MOST_BYTES, SIDE = 12_000_000, 160


@pytest.mark.parametrize("name", SPLITS)
def test_every_mask_is_listed_with_its_image_and_its_split(name):
    splits, listed = folder_splits(EMBEDDED / name)
    assert listed and set(splits) == set(SPLITS[name])
    lines = (EMBEDDED / name / "list.csv").read_text().count("\n") - 1
    masks = sorted((EMBEDDED / name / "masks").iterdir())
    assert lines == len(masks) == sum(SPLITS[name].values())


@pytest.mark.parametrize("name", SPLITS)
def test_images_and_masks_have_one_size_and_masks_two_levels(name):
    for file in sorted((EMBEDDED / name / "images").iterdir())[:20]:
        assert Image.open(file).size == (SIDE, SIDE)
    for file in sorted((EMBEDDED / name / "masks").iterdir())[:20]:
        levels = set(np.unique(np.asarray(Image.open(file).convert("L"))).tolist())
        assert levels <= {0, 255} and 255 in levels


def test_they_are_small_declared_as_public_and_carry_their_licence():
    declared = read_yaml(ROOT / "params.yaml")["data"]["folders"]
    assert {name: Path(own["path"]) for name, own in declared.items()} == {
        name: Path("data/embedded") / name for name in SPLITS}
    assert all(own["public"] for own in declared.values())
    for name in SPLITS:
        licence = (EMBEDDED / name / "LICENSE").read_text()
        assert "MIT" in licence and licence.count("this permission notice shall be included") == 1
        for paper in ("LICENSE", "PROVENANCE.md"):
            assert (EMBEDDED / name / paper).stat().st_size > 100
    sizes = [file.stat().st_size for file in EMBEDDED.rglob("*") if file.is_file()]
    assert sum(sizes) < MOST_BYTES
