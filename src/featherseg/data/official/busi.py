"""BUSI: 780 breast ultrasound images with tumor masks; 133 of them are normal, with empty masks."""

from dataclasses import replace
from pathlib import Path

from featherseg.data.folder.lists import Entry, named_in
from featherseg.data.raw.layout import find_folder
from featherseg.data.raw.spec import DatasetSpec, Files, medvlsm_lists, open_archive

_WORDS = (r"(?P<number>\w+) (?P<size>\w+(?:, \w+)*) (?P<shape>[\w ]+?)-shaped (?P<type>benign|malignant) tumors? "
          r"at the (?P<location>.+) in the breast ultrasound image\.")


def complete(entry: Entry) -> Entry:
    """The attributes that level P6 names; normal images have none."""
    return replace(entry, attributes=entry.attributes | named_in(entry.prompts, "p6", _WORDS))


def layout(raw: Path) -> Files:
    """`Dataset_BUSI_with_GT/<kind>/<kind> (<n>).png`; the lists call it `<n>_<kind>.png`.

    Masks are `<kind> (<n>)_mask.png`, with `_mask_1.png`, `_mask_2.png` for further tumors of the image.
    """
    root = find_folder(raw, "Dataset_BUSI_with_GT")

    def files(entry: Entry) -> tuple[Path, list[Path]]:
        number, kind = Path(entry.image).stem.split("_")
        stem = f"{kind} ({number})"
        return root / kind / f"{stem}.png", sorted((root / kind).glob(f"{stem}_mask*.png"))

    return files


SPEC = DatasetSpec(
    name="busi",
    title="BUSI",
    source="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    licence="as its page says",
    citation="Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 2020",
    archives=(open_archive("busi", "https://scholar.cu.edu.eg/Dataset_BUSI.zip"),),
    any_edition=True,
    lists=medvlsm_lists(
        "busi", "busi",
        train="8549685d0208913b15e4039b4e325d0a3953d59290cf8060ac119abfeb42d19c",
        val="88f63df7348c4a945e54140e9eee65fe4e7c340a65baf63ce497aff1cc0d0d66",
        test="bcac23f46abdb92747b4cf1cd832944e6833cd63e5f863e45bf92334dd8c269b",
    ),
    target="tumor",
    field="ultrasound",
    layout=layout,
    complete=complete,
    threshold=128,
    note="133 images are normal: their masks are empty and their prompts say so, so about a sixth of a mean "
         "score is the rule for empty masks.",
)
