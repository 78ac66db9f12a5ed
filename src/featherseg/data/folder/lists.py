"""Lists that say which image, mask, split and prompts belong together: JSON in medvlsm's form, or CSV."""

import csv
import json
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from featherseg.core.errors import UserError
from featherseg.core.files import open_text, read_json
from featherseg.core.terminal import printable, shortened
from featherseg.data.prepared import LEVELS, SENTENCES, SPACING, UNIQUE, clean_prompts, is_text

IMAGE_COLUMNS = ("image", "img_name", "image_name", "file_name", "filename")
_COLUMNS = {
    "image": IMAGE_COLUMNS,
    "mask": ("mask", "mask_name", "mask_file"),
    "target": ("target", "structure", "class", "label"),
    "split": ("split", "set"),
    "group": ("group", "patient", "patient_id"),
}
_SENTENCE = "sentence"
_PROMPTS = {"p1": ("p1", "prompt", "prompts"), SENTENCES: (SENTENCES, _SENTENCE)}
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
           "test": "test", "testing": "test"}
_ATTRIBUTES = ("number", "size", "location", "shape", "colour", SPACING)
_KNOWN_KEYS = {"bbox", "cat", "segment_id", "img_name", "mask_name", "width", "height", "area_fraction",
               "split", "sentences", "sentences_num", "prompts", "attributes",
               *_COLUMNS["target"], *_COLUMNS["group"]}


@dataclass(frozen=True)
class Entry:
    """One row of a list.

    Attributes:
        where: file and row, for messages.
        image, mask: as the list names them; mask None where it follows from the image's name.
        split, group, target, prompts: None where the list does not say.
    """

    where: str
    image: str
    mask: str | None = None
    split: str | None = None
    group: str | None = None
    target: str | None = None
    prompts: dict[str, list[str]] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def listed_mask(self) -> str:
        """The mask as the list names it.

        Raises:
            UserError: it names none.
        """
        if self.mask is None:
            raise UserError(f"{self.where} names no mask; name it.")
        return self.mask


def read_list(path: Path, problems: list[str]) -> list[Entry]:
    """Entries of one `<split>.json` in medvlsm's form.

    A row has `img_name` and `mask_name`, and may have `prompts` (level -> prompt or prompts) or else `sentences`
    (texts, or objects with `sent`, as ETRIS lists them), `structure` (or `target`), `split` (else the file's name),
    a group (`group`, `patient` or `patient_id`) and `attributes`; further plain values become attributes too. What
    is wrong with a row is appended to `problems` and the row left out.

    Raises:
        UserError: the file is not JSON or not a list.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path} is not a list of rows; each row needs img_name and mask_name.")
    entries = []
    for number, row in enumerate(rows):
        try:
            entries.append(_entry(row, f"{path}, row {number}", path.stem))
        except UserError as error:
            problems.append(str(error))
    return entries


def read_table(path: Path, problems: list[str], notes: list[str]) -> list[Entry]:
    """Entries of a CSV list, one line a target, or one an image where it has no mask column.

    Cells are divided by commas, semicolons or tabs, and quoted where they hold one. Columns: image; where needed
    mask, target, split and group (under the names of `_COLUMNS`); prompts as p0 to p9, or one as `prompt`, taken
    as p1, each a text or a JSON list of texts; referring expressions as `sentences`, a JSON list, or as `sentence`,
    one a line: lines of one image, mask and target are then joined; attributes (number, size, location, shape,
    colour); `pixel_spacing` (`spacing_of`). What is wrong with a line is appended to `problems` and the line left out;
    the columns that are not read are named in `notes`.

    Raises:
        UserError: the file is not CSV in UTF-8, or has two columns of one name or one meaning.
    """
    header = _header_of(path)
    for column in header:
        if column.strip() and header.count(column) > 1:
            raise UserError(f"{path} has several columns {column!r}; name each once.")
    columns = {key: _column_of(path, header, names) for key, names in _COLUMNS.items()}
    prompts = {level: _column_of(path, header, _PROMPTS.get(level, (level,))) for level in (*LEVELS, UNIQUE)}
    one_a_line = any(column.strip().lower() == _SENTENCE for column in header)
    attributes = {name: _column_of(path, header, (name,)) for name in _ATTRIBUTES}
    read = {*columns.values(), *prompts.values(), *attributes.values()}
    unread = [shortened(column.strip()) for column in header if column.strip() and column not in read]
    if unread:
        notes.append(f"{path.name}: {'the column' if len(unread) == 1 else 'the columns'} {', '.join(unread)} "
                     f"{'is' if len(unread) == 1 else 'are'} not read.")
    entries = []
    try:
        with open_text(path, newline="") as file:
            for number, line in enumerate(csv.DictReader(file, delimiter=_delimiter(path), strict=True), start=2):
                where = f"{path}, line {number}"
                if None in line:
                    problems.append(f"{where} has more cells than the header; put a text with a comma into quotes.")
                    continue
                cells: dict[str, Any] = {
                    key: (line.get(column) or "").strip() or None for key, column in columns.items()}
                cells["split"] = cells["split"] and split_word(cells["split"])
                if cells["image"] is None:
                    problems.append(f"{where}: the column {columns['image']!r} is empty; name the image.")
                    continue
                given = {name: line[column] for name, column in attributes.items() if column and line[column]}
                try:
                    _check_names(cells, where)
                    levels = _table_prompts(line, prompts, where)
                    given = with_spacing(attributes_of(levels) | given, where)
                except UserError as error:
                    problems.append(str(error))
                    continue
                entries.append(Entry(where, **cells, prompts=levels, attributes=given))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _no_table(path, error) from None
    return _joined(entries, problems) if one_a_line else entries


def names_images(path: Path) -> bool:
    """Whether a CSV file has a column of images, so that it is a list; raises as `read_table`."""
    return any(column.strip().lower() in IMAGE_COLUMNS for column in _header_of(path))


def _header_of(path: Path) -> list[str]:
    """Column names of a CSV file.

    Raises:
        UserError: the file is no CSV, or is in UTF-16.
    """
    try:
        with open_text(path, newline="", errors="replace") as file:
            header = next(csv.reader(file, delimiter=_delimiter(path)), [])
    except csv.Error as error:
        raise _no_table(path, error) from None
    if "\0" in "".join(header):
        raise _no_table(path, "it looks like UTF-16")
    return header


def _no_table(path: Path, cause: object) -> UserError:
    return UserError(f"{path} is not a CSV file in UTF-8 ({cause}); save it as one.")


def _delimiter(path: Path) -> str:
    """What divides a table's cells, by its first line: spreadsheets save semicolons in many countries."""
    with open_text(path, errors="replace") as file:
        return max(",;\t", key=file.readline().count)


def _column_of(path: Path, header: list[str], names: tuple[str, ...]) -> str | None:
    """The column of a table that has one of some names of one meaning, whatever its case; None where it has none.

    Raises:
        UserError: there are several, so that one would be ignored.
    """
    columns = [column for column in header if column.strip().lower() in names]
    if len(columns) > 1:
        raise UserError(f"{path} has several columns of one meaning ({', '.join(columns)}); keep that name for the one "
                        "that is meant, and rename the others.")
    return columns[0] if columns else None


def _check_names(names: dict[str, str | None], where: str) -> None:
    """Raises:
        UserError: a name has a control character, which no file's name or table should have.
    """
    for key, name in names.items():
        if name is not None and printable(name) != name:
            raise UserError(f"{where}: the {key} '{printable(shortened(name))}' has a control character in it; remove "
                            "it.")


def attributes_of(prompts: dict[str, list[str]] | None) -> dict[str, str]:
    """Shape, colour, size, number and location, as MedVLSM's cumulative prompts P1 to P6 name them.

    Empty where the prompts are not of that form (each level a word before the level below, P6 with "located
    in ... of the image"), so that no attribute is guessed.
    """
    prompts = prompts or {}
    phrases = [prompts.get(f"p{level}", [""])[0] for level in range(1, 7)]
    attributes = {}
    names = ("shape", "colour", "size", "number")
    for name, shorter, longer in zip(names, phrases[:4], phrases[1:5], strict=True):
        if not shorter or not longer.endswith(f" {shorter}"):
            return {}
        attributes[name] = longer.removesuffix(f" {shorter}")
    location = re.search(r"located in (.+) of the image", phrases[5])
    return attributes | {"location": location[1]} if location else {}


def with_spacing(attributes: dict[str, Any], where: str) -> dict[str, Any]:
    """The attributes, `pixel_spacing` as [height, width] of a pixel in millimetres.

    It is given as one number, or as two (of rows and of columns): a list, or a text divided by blanks, commas or x.

    Raises:
        UserError: it is neither, is not above 0, or has a comma that may stand within one number.
    """
    given = attributes.get(SPACING)
    if given is None:
        return attributes
    parts = re.split(r"[\s,;x\[\]]+", given.strip("[] ")) if isinstance(given, str) else given
    parts = parts if isinstance(parts, list) else [parts]
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    is_unclear = isinstance(given, str) and re.fullmatch(r"\d+,\d+", given.strip())  # 1,5 is 1.5 in many countries
    if is_unclear or len(numbers) not in (1, 2) or not all(0 < number < math.inf for number in numbers):
        raise UserError(f"{where}: {SPACING} is {given!r}; give the millimetres of a pixel as one number above 0, or "
                        "two (of rows and of columns), such as 0.5 0.4.")
    return attributes | {SPACING: [numbers[0], numbers[-1]]}


def named_in(prompts: dict[str, list[str]] | None, level: str, pattern: str) -> dict[str, str]:
    """What the first prompt of a level names, in lower case, by the named groups of a pattern.

    Empty where the prompt is not of that form as a whole, so that no attribute is guessed.
    """
    match = re.fullmatch(pattern, (prompts or {}).get(level, [""])[0])
    return {name: text.lower() for name, text in match.groupdict().items()} if match else {}


def split_word(text: str) -> str:
    """Train, val or test for any usual word for it; every other split keeps its name."""
    return _SPLITS.get(text.strip().lower(), text)


def _joined(entries: list[Entry], problems: list[str]) -> list[Entry]:
    """The entries; those of one image, mask and target become one with all their sentences."""
    joined: dict[tuple, Entry] = {}
    for entry in entries:
        key = entry.image, entry.mask, entry.target
        first = joined.setdefault(key, entry)
        if first is entry:
            continue
        if (first.split, first.group) != (entry.split, entry.group):
            problems.append(f"{entry.where}: split or group differs from that of the same target in {first.where}; "
                            "give both lines the same.")
            continue
        texts = [text for listed in (first, entry) for text in (listed.prompts or {}).get(SENTENCES, [])]
        if texts:
            joined[key] = replace(first, prompts={"p0": [""]} | (first.prompts or {}) | {SENTENCES: texts})
    return list(joined.values())


def _entry(row: Any, where: str, split: str) -> Entry:
    if not isinstance(row, dict):
        raise UserError(f"{where} is {row!r}; give an object with img_name and mask_name.")
    if not is_text(json.dumps(row, ensure_ascii=False)):
        raise UserError(f"{where} holds half of a surrogate pair (\\ud800 to \\udfff), which is no text; correct it.")
    for key in ("img_name", "mask_name"):
        if not row.get(key):
            raise UserError(f"{where}: {key} is missing; give the file's name.")
    group, target = (_one_value(row, _COLUMNS[column], where) for column in ("group", "target"))
    texts = {"img_name": row["img_name"], "mask_name": row["mask_name"], "split": row.get("split", split),
             "target": "" if target is None else target}
    for key, value in texts.items():
        if not isinstance(value, str) or key == "split" and not value.strip():
            raise UserError(f"{where}: {key} is {value!r}; give a text.")
    _check_names({**texts, "group": None if group is None else str(group)}, where)
    attributes = row.get("attributes", {})
    if not isinstance(attributes, dict):
        raise UserError(f"{where}: attributes is {attributes!r}; give a map from name to value.")
    prompts = _row_prompts(row, where)
    further = {key: value for key, value in row.items()
               if key not in _KNOWN_KEYS and (key == SPACING or isinstance(value, str | int | float | bool))}
    return Entry(where, texts["img_name"], texts["mask_name"], split_word(texts["split"]),
                 None if group is None else str(group), target, prompts,
                 with_spacing(attributes_of(prompts) | further | attributes, where))


def _one_value(row: dict[str, Any], keys: tuple[str, ...], where: str) -> Any:
    """What a row of a JSON list gives under some keys of one meaning; None where it gives nothing.

    Raises:
        UserError: two of them say different things.
    """
    given = {key: row[key] for key in keys if row.get(key) is not None}
    if any(value != next(iter(given.values())) for value in given.values()):
        shown = " and ".join(f"{key} {value!r}" for key, value in given.items())
        raise UserError(f"{where}: {shown} have one meaning; keep the one that is meant, and rename the other.")
    return next(iter(given.values()), None)


def _row_prompts(row: dict[str, Any], where: str) -> dict[str, list[str]] | None:
    """Prompts of a row of a JSON list, None where it has none; its `sentences` count where it has no `prompts`."""
    if row.get("prompts") is not None:
        return _without_empty_sentence(clean_prompts(row["prompts"], "", where), where)
    if SENTENCES not in row:
        return None
    if not isinstance(row[SENTENCES], list):
        raise UserError(f"{where}: {SENTENCES} is {row[SENTENCES]!r}; give a list of texts.")
    texts: list[Any] = [item.get("sent") if isinstance(item, dict) else item for item in row[SENTENCES]]
    return _without_empty_sentence(clean_prompts({"p0": "", SENTENCES: texts}, "", where), where)


def _without_empty_sentence(prompts: dict[str, list[str]], where: str) -> dict[str, list[str]]:
    """The same prompts.

    Raises:
        UserError: a sentence has no word.
    """
    for number, text in enumerate(prompts.get(SENTENCES, []), start=1):
        if not text.strip():
            raise UserError(f"{where}: sentence {number} has no word; remove it, or write the empty prompt as p0.")
    return prompts


def _table_prompts(line: dict[str, str], columns: dict[str, str | None],
                   where: str) -> dict[str, list[str]] | None:
    """Prompts of a line; None where it has none, and an empty cell is a level that it lacks."""
    texts = {level: line[column] for level, column in columns.items() if column and (line[column] or "").strip()}
    if not texts:
        return None
    for level, text in texts.items():
        if text.startswith("["):
            try:
                texts[level] = json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(f"{where}: prompt {level} starts like a JSON list but is not one ({error}); "
                                "correct it.") from None
    return _without_empty_sentence(clean_prompts({"p0": ""} | texts, "", where), where)
