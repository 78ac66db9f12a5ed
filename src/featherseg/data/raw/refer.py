"""Referring expressions as REFER publishes them, joined with COCO's images.

    <folder>/refs(<who split it>).p   a list of references: an annotation, its image, a split, several sentences
    <folder>/instances.json           the annotations with their polygons or run lengths, in COCO's form
    train2014.zip                     the images; those that a reference needs are read in place
"""

import zipfile
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError

from featherseg.core.errors import UserError
from featherseg.core.files import read_json
from featherseg.core.progress import progress
from featherseg.data.card import About, write_card
from featherseg.data.prepared import PreparedWriter
from featherseg.data.raw.extract import open_zip
from featherseg.data.raw.layout import find_folder
from featherseg.data.raw.plain_pickle import read_plain_pickle
from featherseg.data.raw.segmentation import mask_of
from featherseg.data.raw.spec import ReferringSpec

Found = TypeVar("Found")
Records = Annotated[list[Found], FailFast()]  # a fault of each of two million records would take gigabytes


class _Record(BaseModel):
    """What is read of a published record; its further keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Sentence(_Record):
    """One expression, in lower case and without punctuation."""

    sent: str


class Reference(_Record):
    """One object that several sentences refer to."""

    ref_id: int
    ann_id: int
    image_id: int
    split: str
    sentences: Annotated[Records[Sentence], Field(min_length=1)]


class Picture(_Record):
    """One image of `instances.json`; height and width in pixels."""

    id: int
    file_name: str
    height: int
    width: int


class Annotation(_Record):
    """One object of `instances.json`; its segmentation is looked at only where it is needed."""

    id: int
    image_id: int
    category_id: int
    segmentation: Any = None


class Category(_Record):
    """A kind of object."""

    id: int
    name: str


class Instances(_Record):
    """An `instances.json`."""

    images: Records[Picture]
    annotations: Records[Annotation]
    categories: Records[Category]


def prepare_referring(spec: ReferringSpec, raw_dir: Path, images_dir: Path, out_dir: Path) -> None:
    """Write the prepared dataset of one split of a referring set, with its card.

    A sample is a reference: its target is the category's name (numbered from the second one in an image on), level
    p1 that name, level `sentences` every sentence in REFER's order.

    Args:
        raw_dir: the unpacked archive.
        images_dir: holds the zip archive of the images.

    Raises:
        UserError: a file that is not as it was published: a pickle with code, other split sizes, a reference to an
            annotation or an image that is not there, an image of another size, an annotation without a mask; nothing
            is written.
    """
    folder = find_folder(raw_dir, spec.folder)
    references = _read(Records[Reference], folder / f"refs({spec.split_by}).p", read_plain_pickle)
    _check_sizes(spec, references)
    instances = _read(Instances, folder / "instances.json", read_json)
    pictures = _images_of(images_dir)
    about = About(spec.title, spec.source, spec.licence, spec.citation, tuple(_notes(references)))
    with (PreparedWriter(out_dir, dataset=spec.name, finish=partial(write_card, about=about)) as writer,
          progress(len(references), f"preparing {spec.name}", "reference") as bar):
        _write(references, instances, pictures, images_dir, writer, bar)


def _write(references: Iterable[Reference], instances: Instances, pictures: dict[str, zipfile.Path], images_dir: Path,
           writer: PreparedWriter, bar: Any) -> None:
    images = _by_id(instances.images)
    annotations = _by_id(instances.annotations)
    categories = _by_id(instances.categories)
    named: Counter[tuple[int, str]] = Counter()
    added: set[int] = set()
    for reference in references:
        where = f"{writer.dataset}, reference {reference.ref_id}"
        annotation = _find(annotations, reference.ann_id, f"{where}: annotation")
        image = _find(images, reference.image_id, f"{where}: image")
        target = _find(categories, annotation.category_id, f"{where}: category").name
        if annotation.image_id != reference.image_id:
            raise UserError(f"{where} is to image {reference.image_id} but its annotation {annotation.id} belongs to "
                            f"image {annotation.image_id}; get the archive again.")
        image_id = Path(image.file_name).stem
        if image.id not in added:
            if image.file_name not in pictures:
                raise UserError(f"{where}: {images_dir} holds no image {image.file_name}; get the archive of the "
                                "images again.")
            writer.add_image(image_id, pictures[image.file_name])
            added.add(image.id)
            if writer.image_size(image_id) != (image.height, image.width):
                height, width = writer.image_size(image_id)
                raise UserError(f"{where}: image {image.file_name} has {height} rows and {width} columns, but "
                                f"instances.json says {image.height} and {image.width}; get the archives again.")
        named[image.id, target] += 1
        number = named[image.id, target]
        try:
            mask = mask_of(annotation.segmentation, image.height, image.width)
        except UserError as fault:
            raise UserError(f"{where}: annotation {annotation.id} has no mask: {fault}; get the archive "
                            "again.") from None
        writer.add_sample(
            image_id=image_id, target=target if number == 1 else f"{target} {number}", mask=mask,
            split=reference.split,
            prompts={"p0": "", "p1": target, "sentences": [item.sent.strip() for item in reference.sentences]},
            attributes={"ref_id": reference.ref_id, "ann_id": annotation.id, "category": target})
        bar.update()


def _read(kind: type[Found], path: Path, reader: Any) -> Found:
    """Content of a file as records."""
    content = reader(path)
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ", ".join(str(part) for part in fault["loc"])
        raise UserError(f"{path}, at {place or 'its top'}: {fault['msg'][0].lower()}{fault['msg'][1:]}; "
                        "get the archive again.") from None


def _by_id(records: Iterable[Any]) -> dict[int, Any]:
    return {record.id: record for record in records}


def _find(records: dict[int, Found], key: int, what: str) -> Found:
    if key not in records:
        raise UserError(f"{what} {key} is not in instances.json; get the archive again.")
    return records[key]


def _images_of(folder: Path) -> dict[str, zipfile.Path]:
    """The images in a folder's zip archives, by file name."""
    files: dict[str, zipfile.Path] = {}
    for archive in sorted(folder.glob("*.zip")):
        root = zipfile.Path(open_zip(archive))
        files |= {Path(name).name: root / name for name in root.root.namelist() if not name.endswith("/")}
    return files


def _check_sizes(spec: ReferringSpec, references: list[Reference]) -> None:
    counts = Counter(reference.split for reference in references)
    for split in sorted(set(counts) - set(spec.sizes)):
        raise UserError(f"{spec.name}: {counts[split]} references are of the split {split!r}, which the published set "
                        f"has not ({', '.join(spec.sizes)}); get the archive again.")
    for split, size in spec.sizes.items():
        if counts[split] != size:
            raise UserError(f"{spec.name}, split {split}: {counts[split]} references where {size} were published; "
                            "get the archive again.")


def _notes(references: list[Reference]) -> Iterable[str]:
    words = sorted(len(item.sent.split()) for reference in references for item in reference.sentences)
    yield (f"{len(words)} sentences of {words[0]} to {words[-1]} words, half of them of at most "
           f"{words[len(words) // 2]}; every one is kept.")
    if words[0] == 0:
        yield f"{words.count(0)} sentences are empty, and kept as published."
    splits: dict[int, set[str]] = {}
    for reference in references:
        splits.setdefault(reference.image_id, set()).add(reference.split)
    shared = sum(len(names) > 1 for names in splits.values())
    if shared:
        yield f"{shared} images occur in more than one split, as published, which makes scores too high."
