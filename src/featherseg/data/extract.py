"""Unpacking zip and tar archives that nobody has looked into."""

import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from featherseg.errors import UserError
from featherseg.files import LONGEST_NAME

MAX_RATIO = 200
ALWAYS_ALLOWED = 1 << 30
_JUNK = "__MACOSX/"  # a second tree of the same names, which macOS adds to the zips that it makes
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError)


@dataclass(frozen=True)
class Member:
    """One entry of an archive; `open` gives its bytes, None for a folder."""

    name: str
    size: int
    is_link: bool
    open: Callable[[], IO[bytes]] | None


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar (plain, gz, bz2 or xz)."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def extract(archive: Path, folder: Path) -> None:
    """Unpack an archive below an existing folder. All names and sizes are checked before anything is written.

    Raises:
        UserError: no archive, a damaged or encrypted one, a member that would land outside the folder, a link
            or device, more than 200 times the archive's size (and a GiB), or a disk too small.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                _unpack(archive, lambda: _zip_members(file), folder)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as file:
                _unpack(archive, lambda: _tar_members(file), folder)
        else:
            raise UserError(f"{archive} is neither a zip nor a tar archive; get it again.")
    except (*_DAMAGED, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the disk's; those of gzip and bz2 have no number
            raise
        raise UserError(f"{archive} is damaged ({error}); get it again.") from None
    except (RuntimeError, NotImplementedError) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}); unpack it yourself and pack it as a plain "
                        "zip.") from None


def _unpack(archive: Path, members: Callable[[], Iterator[Member]], folder: Path) -> None:
    total, limit = 0, max(MAX_RATIO * archive.stat().st_size, ALWAYS_ALLOWED)
    files: set[Path] = set()
    folders: set[Path] = set()
    for member in members():
        place = _place(archive, member, folder)
        folders.update(place.parents)
        (folders if member.open is None else files).add(place)
        total += member.size
        if total > limit:
            raise UserError(f"{archive} would unpack to more than {limit / 1e9:.1f} GB, too much for an "
                            f"archive of {archive.stat().st_size / 1e6:.1f} MB; do not use it.")
    for both in sorted(files & folders)[:1]:
        raise UserError(f"{archive}: {str(both.relative_to(folder))!r} is a file and a folder at once; get the archive "
                        "again, or pack it anew.")
    free = shutil.disk_usage(folder).free
    if total > free:
        raise UserError(f"{archive} unpacks to {total / 1e9:.1f} GB but {folder.parent} has "
                        f"{free / 1e9:.1f} GB left; free space and run the command again.")
    for member in members():
        target = _place(archive, member, folder)
        if member.name.startswith(_JUNK):
            continue
        if member.open is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)


def _place(archive: Path, member: Member, folder: Path) -> Path:
    """Where a member goes; refuses what could reach out of the folder."""
    name = member.name.replace("\\", "/")
    if member.is_link:
        raise UserError(f"{archive}: member {member.name!r} is a link or a device, which data have no use "
                        "for; do not use this archive.")
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in PurePosixPath(name).parts:
        raise UserError(f"{archive}: member {member.name!r} would land outside the target folder; "
                        "do not use this archive.")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in PurePosixPath(name).parts):
        raise UserError(f"{archive}: a member's name is longer than the {LONGEST_NAME} bytes that a file's may have "
                        f"({member.name[:60]!r}...); pack it with shorter names.")
    return folder / name


def _zip_members(file: zipfile.ZipFile) -> Iterator[Member]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        opener = None if info.is_dir() else lambda info=info: file.open(info)
        yield Member(info.filename, info.file_size, kind not in (0, stat.S_IFREG, stat.S_IFDIR), opener)


def _tar_members(file: tarfile.TarFile) -> Iterator[Member]:
    for info in file:
        opener = None if info.isdir() else lambda info=info: file.extractfile(info)
        yield Member(info.name, info.size, not (info.isfile() or info.isdir()), opener)
    while file.fileobj.read(1 << 20):  # gzip's checksum comes last
        pass
