"""Checksums and revisions of downloads: pinned, or recorded at the first use and kept to from then on."""

from pathlib import Path

from featherseg.core.errors import UserError
from featherseg.core.files import read_object, sha256_file, write_json
from featherseg.core.locks import exclusive, lock_of


class Checksums:
    """What is recorded: a JSON map from `<dataset>/<file>` to SHA-256, kept in git.

    A repository of the model hub has its revision under `weights/<name>/revision`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recorded = self._read()
        self._new: dict[str, str] = {}

    def _read(self) -> dict[str, str]:
        return read_object(self._path) if self._path.exists() else {}

    def check(self, key: str, file: Path, pinned: str | None = None) -> None:
        """Compare a file with its pinned or recorded checksum; note its checksum where there is neither.

        Raises:
            UserError: it differs.
        """
        expected, actual = pinned or self._recorded.get(key), sha256_file(file)
        if expected is None:
            self._new[key] = actual
        elif actual != expected and pinned:
            raise UserError(f"{file} has the sha256 {actual} but the project pins {expected}; "
                            "get the file again.")
        elif actual != expected:
            raise UserError(f"{file} has the sha256 {actual} but {self._path} recorded {expected} at its "
                            f"first use; get the file again, or remove the record '{key}' for a new version.")

    def get(self, key: str) -> str | None:
        """What is recorded under `key`, or noted in this run."""
        return self._recorded.get(key) or self._new.get(key)

    def note(self, key: str, value: str) -> None:
        """Note a value that was met for the first time."""
        self._new[key] = value

    def record(self) -> None:
        """Write down what was noted, and print that it was, beside what other processes record at the same time.

        Raises:
            UserError: another process has recorded something else meanwhile.
        """
        if not self._new:
            return
        with exclusive(lock_of("data", self._path.name), f"Another process is writing {self._path}."):
            recorded = self._read()
            for key, value in self._new.items():
                if recorded.get(key, value) != value:
                    raise UserError(f"another process has recorded {recorded[key]} for '{key}' in {self._path} while "
                                    f"this one met {value}; get the file again, or remove the record.")
            write_json(self._path, recorded | self._new)
        keys = list(self._new)
        print(f"recorded at first use, in {self._path}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}; the "
              "project knows no checksum of it, so this version is taken on trust, and later ones are compared with it")
