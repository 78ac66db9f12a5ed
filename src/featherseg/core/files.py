"""One way to open a file, to write one and to name one, and the few places where files are kept."""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from featherseg.core.errors import UserError
from featherseg.core.terminal import shortened

LONGEST_NAME = 255  # bytes, on every usual file system
LONGEST_TEXT = 1 << 30  # bytes; the largest file that is read whole, COCO's instances, has half of it
MOST_CONTAINERS = 5_000_000  # lists and objects of a JSON file, 100 bytes each; COCO's instances have 3 million
MOST_VALUES = 60_000_000  # of any kind, 30 bytes each; COCO's instances have half of it
DEEPEST = 64  # lists and objects within one another; what is written here needs eight
LONGEST_OWN_NAME = 100  # characters: two of them and a seed make a run's, which becomes part of a file's
MISSING_VALUES = ("na", "nan", "null", "none")  # what tables hold where there is nothing, in any case
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_JSON_KINDS = {list: "a list", str: "a text", bool: "true or false", type(None): "null", int: "a number",
               float: "a number"}
_FILE_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket",
               stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_HINTS: dict[int | None, str] = {
    errno.ENOSPC: "free space, then run the command again", errno.EDQUOT: "free space, then run the command again",
    errno.EACCES: "change the permission of the file and its folder, then run the command again",
    errno.EPERM: "change the permission of the file and its folder, then run the command again",
    errno.EROFS: "name a place that can be written to", errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "correct the name, or run the stage that writes it first",
    errno.ENOTDIR: "correct the name, or run the stage that writes it first",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def cache_root() -> Path:
    """Folder of caches and resume state: `$FEATHERSEG_CACHE`, else `.cache` in the checkout."""
    return (checkout() / (os.environ.get("FEATHERSEG_CACHE") or ".cache")).resolve()


def checkout() -> Path:
    """The user's checkout, from the project's root.

    DVC runs an experiment of its queue in a copy of the checkout without what git ignores, removes that copy
    afterwards, and names the checkout in `DVC_ROOT`.
    """
    return Path(os.environ.get("DVC_ROOT") or ".")


def check_name(kind: str, name: str, longest: int = LONGEST_OWN_NAME) -> str:
    """The name, which may become part of paths, stage names and shell lines.

    Args:
        kind: what is named, for the message.
        longest: characters that it may have.

    Raises:
        UserError: it has other characters than letters, digits, `_`, `-` and `.`, begins with `-` or `.`, is too
            long, or is a word that tables read as a missing value.
    """
    if name.lower() in MISSING_VALUES:
        raise UserError(f"{kind} {name!r}: tables read this name as a missing value; rename it.")
    if _NAME.fullmatch(name) and len(name) <= longest:
        return name
    raise UserError(f"{kind} {shortened(name)!r}: a name consists of letters from A to Z, digits, _, - and ., neither "
                    f"- nor . first, in {longest} characters at most; rename it.")


def check_run_name(name: str) -> str:
    """The name of a run, `<recipe>-<dataset>-<seed>`; raises as `check_name`."""
    return check_name("run", name, 2 * LONGEST_OWN_NAME + 12)


def explained(error: OSError, what: str = "") -> str:
    """One sentence for an error of the system: which file or folder, the reason, what to do.

    Args:
        error: as it was raised.
        what: where the error names no file, what could not be done.
    """
    named = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    subject = " -> ".join(named) or what or "a file"
    reason = error.strerror or str(error) or type(error).__name__
    return f"{subject}: {reason}; {_HINTS.get(error.errno, 'correct that, then run the command again')}."


# ---------------------------------------------------------------- reading


def open_file(path: Path | str) -> io.BufferedReader:
    """A regular file, opened to read its bytes: the one way into a file that somebody else made.

    Raises:
        UserError: it is absent, has no permission, or is a folder, named pipe, socket or device, which could block.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; correct the name, or run the stage that writes it first.") from None
    except NotADirectoryError:
        raise UserError(f"{path} does not exist: a part of it is a file, not a folder; correct the name.") from None
    except (OSError, ValueError) as error:  # ValueError: a name that holds a null character
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise UserError(f"{path} cannot be read: it is {_FILE_KINDS.get(kind, 'no regular file')}, not a file.")
    return os.fdopen(descriptor, "rb")


def open_text(path: Path | str, encoding: str = "utf-8-sig", errors: str = "strict",
              newline: str | None = None) -> IO[str]:
    """A regular file, opened to read its text; raises as `open_file`."""
    return io.TextIOWrapper(open_file(path), encoding=encoding, errors=errors, newline=newline)


def read_bytes(path: Path | str, limit: int = LONGEST_TEXT) -> bytes:
    """Content of a regular file.

    Raises:
        UserError: as `open_file`, or it has more than `limit` bytes.
    """
    with open_file(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, limit) + 1)  # a buffer of that size is made at once
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(content) > limit:
        raise UserError(f"{path} has more than the {limit / 1e6:,.0f} MB that such a file may have; check that it is "
                        "the right one.")
    return content


def read_text(path: Path | str, limit: int = LONGEST_TEXT, encoding: str = "utf-8-sig", errors: str = "strict") -> str:
    """Content of a regular file as text, with line breaks as they are.

    Raises:
        UserError: as `read_bytes`, or it is not text in this encoding.
    """
    try:
        return read_bytes(path, limit).decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in {encoding.removesuffix('-sig').upper()} (byte {error.start}); save it "
                        "in that encoding.") from None


def read_json(path: Path | str) -> Any:
    """Content of a JSON file.

    Raises:
        UserError: as `read_text`, or it is not JSON, with the line, holds too many values, or nests them more than
            `DEEPEST` levels deep.
    """
    text = read_text(path)
    if text.count("[") + text.count("{") > MOST_CONTAINERS or text.count(",") > MOST_VALUES:
        raise UserError(f"{path} holds more values than memory may have room for; split or correct the file.")
    try:
        value = json.loads(text)
    except RecursionError:
        raise UserError(f"{path} is nested too deep to be read; correct or remove the file.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); correct or remove the file.") from None
    check_nesting(value, path)
    return value


def check_nesting(value: Any, source: Path | str, most: int | None = None) -> None:
    """Check plain values from a file before anything walks through them.

    Args:
        source: the file.
        most: values in all, each counted as often as it is referred to; None where a file cannot refer.

    Raises:
        UserError: lists and objects lie more than `DEEPEST` levels deep in one another, or hold more than `most`.
    """
    level, total = [value], 0
    for _ in range(DEEPEST + 1):
        containers = [child for child in level if isinstance(child, dict | list | tuple)]
        if not containers:
            return
        total += sum(map(len, containers))
        if most is not None and total > most:
            raise UserError(f"{source} holds more than {most:,} values; correct the file.")
        level = []
        for container in containers:
            level.extend(container.values() if isinstance(container, dict) else container)
    raise UserError(f"{source} is nested too deep to be read; correct or remove the file.")


def read_object(path: Path | str, *keys: str) -> dict[str, Any]:
    """The object that a JSON file holds, which must have these keys.

    Raises:
        UserError: as `read_json`, or the file holds something else, or lacks a key.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {_JSON_KINDS.get(type(value), 'a value')} instead of an object with keys; "
                        "correct or remove the file.")
    for key in keys:
        if key not in value:
            raise UserError(f"{path} lacks the key '{key}'; correct or remove the file.")
    return value


def sha256_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a regular file's bytes; raises as `open_file`."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- writing


def make_folder(folder: Path | str) -> None:
    """Make a folder and those above it where they are absent.

    Raises:
        UserError: it cannot be made, or is a file.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made: {error.strerror or error}; "
                        f"{_HINTS.get(error.errno, 'name another place')}.") from None


def refuse_own_source(target: Path | str, *sources: Path | str) -> None:
    """Check, before anything is written, that a command's output does not replace or mix with what it reads.

    Args:
        target: the file or folder that will be written.
        sources: files and folders that are read.

    Raises:
        UserError: the target is a source, holds one or lies in one, links followed.
    """
    place = Path(target).resolve()
    for source in sources:
        origin = Path(source).resolve()
        if place == origin or place in origin.parents or origin in place.parents:
            raise UserError(f"{target} would be written where {source} is read; name a place outside it for the "
                            "output, or move the source.")


@contextlib.contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a path; what is written there (a file or a folder) becomes `target` on success, and survives a power cut.

    On any error the partial result is removed and `target` stays as it was. What killed writers of `target` left
    behind is removed at the start; several living writers do not disturb one another, and the last one wins.

    Raises:
        UserError: a full disk, a missing permission or another error of the system, with the file that it is about.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        with _workplace(target) as folder:
            partial = folder / target.name
            yield partial
            _flush(partial)
            _replace(partial, target)
            _flush_one(target.parent)
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError):
            raise  # no file's
        name = None if error.filename is None else os.fsdecode(error.filename)
        if name is None or f".{target.name}." in name or Path(name) in (target, *target.parents):
            raise UserError(f"{target} could not be written: {error.strerror or error}; "
                            f"{_HINTS.get(error.errno, 'correct that, then run the command again')}.") from error
        raise UserError(explained(error)) from error


@contextlib.contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """A folder beside `target` that lasts for the block, locked so that others see that its writer lives."""
    while True:
        folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
        folder.mkdir()
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # a file system without locks: its leftovers stay
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if folder.exists():  # else another writer removed it before it was locked
            break
        os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _replace(partial: Path, target: Path) -> None:
    """Rename to `target`; a folder that is there goes beside `partial` first, also where another writer is quicker."""
    while True:
        try:
            os.replace(partial, target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not target.is_symlink():
                raise
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, partial.with_name(uuid.uuid4().hex))


def _remove_leftovers(target: Path) -> None:
    """Remove what killed writers of `target` left beside it."""
    start, ending = f".{target.name}.", re.compile(r"[0-9a-f]{8}\.partial")
    # predict calls this for each of thousands of masks in one folder, so a name costs no more than a comparison
    names = [name for name in os.listdir(target.parent) if name.startswith(start)]
    for path in [target.with_name(name) for name in names if ending.fullmatch(name, len(start))]:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
            finally:
                os.close(descriptor)


def _flush(path: Path) -> None:
    """Wait until a file, or a folder with everything in it, is on the disk."""
    if path.is_dir():
        os.sync()  # at once: one by one, ten thousand images take a minute
    else:
        _flush_one(path)


def _flush_one(path: Path | str) -> None:
    if os.path.islink(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path | str, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, beside and renamed.

    Raises:
        ValueError: it holds NaN or infinity, which JSON has no word for; what is not known is None.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def write_status(folder: Path | str, reason: str | None = None) -> None:
    """Write `status.json` of a stage's output: `ok`, or `not_run` with the reason."""
    write_json(Path(folder) / "status.json", {"status": "not_run" if reason else "ok", "reason": reason})


def write_not_run(folder: Path | str, reason: str, info: Path | str | None = None) -> None:
    """Write a stage's output that only says why it was not made, and, where the stage has one, its info file.

    Hundreds of rows may lack their data, so the commands come here before they import anything heavy.
    """
    with atomic_path(folder) as partial:
        partial.mkdir()
        write_status(partial, reason)
    if info is not None:
        write_json(info, {"not_run": reason})


def not_run_reason(folder: Path | str) -> str | None:
    """The reason for which a stage's output was not made, None where it was.

    Raises:
        UserError: the folder has no `status.json`, or one that says neither.
    """
    path = Path(folder) / "status.json"
    status, reason = (read_object(path, "status", "reason")[key] for key in ("status", "reason"))
    if status == "ok" and reason is None or status == "not_run" and isinstance(reason, str) and reason:
        return reason
    raise UserError(f"{path} says neither ok nor not_run with a reason; run the stage that writes it again.")
