"""Unpacking zip and tar archives that nobody has looked into: bounded in memory, bytes and time before it begins."""

import bz2
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, Self, cast
from zipfile import _ECD_SIZE, _EndRecData  # type: ignore[attr-defined]

from featherseg.core.errors import UserError
from featherseg.core.files import LONGEST_NAME, open_file

MAX_RATIO = 200
ALWAYS_ALLOWED = 1 << 30
MOST_MEMBERS = 300_000  # COCO train2014 has 82,784
LARGEST_DIRECTORY = 32 << 20  # bytes of a zip's list of members, which is read whole; COCO train2014's has 10 MB
LARGEST_HEADER = 64 << 10  # bytes of a tar's extended header: a path, an owner, times, macOS's attributes of a file
LARGEST_DICTIONARY = 128 << 20  # bytes that unpacking xz may take; xz -9 takes 65 MB
LONGEST_PADDING = 64 << 20  # bytes of zeros behind a tar's end
DEEPEST = 64  # folders in one another
_CHUNK = 1 << 20
_JUNK = "__MACOSX/"  # a second tree of the same names, which macOS adds to the zips that it makes
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)  # others name a dictionary of any size
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
             tarfile.GNUTYPE_LONGLINK)
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError)


class NoRoom(UserError):
    """The archive is good, but the disk is too small for what is in it."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive; `open` gives its bytes, None for a folder."""

    name: str
    size: int
    is_link: bool
    open: Callable[[], IO[bytes]] | None


class Readable(Protocol):
    """What has bytes to read."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar (plain, gz, bz2 or xz)."""
    with open_file(path) as file:
        return zipfile.is_zipfile(file) or _is_tar(file)


def extract(archive: Path, folder: Path) -> None:
    """Unpack an archive below an existing folder. All names and sizes are checked before anything is written.

    Raises:
        UserError: no archive, a damaged or encrypted one, a member that would land outside the folder, a link
            or device, more than 200 times the archive's size (and a GiB), too many members, or a disk too small.
    """
    with open_file(archive) as file, _sentences(archive):
        if zipfile.is_zipfile(file):
            with _checked_zip(archive) as opened:
                _unpack(archive, partial(_zip_members, opened), folder)
        elif _is_tar(file):
            _unpack(archive, partial(_tar_members, archive, file), folder)
        else:
            raise UserError(f"{archive} is neither a zip nor a tar archive; get it again.")


def open_zip(archive: Path) -> zipfile.ZipFile:
    """A zip archive to read in place, checked as `extract` checks it; raises as it does."""
    with _sentences(archive):
        opened = _checked_zip(archive)
        try:
            for _ in _checked(archive, _zip_members(opened)):
                pass
        except UserError:
            opened.close()
            raise
        return opened


class _sentences:
    """Within the block the errors of the libraries that unpack become one sentence about the archive."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        damaged = isinstance(error, _DAMAGED)
        # the disk's errors have a number, those of gzip and bz2 have none
        if damaged or isinstance(error, OSError) and error.errno is None:
            raise UserError(f"{self._archive} is damaged ({error}); get it again.") from None
        if isinstance(error, RuntimeError | NotImplementedError):
            raise UserError(f"{self._archive} cannot be unpacked ({error}); unpack it yourself and pack it as a plain "
                            "zip.") from None


def _unpack(archive: Path, members: Callable[[], Iterator[Member]], folder: Path) -> None:
    total = sum(member.size for member in _checked(archive, members()))
    free = shutil.disk_usage(folder).free
    if total > free:
        raise NoRoom(f"{archive} unpacks to {total / 1e9:.1f} GB but {folder.parent} has "
                     f"{free / 1e9:.1f} GB left; free space and run the command again.")
    for member in members():
        target = folder / _path(archive, member)
        if member.name.startswith(_JUNK):
            continue
        if member.open is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)


def _checked(archive: Path, members: Iterator[Member]) -> Iterator[Member]:
    """The members, one by one, with their names, number and sizes checked."""
    size = archive.stat().st_size
    total, limit = 0, _limit(size)
    files: set[str] = set()
    folders: set[str] = set()
    for number, member in enumerate(members, start=1):
        if number > MOST_MEMBERS:
            raise UserError(f"{archive} has more than {MOST_MEMBERS:,} members; do not use it, or unpack it yourself.")
        path = _path(archive, member)
        places = list(accumulate(PurePosixPath(path).parts, "{}/{}".format))
        folders.update(places if member.open is None else places[:-1])
        if member.open is not None:
            files.add(places[-1])
        total += member.size
        if total > limit:
            raise UserError(f"{archive} would unpack to more than {limit / 1e9:.1f} GB, too much for an "
                            f"archive of {size / 1e6:.1f} MB; do not use it.")
        yield member
    for both in sorted(files & folders)[:1]:
        raise UserError(f"{archive}: {both!r} is a file and a folder at once; get the archive again, or pack it anew.")


def _limit(size: int) -> int:
    """Bytes that an archive of this size may unpack to."""
    return max(MAX_RATIO * size, ALWAYS_ALLOWED)


def _path(archive: Path, member: Member) -> str:
    """Where a member goes, below the folder; refuses what could reach out of it.

    It is empty for the folder itself, which comes first in what `tar -cf x.tar .` makes.
    """
    name = member.name.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if member.is_link:
        raise UserError(f"{archive}: member {member.name[:60]!r} is a link or a device, which data have no use "
                        "for; do not use this archive.")
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in parts:
        raise UserError(f"{archive}: member {member.name[:60]!r} would land outside the target folder; "
                        "do not use this archive.")
    if any(len(part.encode(errors="surrogateescape")) > LONGEST_NAME for part in parts) or len(parts) > DEEPEST:
        raise UserError(f"{archive}: a member's name is longer than the {LONGEST_NAME} bytes that a file's may have, "
                        f"or in more than {DEEPEST} folders ({member.name[:60]!r}...); pack it with shorter names.")
    if member.open is not None and not parts or "\0" in name or member.size < 0:
        raise tarfile.ReadError(f"a member of the name {member.name[:60]!r} and {member.size} bytes")
    return "/".join(parts)


# ---------------------------------------------------------------- zip


def _checked_zip(archive: Path) -> zipfile.ZipFile:
    """A zip whose list of members is not too large for memory."""
    with open_file(archive) as file:
        record = _EndRecData(file)  # the only reader of it, zip64's included
    if record and record[_ECD_SIZE] > LARGEST_DIRECTORY:
        raise UserError(f"{archive} has a list of members of {record[_ECD_SIZE] / 1e6:,.0f} MB; do not use it, "
                        "or unpack it yourself.")
    return zipfile.ZipFile(archive)


def _zip_members(file: zipfile.ZipFile) -> Iterator[Member]:
    for info in file.infolist():
        if info.compress_type not in _COMPRESSIONS:
            raise NotImplementedError(f"compression method {info.compress_type}")
        kind = stat.S_IFMT(info.external_attr >> 16)
        opener = None if info.is_dir() else partial(file.open, info)
        yield Member(info.filename, info.file_size, kind not in (0, stat.S_IFREG, stat.S_IFDIR), opener)


# ---------------------------------------------------------------- tar


class _Header(tarfile.TarInfo):
    """A header that is refused before what it announces is read into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED and not 0 <= info.size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"an extended header of {info.size:,} bytes")
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse member")
        return info

    def _proc_gnusparse_10(self, *_: Any) -> None:
        raise tarfile.ReadError("a sparse member")  # the library looks for the end of its map without a bound


class _Tar:
    """The bytes of a tar, decompressed, up to a limit."""

    def __init__(self, archive: Path, file: IO[bytes]) -> None:
        self._archive, self._read = archive, 0
        self._limit = _limit(archive.stat().st_size) + ALWAYS_ALLOWED  # headers and padding come on top
        self._source = _decompressed(file)

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        content = self._source.read(size)
        self._read += len(content)
        if self._read > self._limit:
            raise UserError(f"{self._archive} would unpack to more than {self._limit / 1e9:.1f} GB, too much for an "
                            f"archive of {self._archive.stat().st_size / 1e6:.1f} MB; do not use it.")
        return content


class _Xz:
    """What an xz file holds, with a bound on the memory that the file may ask for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._data = file, b""
        self._decoder = lzma.LZMADecompressor(memlimit=LARGEST_DICTIONARY)

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end."""
        while True:
            if self._decoder.eof:
                self._data = self._decoder.unused_data.lstrip(b"\0") or self._behind_zeros()
                if not self._data:
                    return b""
                self._decoder = lzma.LZMADecompressor(memlimit=LARGEST_DICTIONARY)
            elif self._decoder.needs_input:
                self._data = self._file.read(_CHUNK)
                if not self._data:
                    raise EOFError("it ends early")
            content = self._decoder.decompress(self._data, size)
            self._data = b""
            if content:
                return content

    def _behind_zeros(self) -> bytes:
        while chunk := self._file.read(_CHUNK):
            if rest := chunk.lstrip(b"\0"):
                return rest
        return b""


def _decompressed(file: IO[bytes]) -> Readable:
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    return _Xz(file) if start == b"\xfd7zXZ\0" else file


def _is_tar(file: IO[bytes]) -> bool:
    try:
        tarfile.TarInfo.frombuf(_decompressed(file).read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except (*_DAMAGED, OSError):
        return False
    return True


def _tar_members(archive: Path, opened: IO[bytes]) -> Iterator[Member]:
    source = cast(IO[bytes], _Tar(archive, opened))  # of which the library only reads
    with tarfile.open(fileobj=source, mode="r|", tarinfo=_Header) as file:
        while info := file.next():
            file.members.clear()  # type: ignore[attr-defined]  # which the library keeps, and never needs here
            opener = None if info.isdir() else cast(Callable[[], IO[bytes]], partial(file.extractfile, info))
            yield Member(info.name, info.size, not (info.isfile() or info.isdir()), opener)
        _check_end(file.fileobj)


def _check_end(rest: Readable) -> None:
    """Read what is behind the last member, where gzip has its checksum: zeros, and not many of them."""
    length = 0
    while content := rest.read(_CHUNK):
        length += len(content)
        if content.strip(b"\0"):
            raise tarfile.ReadError("a broken header, or something behind the end")
        if length > LONGEST_PADDING:
            raise tarfile.ReadError(f"more than {LONGEST_PADDING / 1e6:.0f} MB of zeros behind the end")
