"""Make `data/embedded` from the data packs: small versions of real sets, as ordinary folders of images and masks.

    python scripts/embed_datasets.py <folder of the packs>

Run from the project's root. A set keeps its whole test split; of the others so many images are taken as `SETS` says, in
the order of the hash of their names. Images are resized by Lanczos and saved as JPEG, masks by area and cut at a half.
The packs' own licence and provenance go along.
"""

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image

OUT = Path("data/embedded")
SIDE = 160  # pixels
QUALITY = 88  # of JPEG
LEVELS = tuple(f"p{level}" for level in range(10))
# name -> its pack, and how many images of the training and the validation split at most
SETS = {"polyp": ("kvasir_seg", 300, 60), "skin": ("isic2016", 300, 60), "chest": ("wingspan_cxr", 162, 40)}
# where a pack does not say who wrote its prompts, what can be said of them
PROMPTS = {"chest": """
Its prompts are the pack's, which names no source for them: p0 is empty, p1 to p4 are the same for every image, so
that they tell one structure from another and nothing about a single image.
"""}
# of what the packs took from repositories under the MIT licence, whose holders their LICENSE names
NOTICE = "Permission is hereby granted"
MIT = """
The parts under MIT, by the holders named above:

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
ABOUT = """
## This version

Made by `scripts/embed_datasets.py` from the pack that is described above: {images} images of {side} x {side} pixels,
{counts}.
Images are JPEG files of quality {quality}; masks were averaged over areas and cut at a half. `list.csv` names each
mask, its target, its split and its prompts by level; several of one level are a JSON list. Files that the description
above lists and that are not here belong to the pack.
"""


def main(packs: Path) -> None:
    """Write every set."""
    for name, (pack, train, val) in SETS.items():
        embed(packs / pack, OUT / name, {"train": train, "val": val}, PROMPTS.get(name, ""))


def embed(pack: Path, folder: Path, most: dict[str, int], prompts: str) -> None:
    """Write one set; splits that are not in `most` are kept whole, `prompts` is said of where its prompts come from."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    rows = []
    for split in ("train", "val", "test"):
        listed = json.loads((pack / "anns" / f"{split}.json").read_text(encoding="utf-8"))
        rows += first(listed, most.get(split))
    for image in sorted({row["img_name"] for row in rows}):
        write_image(pack / "images" / image, folder / "images")
    for row in rows:
        write_mask(pack / "masks" / row["mask_name"], folder / "masks")
    write_list(rows, folder / "list.csv")
    write_licence(pack, folder / "LICENSE")
    write_provenance(pack, rows, prompts, folder / "PROVENANCE.md")


def first(rows: list[dict[str, Any]], images: int | None) -> list[dict[str, Any]]:
    """The rows of so many images, in the order of the hash of their names."""
    names = sorted({row["img_name"] for row in rows}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    kept = set(names[:images])
    return [row for row in rows if row["img_name"] in kept]


def write_image(source: Path, folder: Path) -> None:
    """One image; X-rays stay grey."""
    with Image.open(source) as opened:
        mode = "L" if opened.mode in ("L", "I;16", "1") else "RGB"
        image = opened.convert(mode).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    image.save(folder / f"{source.stem}.jpg", quality=QUALITY, optimize=True)


def write_mask(source: Path, folder: Path) -> None:
    """One mask, of 0 and 255."""
    with Image.open(source) as opened:
        averaged = opened.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    cut = averaged.point(lambda level: 255 if level >= 128 else 0).convert("1")
    cut.save(folder / f"{source.stem}.png", optimize=True)


def write_list(rows: list[dict[str, Any]], path: Path) -> None:
    """The list that joins images, masks, splits and prompts."""
    levels = [level for level in LEVELS if any(level in row["prompts"] for row in rows)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "mask", "target", "split", *levels))
        for row in rows:
            prompts = [cell(row["prompts"][level]) for level in levels]
            image, mask = f"{Path(row['img_name']).stem}.jpg", f"{Path(row['mask_name']).stem}.png"
            writer.writerow((image, mask, row["structure"], row["split"], *prompts))


def cell(prompts: str | list[str]) -> str:
    """One prompt as it is, several as a JSON list."""
    return prompts if isinstance(prompts, str) else json.dumps(prompts, ensure_ascii=False)


def write_licence(pack: Path, path: Path) -> None:
    """The pack's licence, with MIT's notice where it names MIT without it."""
    own = (pack / "LICENSE").read_text(encoding="utf-8")
    needs_notice = "MIT" in own and NOTICE not in own
    path.write_text(own + MIT if needs_notice else own, encoding="utf-8")


def write_provenance(pack: Path, rows: list[dict[str, Any]], prompts: str, path: Path) -> None:
    """The pack's own provenance, and what was done to it here."""
    images = {split: len({row["img_name"] for row in rows if row["split"] == split})
              for split in ("train", "val", "test")}
    counts = ", ".join(f"{count} in split {split}" for split, count in images.items())
    own = (pack / "PROVENANCE.md").read_text(encoding="utf-8")
    about = ABOUT.format(images=sum(images.values()), side=SIDE, counts=counts, quality=QUALITY)
    path.write_text(own + about + prompts, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Name the folder of the data packs: python scripts/embed_datasets.py <folder>")
    main(Path(sys.argv[1]))
