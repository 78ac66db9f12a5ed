"""Any folder with images/ and masks/, with or without a list of splits and prompts.

    images/<image>.<ext>
    masks/<image>.<ext>               one target an image, or
    masks/<image>__<target>.<ext>     several, or
    masks/<target>/<image>.<ext>      several
    anns/<split>.json                 optional: a list in medvlsm's form (`lists.read_list`), or
    <any>.csv                         optional: a list as a table (`lists.read_table`)

Names are compared without extension and, for a list from another system, whatever its slashes.
JPEG, PNG, TIFF, BMP, GIF, WebP and PPM; 8 or 16 bits, grey or colour (`images.read_image` and `open_mask` say how
each is read); files of other kinds are skipped and counted.
Without splits in a list, the groups that it names, else the images, are divided 60/20/20
(`splits.split_groups`). Where no list gives a prompt, the prompt engine makes them.
"""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from featherseg.core.errors import UserError
from featherseg.core.files import explained, refuse_own_source
from featherseg.core.registry import unknown
from featherseg.core.terminal import printable, shortened
from featherseg.data.assemble import Markings, Row, Source, faults, pixels_of, write_rows
from featherseg.data.card import About, write_card
from featherseg.data.facts import Facts, Leaks
from featherseg.data.folder.lists import IMAGE_COLUMNS, Entry, names_images, read_list, read_table
from featherseg.data.images import EXTENSIONS
from featherseg.data.prepared import PreparedWriter, is_text, mask_name
from featherseg.data.prompts.prompt_engine import PromptEngine
from featherseg.data.splits import assign_splits, uneven_note

_NUMBER = re.compile(r"[+-]?\d+([.,]\d*)?")
_MASK_ENDINGS = ("_mask", "_segmentation", "_seg", "_gt", "_label")
_CONVERSION = ("8-bit JPEG and PNG images, RGB or grey, are copied as they are, all others converted to "
               "8-bit RGB PNG; grey of more than 8 bits is scaled from its 0.5th to its 99.5th percentile.")


def prepare_folder(name: str, path: Path | str, out_dir: Path | str, class_name: str | None = None,
                   threshold: float | None = None, field: str = "general",
                   descriptions: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Write a folder of images and masks as the prepared dataset `name`, with its card; return the card's notes.

    Args:
        class_name: what the masks show where no mask's name says it; None for `object`. It stands before the targets
            of a list that names one for each image, which is often a diagnosis.
        threshold: grey level at and above which a mask pixel is target; None for masks of two levels.
        field, descriptions: of the prompt engine, which makes the prompts where the folder has none at all.

    Raises:
        UserError: the first fault, and how many more there are; nothing is written.
    """
    rows, problems, notes = _scan(Path(path), class_name)
    if problems:
        more = f" ({len(problems) - 1} more faults: `featherseg check` lists them.)"
        raise UserError(problems[0] + (more if len(problems) > 1 else ""))
    folders = (Path(path) / part for part in ("images", "masks", "anns"))
    files = (file for row in rows for file in (row.image, *row.masks) if isinstance(file, Path))
    refuse_own_source(out_dir, *folders, *Path(path).glob("*.csv"), *files)
    engine = _engine(rows, field, descriptions)
    papers = [file for file in ("LICENSE", "PROVENANCE.md") if (Path(path) / file).is_file()]
    licence = f"see {' and '.join(papers)} there" if papers else "not stated"

    def finish(folder: Path) -> None:
        made = engine.notes() if engine else ()
        about = (*notes, *markings.notes(), _CONVERSION, *made)
        write_card(folder, About(name, f"the folder {path}", licence, notes=about))

    with PreparedWriter(out_dir, dataset=name, finish=finish) as writer:
        markings = write_rows(rows, writer, threshold, engine)
    return [*notes, *markings.notes()]


def check_folder(path: Path | str, class_name: str | None = None, threshold: float | None = None,
                 field: str = "general", descriptions: Mapping[str, Sequence[str]] | None = None,
                 notes: list[str] | None = None) -> list[str]:
    """Everything that is wrong with a folder, one sentence each; empty where `prepare_folder` can prepare it.

    Args:
        notes: takes what to know of its masks although nothing is wrong with them, as the card says it.
    """
    markings = Markings(threshold)
    try:
        rows, problems, _ = _scan(Path(path), class_name)
        _engine(rows, field, descriptions)
    except UserError as error:
        return [str(error)]
    problems += faults(rows, markings)
    if notes is not None and not problems:
        notes += markings.notes()
    return problems


def folder_notes(path: Path | str, class_name: str | None = None) -> list[str]:
    """What a folder's user should know although nothing is wrong: files, columns and names that are skipped.

    Empty where the folder cannot be read, which `check_folder` reports.
    """
    try:
        return _scan(Path(path), class_name)[2]
    except UserError:
        return []


def folder_splits(path: Path | str) -> tuple[Counter[str], bool]:
    """How many samples each split of a folder has, and whether its list names the splits; no pixel is read.

    Raises:
        UserError: the folder cannot be prepared.
    """
    rows, problems, _ = _scan(Path(path), None)
    if problems:
        raise UserError(problems[0])
    return Counter(_splits(rows)), any(row.split is not None for row in rows)


def folder_leaks(path: Path | str) -> list[str]:
    """Which pictures and groups of a folder will be in several splits, one sentence each (`facts.Facts.leaks`).

    Raises:
        UserError: the folder cannot be prepared.
    """
    rows, problems, _ = _scan(Path(path), None)
    if problems:
        raise UserError(problems[0])
    leaks = Leaks()
    splits: dict[Source, set[str]] = defaultdict(set)
    for row, split in zip(rows, _splits(rows), strict=True):
        leaks.add_group(_group(row), row.image_id, split)
        splits[row.image].add(split)
    for image, names in splits.items():
        leaks.add_picture(pixels_of(image), names)
    return Facts(leaks.pictures, leaks.groups).leaks()


def _splits(rows: list[Row]) -> list[str]:
    """The split that each row will have."""
    return assign_splits([(_group(row), row.split) for row in rows])


def _group(row: Row) -> str:
    return row.image_id if row.group is None else row.group


def _engine(rows: list[Row], field: str, descriptions: Mapping[str, Sequence[str]] | None) -> PromptEngine | None:
    """What makes a folder's prompts; None where it brings any of its own, which then stand alone.

    Raises:
        UserError: an unknown field, a class that is a number or that the field has no template for, or descriptions of
            a class that the folder lacks or beside prompts of its own.
    """
    engine = PromptEngine(field, descriptions)
    if any(row.prompts is not None for row in rows):
        if descriptions:
            raise UserError("`descriptions` are given, but the folder's list has prompts of its own, which stand "
                            "alone; remove `descriptions` or the prompts.")
        return None
    classes = list(dict.fromkeys(row.target for row in rows))
    for name in descriptions or {}:
        if name not in classes:
            raise unknown("class with a description", name, classes)
    numbers = [name for name in classes if _NUMBER.fullmatch(name.strip())]
    if numbers:
        count = sum(row.target in numbers for row in rows)
        raise UserError(f"the targets of {count} masks are numbers ({', '.join(numbers[:5])}), which would become "
                        "words of prompts; write what each mask shows, or set `class_name`.")
    for name in classes:
        engine.template(name)
    return engine


def _scan(folder: Path, class_name: str | None) -> tuple[list[Row], list[str], list[str]]:
    """Rows of a folder, what is wrong with it, and notes for its card; no pixel is read."""
    if not os.path.isdir(folder):  # Path.is_dir would raise for a name that is too long
        raise UserError(f"the folder {shortened(str(folder), 200)} does not exist; correct its path.")
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise UserError(f"{folder} has no folder {part}/; put the {part} there.")
    problems: list[str] = []
    notes: list[str] = []
    images = _images(folder / "images", problems, notes)
    masks = _Masks(folder / "masks", images, notes)
    entries = _entries(folder, problems, notes)
    if entries is None:
        rows = _rows_by_name(images, masks, problems)
    else:
        if class_name and not any(masks.target.values()):
            entries = _named_by_class(entries, class_name, notes)
        rows = _rows_by_list(entries, images, masks, problems)
        if not entries and not problems:
            raise UserError(f"the list of {folder} has no rows; add some, or remove the list.")
        blank = [entry.where for entry in entries if entry.split is None]
        if blank and len(blank) < len(entries):
            problems.append(f"{blank[0]}: the split is empty where other rows name one; fill it in for every row, or "
                            "for none.")
    if class_name and rows and all(row.target for row in rows):
        notes.append(f"class_name ({class_name}) is not used: every mask's target is named already.")
    rows = [row if row.target else replace(row, target=class_name or "object") for row in rows]
    return _distinct(rows, problems), problems, [*notes, *_notes(rows, images)]


def _named_by_class(entries: list[Entry], class_name: str, notes: list[str]) -> list[Entry]:
    """The entries without the targets that the list names, where it names one for each image and misses none.

    Such a column is often a diagnosis; what it says becomes an attribute.
    """
    images = {entry.image for entry in entries}
    if not entries or len(images) < len(entries) or not all(entry.target for entry in entries):
        return entries
    targets = list(dict.fromkeys(entry.target for entry in entries if entry.target))
    shown = ", ".join(shortened(target) for target in targets[:3]) + (", ..." if len(targets) > 3 else "")
    notes.append(f"The list's targets ({shown}) name no structure, since class_name does ({class_name}); they are "
                 "kept as the attribute label.")
    return [replace(entry, target=None, attributes={"label": entry.target, **entry.attributes}) for entry in entries]


class _Masks:
    """The mask files of a folder, found by place or by the image that they belong to.

    Attributes:
        of_image: by image stem, its masks.
        orphans: masks whose name fits no image.
        target: by mask, the target that its name or folder says; None where it says none.
    """

    def __init__(self, folder: Path, images: dict[str, Path], notes: list[str]) -> None:
        self.folder = folder
        self.of_image: dict[str, list[Path]] = {}
        self.orphans: list[Path] = []
        self.target: dict[Path, str | None] = {}
        self._by_place: dict[str, Path] = {}
        for path in _pictures(folder, notes):
            place = path.relative_to(folder)
            self._by_place[_named(str(place))] = path
            stem, target = _owner(_named(path.name), images)
            if place.parent != Path():
                target = place.parent.as_posix()
            self.target[path] = _spoken(target) if target else None
            if stem is None:
                self.orphans.append(path)
            else:
                self.of_image.setdefault(stem, []).append(path)

    def find(self, name: str) -> Path | None:
        """The mask that a list names, with whatever extension it has here."""
        return self._by_place.get(f"/{_named(name)}".rpartition("/masks/")[2].removeprefix("/"))


def _named(path: str) -> str:
    """A file's name, with its folders, as lists and files are compared by it.

    It is without the extension of a picture (any other dot belongs to the name), with slashes as Unix writes them,
    and with each accented letter as one character, which some systems write as two.
    """
    name = PureWindowsPath(unicodedata.normalize("NFC", path))
    return (name.with_suffix("") if name.suffix.lower() in EXTENSIONS else name).as_posix()


def _spoken(target: str) -> str:
    """A target as a mask's name or folder says it: a blank for each underscore."""
    return unicodedata.normalize("NFC", target.replace("_", " "))


def _owner(mask: str, images: dict[str, Path]) -> tuple[str | None, str | None]:
    """The image stem that a mask's stem belongs to, and the target that it names."""
    if mask in images:
        return mask, None
    image, mark, target = mask.rpartition("__")
    if mark and image in images:
        return image, target
    shorter = (mask[:-len(ending)] for ending in _MASK_ENDINGS if mask.lower().endswith(ending))
    return next((stem for stem in shorter if stem in images), None), None


def _images(folder: Path, problems: list[str], notes: list[str]) -> dict[str, Path]:
    """Images by stem."""
    images: dict[str, Path] = {}
    for path in _pictures(folder, notes):
        if path.parent != folder:
            problems.append(f"{path} lies in a folder of its own; put all images directly into {folder}.")
        elif (stem := _named(path.name)) in images:
            problems.append(f"{path} and {images[stem]} have one name; rename one of them and its mask.")
        elif stem != stem.strip() or "/" in stem:
            problems.append(f"'{path}' has a blank at an end of its name or a backslash in it; rename it and its mask.")
        else:
            images[stem] = path
    if not images:
        raise UserError(f"{folder} holds no image ({', '.join(EXTENSIONS)}); put the images there.")
    return images


def _pictures(folder: Path, notes: list[str]) -> list[Path]:
    """The picture files below a folder, sorted; a note says how many other files there are."""
    files = []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        here = Path(parent).resolve()
        folders[:] = [name for name in folders if not here.is_relative_to((here / name).resolve())]  # links in a circle
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    files.sort()
    for path in files:
        if not is_text(name := str(path.relative_to(folder))):
            raise UserError(f"the name {name!r} in {folder} is not in UTF-8; rename the file.")
        if printable(name) != name:
            raise UserError(f"the name '{printable(shortened(name))}' in {folder} has a control character in it; "
                            "rename the file.")
    others = [path.name for path in files if path.suffix.lower() not in EXTENSIONS]
    if others:
        notes.append(f"{len(others)} {'file' if len(others) == 1 else 'files'} in {folder.name}/ passed over "
                     f"({', '.join(others[:3])}{', ...' * (len(others) > 3)}): a picture ends in "
                     f"{', '.join(EXTENSIONS)}; convert what is one to PNG.")
    return [path for path in files if path.suffix.lower() in EXTENSIONS]


def _refuse_folder(error: OSError) -> None:
    raise UserError(explained(error))


def _entries(folder: Path, problems: list[str], notes: list[str]) -> list[Entry] | None:
    """Rows of the folder's lists, None where it has none."""
    lists = [path for path in sorted((folder / "anns").glob("[!.]*.json")) if path.is_file()]
    if lists:
        return [entry for path in lists for entry in read_list(path, problems)]
    if others := [path for path in sorted((folder / "anns").glob("[!.]*")) if path.is_file()]:
        raise UserError(f"{others[0]} is no list in JSON, as anns/ holds them; put a table into {folder}, or take the "
                        "file away.")
    tables = [path for path in sorted(folder.glob("[!.]*.[cC][sS][vV]")) if path.is_file()]
    named = [path for path in tables if names_images(path)]
    if len(named) > 1:
        raise UserError(f"{folder} has several lists ({', '.join(path.name for path in named)}); "
                        "keep the one that is meant.")
    if tables and not named:
        raise UserError(f"{tables[0]} has no column `image` (or {', '.join(IMAGE_COLUMNS[1:])}), so that it is no list "
                        "of this folder; name the column of the images' names so, or take the table away.")
    return read_table(named[0], problems, notes) if named else None


def _rows_by_name(images: dict[str, Path], masks: _Masks, problems: list[str]) -> list[Row]:
    problems.extend(f"{path} belongs to no image; name it masks/<image>.png, masks/<image>__<target>.png or "
                    "masks/<target>/<image>.png." for path in masks.orphans)
    problems.extend(f"{image} has no mask; add {masks.folder / stem}.png (all black where nothing is to be "
                    "found) or take the image away."
                    for stem, image in images.items() if stem not in masks.of_image)
    return [_row(Entry(str(path), image.name), stem, image, path, masks)
            for stem, image in images.items() for path in masks.of_image.get(stem, [])]


def _rows_by_list(entries: list[Entry], images: dict[str, Path], masks: _Masks,
                  problems: list[str]) -> list[Row]:
    rows: list[Row] = []
    for entry in entries:
        stem = _named(entry.image).rpartition("/")[2]
        if stem not in images:
            problems.append(f"{entry.where}: images/ has no {shortened(entry.image, 200)}; add it or remove the row.")
            continue
        if entry.mask is not None:
            files = [path for path in [masks.find(entry.mask)] if path]
        else:
            files = [path for path in masks.of_image.get(stem, [])
                     if entry.target is None or masks.target[path] in (None, _spoken(entry.target))]
        if not files:
            missing = shortened(entry.mask or f"mask of {entry.image}", 200)
            problems.append(f"{entry.where}: masks/ has no {missing}; "
                            "add it or remove the row.")
        rows.extend(_row(entry, stem, images[stem], path, masks) for path in files)
    return rows


def _row(entry: Entry, stem: str, image: Path, mask: Path, masks: _Masks) -> Row:
    return Row(entry.where, stem, image, (mask,), entry.target or masks.target[mask] or "", entry.split,
               entry.group, entry.prompts, entry.attributes)


def _distinct(rows: list[Row], problems: list[str]) -> list[Row]:
    """The rows without those that repeat an image's target, or whose name is too long for a file."""
    first: dict[str, Row] = {}
    for row in rows:
        if not row.target.strip():
            problems.append(f"{row.where}: the target of {row.image} is blank; name it.")
            continue
        try:
            kept = first.setdefault(mask_name(row.image_id, row.target), row)
        except UserError as error:
            problems.append(f"{row.where}: {error}")
            continue
        if kept is not row:
            alike = "" if kept.target == row.target else f", which differs from {row.target!r} by punctuation alone,"
            problems.append(f"{row.where}: image {row.image_id!r} has a target {kept.target!r}{alike} already "
                            f"({kept.where}); list it once, or name the targets of an image differently.")
    return list(first.values())


def _notes(rows: list[Row], images: dict[str, Path]) -> list[str]:
    notes = []
    unlisted = len(images) - len({row.image_id for row in rows})
    if unlisted:
        notes.append(f"{unlisted} image{' is' if unlisted == 1 else 's are'} in no list and left out.")
    if uneven := uneven_note([(_group(row), row.split) for row in rows]):
        notes.append(uneven)
    return notes
