"""Locks between processes: whatever several of them read, change and write is done by one at a time."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from featherseg.core.errors import UserError
from featherseg.core.files import cache_root


def lock_of(kind: str, name: str) -> Path:
    """The lock file of what several processes may write under one name, such as a download; in the cache folder."""
    return cache_root() / "locks" / f"{kind}-{name}.lock"


@contextlib.contextmanager
def exclusive(path: Path, taken: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`; where another process holds it, print the sentence `taken` and wait.

    The lock goes with the process, however that ends.

    Raises:
        UserError: another process holds it and `wait` is False, which `taken` says; or its folder cannot be written to.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise UserError(taken) from None
        print(taken, "Waiting for it.", file=sys.stderr, flush=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"{path.parent} cannot hold a lock: {error.strerror or error}; set FEATHERSEG_CACHE to a "
                        "folder that can be written to.") from None
    try:
        yield
    finally:
        lock.release()
