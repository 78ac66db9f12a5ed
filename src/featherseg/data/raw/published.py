"""Published datasets: unpacked archives joined with their published splits and prompts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featherseg.core.errors import UserError
from featherseg.data.assemble import Row, Source, write_rows
from featherseg.data.card import About, write_card
from featherseg.data.folder.lists import Entry, read_list
from featherseg.data.prepared import PreparedWriter
from featherseg.data.prompts.prompt_engine import PromptEngine
from featherseg.data.raw.spec import DatasetSpec

_RANK = {"train": 0, "val": 1}


def prepare_published(spec: DatasetSpec, raw_dir: Path, out_dir: Path,
                      keep_published_faults: bool = False, images_dir: Path | None = None) -> None:
    """Write the prepared dataset of a downloaded one, with its card.

    The published lists name some images in two splits, or twice in one, and those of one set belong to another.
    Such a row is left out unless `keep_published_faults`, which keeps every row as it was published.

    Args:
        images_dir: the raw files, where they are not in `raw_dir` itself.

    Raises:
        UserError: a list or an archive that is not as it was published, or an unreadable file.
    """
    files_dir = images_dir or raw_dir
    entries, about_lists = _entries(spec, raw_dir, files_dir, keep_published_faults)
    named, about_leaks = with_leaks(entries) if keep_published_faults else without_leaks(entries)
    notes = (*about_lists, *about_leaks, *([spec.note] if spec.note else []))
    files, engine = spec.layout(files_dir), PromptEngine(spec.field)
    rows = (_row(spec, image_id, entry, *files(entry)) for image_id, entry in named)

    def finish(folder: Path) -> None:
        write_card(folder, About(spec.title, spec.source, spec.licence, spec.citation, (*notes, *engine.notes())))

    with PreparedWriter(out_dir, dataset=spec.name, finish=finish) as writer:
        write_rows(rows, writer, spec.threshold, engine, unite=spec.threshold is not None)


def _entries(spec: DatasetSpec, raw_dir: Path, files_dir: Path, keep: bool) -> tuple[list[Entry], list[str]]:
    """The rows of a dataset and what its card should say of them."""
    problems: list[str] = []
    entries = [spec.complete(entry) for resource in spec.lists
               for entry in read_list(raw_dir / "anns" / resource.file, problems)]
    if problems:
        raise UserError(problems[0])
    notes = []
    own = [] if spec.files is None else spec.files(files_dir)
    here, listed = {entry.image for entry in own}, len(entries)
    if own and here != {entry.image for entry in entries}:
        entries = [entry for entry in entries if entry.image in here] if keep else own
        notes.append(f"Kept as published: {len(entries)} rows of lists of another set, which name an image here by "
                     f"chance and describe another; {listed - len(entries)} rows name no image here and are left out."
                     if keep else f"Left out: all {listed} rows of the published lists, which belong to another set; "
                                  "no published prompt is known for these images.")
    if spec.test_only and not keep:
        moved = sum(entry.split != "test" for entry in entries)
        entries = [replace(entry, split="test") for entry in entries]
        notes += [f"For testing only: {moved} rows of the other lists are of the split test too."] if moved else []
    return entries, notes


def without_leaks(entries: list[Entry]) -> tuple[list[tuple[str, Entry]], list[str]]:
    """Keep one row of each image and mask: that of test before val before train, else the first one.

    Returns:
        (image id, entry) in order, and one sentence for each kind of row left out.
    """
    best: dict[tuple, Entry] = {}
    for entry in entries:
        kept = best.setdefault(_identity(entry), entry)
        if _RANK.get(entry.split or "", 2) > _RANK.get(kept.split or "", 2):
            best[_identity(entry)] = entry
    dropped = Counter((entry.split, best[_identity(entry)].split) for entry in entries
                      if best[_identity(entry)] is not entry)
    notes = [f"Left out: {count} {'row' if count == 1 else 'rows'} of {split}, "
             + ("listed twice." if split == other else f"which {other} lists too.")
             for (split, other), count in sorted(dropped.items())]
    return [(image_id_of(entry), entry) for entry in entries if best[_identity(entry)] is entry], notes


def with_leaks(entries: list[Entry]) -> tuple[list[tuple[str, Entry]], list[str]]:
    """Keep every row, each with an image id of its own: a repeated one gets its split and a number appended.

    Returns:
        (image id, entry) in order, and a sentence that counts the repeated ones.
    """
    seen: Counter[tuple] = Counter()
    named = []
    for entry in entries:
        stem, before = image_id_of(entry), seen[_identity(entry)]
        named.append((f"{stem}.{entry.split}{before}" if before else stem, entry))
        seen[_identity(entry)] += 1
    repeated = len(named) - len(seen)
    note = f"Kept as published: {repeated} rows repeat an image of another row or split."
    return named, [note] if repeated else []


def image_id_of(entry: Entry) -> str:
    """An entry's image by name, without extension; a folder before it becomes part of the name."""
    return str(Path(entry.image).with_suffix("")).replace("/", "_")


def _identity(entry: Entry) -> tuple:
    return entry.image, entry.mask


def _row(spec: DatasetSpec, image_id: str, entry: Entry, image: Source, masks: Sequence[Source]) -> Row:
    return Row(entry.where, image_id, image, tuple(masks), entry.target or spec.target, entry.split,
               entry.group or image_id_of(entry), entry.prompts, entry.attributes)
