"""What is known of a published dataset: where its files are, who may have them, and how they are laid out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from featherseg.data.assemble import Source
from featherseg.data.folder.lists import Entry

MEDVLSM = "https://raw.githubusercontent.com/naamiinepal/medvlsm/dc36a3af83035efa344c8ce26397528ad173569e"
Files = Callable[[Entry], tuple[Source, Sequence[Source]]]


@dataclass(frozen=True)
class Resource:
    """One file of a published dataset.

    Attributes:
        file: its name.
        url: where it can be downloaded without an account.
        sha256: known beforehand ("pinned"); None where nobody publishes it: then it is recorded in
            data/checksums.json at the first download and checked from then on.
        mirror: the places below a mirror's root where it is looked for.
    """

    file: str
    url: str
    sha256: str | None
    mirror: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RawSpec:
    """A published source of files, which one stage downloads into its folder of data/raw.

    Attributes:
        name: its folder in data/raw and data/inbox, and, where it is a dataset, in data/processed.
        title, source, licence, citation: for the dataset card; source is the page that offers it.
        archives: what is downloaded; empty where an account or a request is needed, then every archive in the
            inbox is taken, or where another source holds the files.
        how: how to get it where there is no open address, as the end of a sentence; None for an open set.
        lists: the published splits and prompts P0 to P9 (medvlsm).
        any_edition: whether an archive in the inbox, whatever its name, stands in for the open ones.
        unpack: whether its archives are unpacked; else they are kept as they are and read in place.
    """

    name: str
    title: str
    source: str
    licence: str
    citation: str
    lists: tuple[Resource, ...] = ()
    archives: tuple[Resource, ...] = ()
    how: str | None = None
    any_edition: bool = False
    unpack: bool = True


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(RawSpec):
    """One published dataset of MedVLSM's Table 2: images, masks, and lists that join them.

    Attributes:
        target: what the masks show where a row of the lists does not name it.
        layout: from the folder of raw files to a function that finds an entry's image and its masks (their
            union is the target).
        complete: adds to an entry what its file names say: target, group, the folder of its image.
        files: the entries that the raw files themselves make up, where the published lists belong to another set.
        test_only: whether every row is scored and none trained on, whatever list it is in.
        images: name of the source that holds its archives' files; None for the dataset itself.
        field: of the prompt engine, for rows without published prompts.
        threshold: grey level at and above which a mask pixel is target, whatever its colour; None for masks of two
            levels.
        note: what else a reader of the card should know.
    """

    target: str
    layout: Callable[[Path], Files]
    complete: Callable[[Entry], Entry] = lambda entry: entry
    files: Callable[[Path], list[Entry]] | None = None
    test_only: bool = False
    images: str | None = None
    field: str = "general"
    threshold: int | None = None
    note: str | None = None

    def as_published(self, name: str) -> Self:
        """The dataset under another name, whose grey masks are target from level 1 on, as the released metrics count.
        """
        if self.threshold is None:
            return replace(self, name=name, title=f"{self.title}, as published")
        note = "The published masks are JPEG files; target is every level above 0, as in the papers' released metrics."
        return replace(self, name=name, title=f"{self.title}, as published", threshold=1, note=note)


@dataclass(frozen=True)
class Scene:
    """One image with the map of its classes.

    Attributes:
        image_id: unique in the dataset.
        group: None for the image itself.
    """

    image_id: str
    image: Path
    labels: Path
    split: str
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class LabelMapSpec(RawSpec):
    """Images whose every pixel has a class.

    Attributes:
        indices: label -> class, None for what is no target, where maps hold one number a pixel.
        colours: (red, green, blue) -> class likewise, where they hold colours.
        scenes: from the folder of raw files to every image with its map.
        field: of the prompt engine.
        note: what else a reader of the card should know.
    """

    indices: Mapping[int, str | None]
    colours: Mapping[tuple[int, int, int], str | None] = dataclasses.field(default_factory=dict)
    scenes: Callable[[Path], list[Scene]]
    field: str = "street"
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReferringSpec(RawSpec):
    """One split of a set of referring expressions in REFER's form, on COCO's images.

    Attributes:
        folder: the archive's folder, with `instances.json` and `refs(<split_by>).p`.
        split_by: who made the split.
        sizes: references by split, as published; other sizes are refused.
        images: name of the source whose one archive holds the images.
    """

    folder: str
    split_by: str
    sizes: dict[str, int]
    images: str = "coco_train2014"


def open_archive(dataset: str, url: str, sha256: str | None = None) -> Resource:
    """An archive at an open address; `sha256` where somebody publishes its checksum."""
    file = url.rsplit("/", 1)[-1]
    return Resource(file, url, sha256, (f"{dataset}/{file}", file))


def refer_archive(dataset: str, file: str) -> Resource:
    """An archive of REFER (Kazemzadeh et al., 2014; Yu et al., 2016)."""
    return open_archive(dataset, f"https://bvisionweb1.cs.unc.edu/licheng/referit/data/{file}")


def medvlsm_lists(dataset: str, folder: str, **sha256: str | None) -> tuple[Resource, ...]:
    """MedVLSM's annotation lists of one dataset, `<split>.json` each, at a fixed commit (MIT).

    Args:
        folder: its folder in medvlsm's `data/`.
        sha256: by split; None where the file could not be seen.
    """
    return tuple(
        Resource(f"{split}.json", f"{MEDVLSM}/data/{folder}/anns/{split}.json", digest,
                 (f"{dataset}/{split}.json", f"medvlsm/{folder}/{split}.json"))
        for split, digest in sha256.items()
    )
