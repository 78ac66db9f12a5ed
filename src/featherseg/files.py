"""Writing beside and renaming, hashing, and the few places where files are kept."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featherseg.errors import UserError

_KINDS = {list: "a list", str: "a text", bool: "true or false", type(None): "null", int: "a number", float: "a number"}
LONGEST_NAME = 255  # bytes, on every usual file system
_HINTS = {errno.ENAMETOOLONG: "choose a shorter name"}


def cache_root() -> Path:
    """Folder of caches and resume state: `$FEATHERSEG_CACHE`, else `.cache` in the checkout."""
    return (checkout() / (os.environ.get("FEATHERSEG_CACHE") or ".cache")).resolve()


def checkout() -> Path:
    """The user's checkout, from the project's root.

    DVC runs an experiment of its queue in a copy of the checkout without what git ignores, removes that copy
    afterwards, and names the checkout in `DVC_ROOT`.
    """
    return Path(os.environ.get("DVC_ROOT") or ".")


@contextlib.contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a path beside `target`; what is written there (a file or a folder) becomes `target` on success.

    On any error the partial result is removed and `target` stays as it was. A full disk and a missing
    permission are reported as a `UserError` that names the target.
    """
    target = Path(target)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if partial.is_dir() and target.is_dir():
            shutil.rmtree(target)
        os.replace(partial, target)
    except OSError as error:
        file = error.filename
        if file is not None and str(partial) not in str(file) and Path(str(file)) not in target.parents:
            raise
        hint = _HINTS.get(error.errno, "free space or change the permission")
        raise UserError(f"{target} could not be written: {error.strerror or error}; {hint}, then run the command "
                        "again.") from error
    finally:
        if os.path.isdir(partial):  # Path.is_dir would raise for a name that is too long
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def sha256_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path | str) -> Any:
    """Content of a JSON file.

    Raises:
        UserError: the file is absent or is not JSON; the message names the file and the line.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist; run the stage that writes it first.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deep to be read; correct or remove the file.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); correct or remove the file.") from None


def read_object(path: Path | str, *keys: str) -> dict[str, Any]:
    """The object that a JSON file holds, which must have these keys.

    Raises:
        UserError: as `read_json`, or the file holds something else, or lacks a key.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {_KINDS.get(type(value), 'a value')} instead of an object with keys; correct or "
                        "remove the file.")
    for key in keys:
        if key not in value:
            raise UserError(f"{path} lacks the key '{key}'; correct or remove the file.")
    return value


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
    print(f"not run: {reason}")


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
