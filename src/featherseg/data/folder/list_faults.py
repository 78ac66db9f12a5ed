"""Faults of MedVLSM's published lists of splits and prompts, each found by reading the lists.

`prepare` corrects what can be corrected; `data.keep_published_faults` keeps the rows as they were published.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from featherseg.core.errors import UserError
from featherseg.core.files import sha256_file
from featherseg.core.paths import RAW
from featherseg.core.registry import Registry
from featherseg.data.folder.lists import Entry, read_list
from featherseg.data.raw.spec import DatasetSpec
from featherseg.data.raw.specs import SPECS

_SCORED_FIRST = ("test", "val", "train")


@dataclass(frozen=True)
class Lists:
    """The published lists of one dataset, as far as they are here.

    Attributes:
        rows: list -> its rows as they stand there.
        sha256: list -> of its file.
    """

    spec: DatasetSpec
    rows: Mapping[str, list[Entry]]
    sha256: Mapping[str, str]

    @property
    def completed(self) -> dict[str, list[Entry]]:
        """List -> its rows with what the file names say."""
        return {name: list(map(self.spec.complete, rows)) for name, rows in self.rows.items()}


@dataclass(frozen=True)
class ListFault:
    """One fault of one dataset's lists.

    Attributes:
        dataset, kind: whose, and which entry of `KINDS` found it.
        count: how many rows (or images, where `found` says so) it concerns.
        found: what is wrong, with the figures.
        corrected: what `prepare` does.
        kept: what it does under `data.keep_published_faults`.
    """

    dataset: str
    kind: str
    count: int
    found: str
    corrected: str
    kept: str

    def sentence(self, keep: bool = False) -> str:
        """The fault in one sentence, with what is done about it."""
        return f"{self.dataset}, published lists: {self.found}; {self.kept if keep else self.corrected}."


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        find: from a dataset's lists, and those of all datasets that are here, to (how many, what is wrong).
        corrected: what is done by default.
        kept: what is done where published faults are kept; None for the same.
    """

    find: Callable[[Lists, Mapping[str, Lists]], Iterator[tuple[int, str]]]
    corrected: str
    kept: str | None = None


KINDS: Registry[Kind] = Registry("fault of a list")


def _kind(name: str, corrected: str, kept: str | None = None) -> Callable:
    def enter(find: Callable) -> Callable:
        KINDS.register(name)(Kind(find, corrected, kept))
        return find

    return enter


def list_faults(folders: Mapping[str, Path]) -> list[ListFault]:
    """Every fault of the lists that are here, by dataset and in the order of `KINDS`.

    Args:
        folders: dataset -> the folder of its `<list>.json` files; a list that is absent is skipped.

    Raises:
        UserError: a list that cannot be read.
    """
    here = {name: _read(name, folder) for name, folder in sorted(folders.items())}
    return [ListFault(name, kind, count, found, KINDS[kind].corrected, KINDS[kind].kept or KINDS[kind].corrected)
            for name, lists in here.items() for kind in KINDS for count, found in KINDS[kind].find(lists, here)]


def downloaded_lists(raw: Path = RAW) -> dict[str, Path]:
    """Dataset -> the folder of its downloaded lists, for those that have some."""
    return {name: raw / name / "anns" for name, spec in SPECS.items()
            if isinstance(spec, DatasetSpec) and (raw / name / "anns").is_dir()}


def lists_of_medvlsm(root: Path) -> dict[str, Path]:
    """Dataset -> the folder of its lists in a copy of MedVLSM's `data/`, with or without `anns/` in between."""
    folders = {}
    for name, spec in SPECS.items():
        if isinstance(spec, DatasetSpec) and spec.lists:
            folder = root / Path(spec.lists[0].mirror[-1]).parent.name
            folder = folder / "anns" if (folder / "anns").is_dir() else folder
            if folder.is_dir():
                folders[name] = folder
    return folders


def _read(name: str, folder: Path) -> Lists:
    spec = cast(DatasetSpec, SPECS[name])
    problems: list[str] = []
    rows, sha256 = {}, {}
    for path in sorted(folder.glob("*.json")):
        rows[path.stem], sha256[path.stem] = read_list(path, problems), sha256_file(path)
    if problems:
        raise UserError(problems[0])
    return Lists(spec, rows, sha256)


@_kind("row_listed_twice", "the first of them is used", "all are kept")
def _twice(lists: Lists, _: Mapping[str, Lists]) -> Iterator[tuple[int, str]]:
    for name, rows in lists.completed.items():
        repeated = [image for (image, _), count in Counter(map(_identity, rows)).items() for _ in range(count - 1)]
        if repeated:
            yield len(repeated), f"{name}.json has {_rows(repeated)} twice ({_some(repeated)})"


@_kind("row_of_two_splits", "they are used once, the later stage before the earlier: test, val, train",
       "they are kept in both")
def _leaks(lists: Lists, _: Mapping[str, Lists]) -> Iterator[tuple[int, str]]:
    splits = {name: set(map(_identity, rows)) for name, rows in lists.completed.items() if name in _SCORED_FIRST}
    for number, scored in enumerate(_SCORED_FIRST):
        for other in _SCORED_FIRST[number + 1:]:
            shared = sorted(image for image, _ in splits.get(scored, set()) & splits.get(other, set()))
            if shared:
                yield len(shared), f"{scored}.json has {_rows(shared)} of {other}.json ({_some(shared)})"


@_kind("list_of_another_set", "the set's own images are taken as they lie, and their prompts made from their masks",
       "rows whose image happens to be here are kept, with the prompts of the other set's image")
def _another_set(lists: Lists, here: Mapping[str, Lists]) -> Iterator[tuple[int, str]]:
    if lists.spec.files is None:
        return
    owners = {resource.sha256: name for name, spec in SPECS.items() for resource in spec.lists
              if name != lists.spec.name}
    owners |= {digest: name for name, other in here.items() for digest in other.sha256.values()
               if name != lists.spec.name}
    for name, rows in lists.rows.items():
        if rows and lists.sha256[name] in owners:
            yield len(rows), f"{name}.json is byte for byte that of {owners[lists.sha256[name]]} ({_rows(rows)})"


@_kind("list_under_two_names", "only the one of the two that the papers name is used")
def _two_names(lists: Lists, _: Mapping[str, Lists]) -> Iterator[tuple[int, str]]:
    names = [name for name, rows in lists.rows.items() if rows]
    for number, name in enumerate(names):
        for other in names[number + 1:]:
            if _content(lists.rows[name]) == _content(lists.rows[other]):
                yield len(lists.rows[name]), f"{other}.json has the rows of {name}.json ({_rows(lists.rows[name])})"


@_kind("name_of_two_images", "images are named by their folder too")
def _two_images(lists: Lists, _: Mapping[str, Lists]) -> Iterator[tuple[int, str]]:
    completed = lists.completed
    for scored, other in (("test", "val"), ("test", "train"), ("val", "train")):
        if scored not in completed or other not in completed:
            continue
        mine, others = _prompts_by_image(lists.rows[scored]), _prompts_by_image(lists.rows[other])
        same = set(map(_identity, completed[scored])) & set(map(_identity, completed[other]))
        shared = set(mine) & set(others)
        if shared and not same:
            differing = sum(mine[image] != others[image] for image in shared)
            yield len(shared), (f"{scored}.json and {other}.json share {len(shared)} image names, which are different "
                                f"images of two folders: the prompts of {differing} differ")


@_kind("nothing_to_find", "they are kept, and empty masks are counted beside each score")
def _nothing(lists: Lists, _: Mapping[str, Lists]) -> Iterator[tuple[int, str]]:
    rows = [row for rows in lists.rows.values() for row in rows]
    empty = [row for row in rows if (row.prompts or {}).get("p1", [""])[0].startswith("No ")]
    if empty:
        yield len(empty), (f"{len(empty)} of {len(rows)} rows say that there is nothing to find, so "
                           f"{len(empty) / len(rows):.0%} of a mean score is the rule for empty masks")


@_kind("training_rows_of_a_test_set", "they are scored too", "they keep their split")
def _training_rows(lists: Lists, _: Mapping[str, Lists]) -> Iterator[tuple[int, str]]:
    train = lists.rows.get("train")
    if lists.spec.test_only and lists.spec.files is None and train:
        yield len(train), f"the set is for testing only but train.json has {_rows(train)}"


def _identity(row: Entry) -> tuple[str, str | None]:
    return row.image, row.mask


def _content(rows: list[Entry]) -> list[tuple]:
    return [(*_identity(row), row.prompts) for row in rows]


def _prompts_by_image(rows: Iterable[Entry]) -> dict[str, list]:
    prompts: dict[str, list] = {}
    for row in rows:
        prompts.setdefault(row.image, []).append(row.prompts)
    return prompts


def _rows(found: list) -> str:
    return "1 row" if len(found) == 1 else f"{len(found)} rows"


def _some(images: list[str]) -> str:
    return ", ".join(images[:3]) + (", ..." if len(images) > 3 else "")
