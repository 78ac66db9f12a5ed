"""Downloading one file over HTTP so that a cut costs no more than the rest of the file."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from featherseg.core.errors import UserError
from featherseg.core.files import make_folder
from featherseg.core.progress import progress
from featherseg.core.terminal import printable, shortened

LARGEST = 64 << 30  # bytes; five times the largest archive of a dataset
_CHUNK = 1 << 16
_REDIRECTS = 5
_TRY_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS,
              HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}
_MOVED = {HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER, HTTPStatus.TEMPORARY_REDIRECT,
          HTTPStatus.PERMANENT_REDIRECT}


class Unreachable(Exception):
    """The file cannot be had now: no network, a refusing server, or one that keeps cutting the connection."""


def fetch(url: str, target: Path, *, attempts: int = 3, timeout: float = 60.0, pause: float = 1.0,
          slowest: float = 1000.0, patience: float = 120.0) -> None:
    """Download `url` to `target`.

    What has arrived lies in `<target>.part` and outlives the process. It is continued with a Range request
    where the server names the file's version (a strong ETag, or Last-Modified) and still has that version;
    else the download starts over, so that two versions are never joined.

    Args:
        attempts: failures in a row, without a byte gained, before giving up.
        timeout: seconds of silence that count as a failure.
        pause: seconds before the second attempt, doubled with each failure in a row.
        slowest: bytes a second, over `patience` seconds, below which the server is given up.
        patience: seconds for that, and for a server's whole answer up to the first byte of the file.

    Raises:
        Unreachable: with the cause.
        UserError: the disk cannot be written, or is too small.
    """
    part = target.with_name(f"{target.name}.part")
    make_folder(part.parent)
    reached, failures, pace = _size(part), 0, _Pace(slowest, patience)
    while True:
        try:
            _download(url, part, timeout, pace)
            break
        except urllib.error.HTTPError as error:
            cause = f"the server answers {error.code} {printable(shortened(error.reason or ''))}"
            error.close()
            if error.code < 500 and error.code not in _TRY_AGAIN:
                raise Unreachable(cause) from None
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: headers that are none
            cause = printable(shortened(str(getattr(error, "reason", None) or error), 200)) or type(error).__name__
        failures = 0 if _size(part) > reached else failures + 1
        reached = max(reached, _size(part))
        if failures >= attempts:
            raise Unreachable(cause)
        pace.gain(0)
        time.sleep(pause * 2**failures)
    os.replace(part, target)
    _version_file(part).unlink(missing_ok=True)


def is_open_to_change(url: str) -> bool:
    """Whether anybody on the way to the server could change what it sends: plain http to another machine."""
    address = urlsplit(url)
    return address.scheme != "https" and address.hostname not in ("127.0.0.1", "localhost", "::1")


class _Pace:
    """Gives a server up that sends too few bytes over a while, whether in one answer or in many."""

    def __init__(self, slowest: float, patience: float) -> None:
        self.slowest, self.patience = slowest, patience
        self._began, self._gained = time.monotonic(), 0

    def gain(self, count: int) -> None:
        """Count bytes that have arrived; raises Unreachable."""
        self._gained += count
        seconds = time.monotonic() - self._began
        if seconds < self.patience:
            return
        if self._gained < self.slowest * seconds:
            raise Unreachable(f"the server sent {self._gained} bytes in {seconds:.0f} seconds, which is too slow")
        self._began, self._gained = time.monotonic(), 0


def _download(url: str, part: Path, timeout: float, pace: _Pace) -> None:
    """One request, appended to `part` where the server continues; raises OSError where it ends early."""
    version = _read_version(part)
    have = _size(part) if version else 0
    headers = {"User-Agent": "featherseg", "Accept-Encoding": "identity"}
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    with _answer(url, headers, timeout, pace.patience) as response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        if resumed and not (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError("the server sent another part of the file than asked for")
        start = have if resumed else 0
        total = _announced(response, start, part)
        with _naming(part):
            _version_file(part).write_text(json.dumps({"version": _version(response.headers)}))
            file = open(part, "ab" if resumed else "wb", buffering=0)
        with file, progress(total, f"downloading {part.stem}", "B", start, scale=True) as bar:
            while chunk := response.read1(_CHUNK):
                _append(file, chunk, part)
                bar.update(len(chunk))
                pace.gain(len(chunk))
    if total is not None and _size(part) != total:
        raise ConnectionError(f"the connection was cut after {_size(part)} of {total} bytes")


def _append(file: FileIO, chunk: bytes, part: Path) -> None:
    with _naming(part):
        while chunk:
            chunk = chunk[file.write(chunk):]
    if file.tell() > LARGEST:
        raise Unreachable(f"the server sends more than {LARGEST / 1e9:.0f} GB")


def _announced(response: http.client.HTTPResponse, start: int, part: Path) -> int | None:
    """Bytes of the whole file as the answer's headers say; None where they do not.

    Raises:
        ConnectionError: they say no number.
        UserError: the disk has no room for it.
    """
    if response.length is None:
        if "Content-Length" in response.headers and not response.chunked:
            raise ConnectionError("the server states a length that is no number of bytes")
        return None
    free = shutil.disk_usage(part.parent).free
    if response.length > free:
        raise UserError(f"{part.stem} needs {response.length / 1e9:.1f} GB but {part.parent} has {free / 1e9:.1f} GB "
                        "left; free space and run the command again.")
    return start + response.length


@contextlib.contextmanager
def _answer(url: str, headers: dict[str, str], timeout: float, patience: float) -> Iterator[http.client.HTTPResponse]:
    """The server's answer, after at most five redirections, none of which leaves encrypted transport."""
    opener = urllib.request.build_opener(_Http(patience), _Https(patience), _NoRedirects)
    for _ in range(_REDIRECTS + 1):
        try:
            with opener.open(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
                yield response
                return
        except urllib.error.HTTPError as error:
            if error.code not in _MOVED or "Location" not in error.headers:
                raise
            error.close()
            target = urljoin(url, error.headers["Location"])
        if urlsplit(target).scheme not in ("http", "https") or is_open_to_change(target) > is_open_to_change(url):
            raise Unreachable(f"the server redirects to {printable(shortened(target))}, which is not encrypted")
        url = target
    raise Unreachable(f"the server redirects more than {_REDIRECTS} times")


class _Watched(http.client.HTTPConnection):
    """A connection that is cut where the server takes too long to answer, however often it sends a byte."""

    patience: float

    def connect(self) -> None:
        self._late = False
        self._watch = threading.Timer(self.patience, self._cut)
        self._watch.daemon = True
        self._watch.start()
        super().connect()

    def getresponse(self) -> http.client.HTTPResponse:
        response = super().getresponse()
        self._watch.cancel()
        if self._late:  # what there is of the headers looks like all of them
            raise TimeoutError(f"the server took more than {self.patience:.0f} seconds to answer")
        return response

    def close(self) -> None:
        if hasattr(self, "_watch"):
            self._watch.cancel()
        super().close()

    def _cut(self) -> None:
        self._late = True
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


class _WatchedHttps(_Watched, http.client.HTTPSConnection):
    """The same, encrypted."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Hands every redirection back; the handler that follows them reads their pages to the end, which may not come."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Http(urllib.request.HTTPHandler):
    def __init__(self, patience: float) -> None:
        super().__init__()
        self._connection: Any = type("_Connection", (_Watched,), {"patience": patience})

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, patience: float) -> None:
        super().__init__()
        self._connection: Any = type("_Connection", (_WatchedHttps,), {"patience": patience})

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request, context=self._context)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Within the block an error of the system is the disk's, and a sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}; free space or change the permission "
                        "and run the command again: the download goes on where it stopped.") from error


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
