"""Checksums and revisions of downloads: pinned, or recorded at the first use and kept to from then on."""

from pathlib import Path

from featherseg.errors import UserError
from featherseg.files import read_object, sha256_file, write_json


class Checksums:
    """What is recorded: a JSON map from `<dataset>/<file>` to SHA-256, kept in git.

    A repository of the model hub has its revision under `weights/<name>/revision`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recorded: dict[str, str] = read_object(path) if path.exists() else {}
        self._new: dict[str, str] = {}

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
        """Write down what was noted."""
        if self._new:
            write_json(self._path, self._recorded | self._new)
