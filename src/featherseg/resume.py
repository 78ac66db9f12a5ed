"""Going on where a killed training stopped.

DVC deletes a stage's outputs before it runs the stage again, so state is kept outside of them, in the cache
folder `resume`. Four things can go wrong, and each has one answer here:

- The trainer was killed: its state of the last finished epoch is found under the run's key.
- Only DVC was killed, and the trainer lives on while DVC starts a second one: the second waits for the
  first one's lock, then takes over its finished output, or its state.
- Only DVC was killed, and the trainer finished before DVC started again: DVC never recorded the outputs and deletes
  them, so a copy of them lies under the run's key until the run is evaluated (`forget`), which DVC only begins once
  it has recorded the training.
- The parameters were changed meanwhile, so that the second has another key and does not wait: it claims the
  output folder, and the first one stops without writing there.
"""

import contextlib
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypedDict, cast

import torch

from featherseg.config import Run
from featherseg.core.caches import key_of
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, cache_root, read_object, sha256_file, write_json
from featherseg.core.locks import exclusive
from featherseg.core.sources import closure
from featherseg.run_code import training_code


def run_key(run: Run, data: str) -> str:
    """Key of what decides a training: the run without its evaluation, its data's fingerprint, the code."""
    code = training_code(run) | closure("resume.py")
    return key_of(run.model_dump(mode="json", exclude={"evaluate"}), data, code)


class Done(TypedDict):
    """What is kept of a finished training: the SHA-256 of its outputs by name, and what stands beside them."""

    files: dict[str, str]
    info: Mapping[str, object]


class Attempt:
    """One process's attempt at a training: its lock, its claim to the output folder, its state.

    With several processes each has one, but only the first locks, claims and writes; and it does not wait
    for a lock, since its companions would wait for it until they give up.

    Args:
        key: `run_key`.
        out_dir: the output folder, written once, at the end.
        info_path: the output beside it (times, hardware).
        rank, ranks: number of this process, and how many there are.

    Example:
        with Attempt(key, out_dir, info_path) as attempt:
            if not attempt.finished():
                state = attempt.load()
                ...
                attempt.publish(write, info)
    """

    def __init__(self, key: str, out_dir: Path, info_path: Path, rank: int = 0, ranks: int = 1) -> None:
        self.key, self.out_dir, self.info_path = key, Path(out_dir), Path(info_path)
        self.main, self._alone = rank == 0, ranks == 1
        folder = cache_root() / "resume" / key
        self._lock, self._state, self._done = folder / "lock", folder / "state.pt", folder / "done.json"
        self._copy, self._claim = folder / "out", _claim_of(self.out_dir)
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if self.main:
            with self._claiming():
                write_json(self._claim, {"out_dir": str(self.out_dir), "key": self.key})
            self._held.enter_context(exclusive(
                self._lock, f"Another process is training {self.out_dir.name} already.", wait=self._alone))
        return self

    def __exit__(self, *exception: object) -> None:
        self._held.close()

    def finished(self) -> bool:
        """Whether this training is finished already; its outputs are then put in place, out of their copy where
        DVC has deleted them.

        Raises:
            UserError: the output folder was claimed by a training with other settings; or the disk is full.
        """
        done = cast("Done | None", _read(self._done, "files", "info"))
        # the copy first: the first process may be putting the outputs in place
        if done is None or not any(_contents(folder) == done["files"] for folder in (self._copy, self.out_dir)):
            return False
        if self.main:
            self._put_in_place(done)
            print(f"{self.out_dir} is finished already; delete it and {self._done.parent} to train again",
                  file=sys.stderr)
        return True

    def load(self) -> dict[str, Any] | None:
        """The state that an earlier attempt left, or None; a damaged one is ignored, with a message."""
        if not self._state.is_file():
            return None
        try:
            with zipfile.ZipFile(self._state) as archive:  # torch.load does not check the sums
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(damaged)
            return torch.load(self._state, map_location="cpu", weights_only=True)
        except Exception as error:
            self.refuse(type(error).__name__)
            return None

    def refuse(self, why: str) -> None:
        """Print that the state is not used."""
        if self.main:
            print(f"the state in {self._state} is damaged ({why}) and not used", file=sys.stderr)

    def save(self, state: Mapping[str, object]) -> None:
        """Keep the state of a finished epoch, written atomically.

        Raises:
            UserError: the output folder was claimed by a training with other settings; or the disk is full.
        """
        if not self.main:
            return
        if read_object(self._claim, "key")["key"] != self.key:
            raise self._superseded()
        with atomic_path(self._state) as partial:
            _save(state, partial)

    def publish(self, write: Callable[[Path], None], info: Mapping[str, object]) -> None:
        """Write the outputs, atomically, and drop the state; `write(folder)` fills the output folder.

        Raises:
            UserError: the output folder was claimed by a training with other settings; or the disk is full.
        """
        if not self.main:
            return
        with atomic_path(self._copy) as partial:
            partial.mkdir()
            write(partial)
            files = _contents(partial)
        done: Done = {"files": files, "info": info}
        write_json(self._done, done)
        self._put_in_place(done)

    def _put_in_place(self, done: Done) -> None:
        """Make the output folder and the file beside it those of a finished training, and drop its state."""
        with self._claiming():
            if read_object(self._claim, "key")["key"] != self.key:
                raise self._superseded()
            if _contents(self.out_dir) != done["files"]:
                with atomic_path(self.out_dir) as partial:
                    shutil.copytree(self._copy, partial)
            write_json(self.info_path, done["info"])
        self._state.unlink(missing_ok=True)

    def _claiming(self) -> contextlib.AbstractContextManager[None]:
        return exclusive(self._claim.with_suffix(".lock"),
                         f"Another process is writing {self.out_dir}.")

    def _superseded(self) -> UserError:
        return UserError(f"{self.out_dir} is being trained with other settings by a process that started "
                         "later; this one stops and leaves it alone.")


def forget(out_dir: Path) -> None:
    """Drop the copy of the outputs in `out_dir`, which DVC has recorded by now.

    Where another process is taking the copy over, it stays.
    """
    claim = _read(_claim_of(out_dir), "key")
    if claim is None:
        return
    folder = cache_root() / "resume" / claim["key"]
    with contextlib.suppress(UserError), exclusive(folder / "lock", "taken", wait=False):
        shutil.rmtree(folder / "out", ignore_errors=True)


def _claim_of(out_dir: Path) -> Path:
    """The file that names the key whose outputs `out_dir` is to hold."""
    return cache_root() / "resume" / "claims" / f"{key_of(str(out_dir.resolve()))}.json"


def _read(path: Path, *keys: str) -> dict[str, Any] | None:
    """The object with these keys in a JSON file, or None where there is none; a damaged one is ignored, with a
    message.
    """
    if not path.is_file():
        return None
    try:
        return read_object(path, *keys)
    except UserError as error:
        print(f"{error} It is not used.", file=sys.stderr)
        return None


def _contents(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder, by name; empty where there is none."""
    return {file.name: sha256_file(file) for file in sorted(folder.glob("*")) if file.is_file()}


def _save(state: Mapping[str, object], path: Path) -> None:
    """`torch.save`, which hides a full disk behind an error of its own, with the system's error."""
    with open(path, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
