"""Downloading one file over HTTP so that a cut costs no more than the rest of the file."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tqdm import tqdm

from featherseg.errors import UserError

_CHUNK = 1 << 16
_TRY_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS,
              HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}


class Unreachable(Exception):
    """The file cannot be had now: no network, a refusing server, or one that keeps cutting the connection."""


def fetch(url: str, target: Path, *, attempts: int = 3, timeout: float = 60.0, pause: float = 1.0) -> None:
    """Download `url` to `target`.

    What has arrived lies in `<target>.part` and outlives the process. It is continued with a Range request
    where the server names the file's version (a strong ETag, or Last-Modified) and still has that version;
    else the download starts over, so that two versions are never joined.

    Args:
        attempts: failures in a row, without a byte gained, before giving up.
        timeout: seconds of silence that count as a failure; a slow server is waited for.
        pause: seconds before the second attempt, doubled with each failure in a row.

    Raises:
        Unreachable: with the cause.
        UserError: the disk cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    reached, failures = _size(part), 0
    while True:
        try:
            _download(url, part, timeout)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in _TRY_AGAIN:
                raise Unreachable(f"the server answers {error.code} {error.reason}") from None
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
            cause = f"the server answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            cause = str(getattr(error, "reason", None) or error) or type(error).__name__
        failures = 0 if _size(part) > reached else failures + 1
        reached = max(reached, _size(part))
        if failures >= attempts:
            raise Unreachable(cause)
        time.sleep(pause * 2**failures)
    os.replace(part, target)
    _version_file(part).unlink(missing_ok=True)


def _download(url: str, part: Path, timeout: float) -> None:
    """One request, appended to `part` where the server continues; raises OSError where it ends early."""
    version = _read_version(part)
    have = _size(part) if version else 0
    request = urllib.request.Request(url, headers={"User-Agent": "featherseg"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version)
    with urllib.request.urlopen(request, timeout=timeout) as response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        if resumed and not (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError("the server sent another part of the file than asked for")
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _write(_version_file(part), json.dumps({"version": _version(response.headers)}))
        with (open(part, "ab" if resumed else "wb", buffering=0) as file,
              tqdm(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True,
                   disable=None) as bar):
            while chunk := response.read(_CHUNK):
                _append(file, chunk, part)
                bar.update(len(chunk))
    if total is not None and _size(part) != total:
        raise ConnectionError(f"the connection was cut after {_size(part)} of {total} bytes")


def _append(file: Any, chunk: bytes, part: Path) -> None:
    try:
        while chunk:
            chunk = chunk[file.write(chunk):]
    except OSError as error:
        raise _not_written(part, error) from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} could not be written: {error.strerror or error}; free space or change the "
                     "permission and run the command again: the download goes on where it stopped.")


def _version(headers: Any) -> str | None:
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _read_version(part: Path) -> str | None:
    try:
        return json.loads(_version_file(part).read_text())["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
