"""Finding files in an unpacked archive."""

from collections.abc import Callable
from pathlib import Path

from featherseg.core.errors import UserError
from featherseg.data.raw.spec import Files


def find_folder(raw: Path, suffix: str) -> Path:
    """The folder below `raw` whose path ends with `suffix`, at whatever depth the archive holds it.

    Raises:
        UserError: there is none, or more than one.
    """
    parts = Path(suffix).parts
    folders = sorted(path for path in raw.rglob(parts[-1])
                     if path.is_dir() and path.relative_to(raw).parts[-len(parts):] == parts)
    if len(folders) != 1:
        raise UserError(f"{raw} holds {len(folders)} folders {suffix} where one is expected; "
                        "put the unchanged archive into the inbox and download again.")
    return folders[0]


def find_file_by_name(raw: Path) -> Callable[[str], Path]:
    """A function from a file's name to its path below `raw`; a name must occur once.

    Raises (the function):
        UserError: no file of that name, or several.
    """
    places: dict[str, list[Path]] = {}
    for path in sorted(raw.rglob("*")):
        if path.is_file():
            places.setdefault(path.name, []).append(path)

    def find(name: str) -> Path:
        found = places.get(name, [])
        if len(found) != 1:
            raise UserError(f"{raw} holds {len(found)} files {name} where one is expected; "
                            "put the unchanged archive into the inbox and download again.")
        return found[0]

    return find


def images_and_masks(suffix: str) -> Callable[[Path], Files]:
    """A layout: `<suffix>/images/<image>` and `<suffix>/masks/<mask>`."""

    def layout(raw: Path) -> Files:
        images, masks = find_folder(raw, f"{suffix}/images"), find_folder(raw, f"{suffix}/masks")
        return lambda entry: (images / entry.image, [masks / entry.listed_mask])

    return layout
