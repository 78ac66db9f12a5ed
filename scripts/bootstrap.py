"""Make `.venv` what `requirements.lock` says, once per content of the lock. Standard library only.

`make` runs this with the interpreter that the user has. A stamp inside `.venv` says which lock it was made
from; where it is absent or tells of another lock, place or chosen Python, `.venv` is made anew, so that an
interrupted set-up is repaired by the next one.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "setup-stamp"
LOCK = ROOT / "requirements.lock"
NEEDED_GB = 10  # 7 GB installed, most of it CUDA libraries, and room for the study


def main() -> None:
    """Set up `.venv` unless it is ready; exit with one sentence where that cannot be done."""
    if is_ready():
        return
    check()
    (ROOT / ".cache").mkdir(exist_ok=True)
    with open(ROOT / ".cache" / "setup.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_ready():
            return
        try:
            install()
        except subprocess.CalledProcessError as error:
            step = " ".join(map(str, error.cmd))
            sys.exit(f"Set-up stopped at `{step}` for the reason printed above; run make again.")
        except KeyboardInterrupt:
            sys.exit("Set-up was interrupted; run make again to finish it.")


def is_ready() -> bool:
    """Whether `.venv` was completed here from the present lock, by the chosen Python where one is chosen."""
    if not (VENV / "bin" / "python").exists() or not STAMP.exists():
        return False
    made_from, _, python = STAMP.read_text().strip().rpartition(" ")
    return made_from == made_from_now() and ("PYTHON" not in os.environ or python == this_python())


def made_from_now() -> str:
    """Digest of the lock and the place of `.venv`, whose scripts hold that place."""
    return f"{hashlib.sha256(LOCK.read_bytes()).hexdigest()} {VENV}"


def this_python() -> str:
    """Version of the running interpreter without its patch level."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def check() -> None:
    """Exit with one sentence where Python, its venv module, git or the disk does not suffice."""
    declared = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    first, end = int(declared.group(1)), int(declared.group(2))
    if not (3, first) <= sys.version_info[:2] < (3, end):
        sys.exit(
            f"Python {this_python()} ({sys.executable}) is not one of 3.{first} to 3.{end - 1}; "
            f"choose another, for example: PYTHON=python3.{first} make repro."
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        sys.exit(
            f"{sys.executable} has no venv module; install it "
            f"(Debian and Ubuntu: python{this_python()}-venv), then run make again."
        )
    if shutil.which("git") is None:
        sys.exit("git was not found, and the pipeline needs it; install git, then run make again.")
    if not (ROOT / ".git").exists():
        sys.exit(f"{ROOT} is not a git clone, and the pipeline needs one; get the project with git clone.")
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB:
        sys.exit(
            f"{free:.1f} GB are free at {ROOT}, set-up needs {NEEDED_GB}; make room, then run make again."
        )


def install() -> None:
    """Create `.venv`, install the pinned uv by pip, the lock by uv and the package itself, then stamp it."""
    print(f"Setting up .venv with Python {this_python()}; at first this downloads several GB.", flush=True)
    # Inside a virtual environment, perhaps the very one to be replaced, its base makes the new one.
    base = getattr(sys, "_base_executable", sys.executable)
    run(base, "-m", "venv", "--clear", VENV)

    python, uv, uv_lock = VENV / "bin" / "python", VENV / "bin" / "uv", VENV / "uv.lock"
    uv_lock.write_text(re.search(r"^uv==.*\n(?: .*\n)+", LOCK.read_text(), re.MULTILINE).group())
    run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", uv_lock)

    # As build constraints, the lock also pins what a package without a wheel is built with.
    locked = ["--require-hashes", "-r", LOCK, "--build-constraints", LOCK]
    run(uv, "pip", "install", "--python", python, *locked, UV_COMPILE_BYTECODE="1")
    run(uv, "pip", "install", "--python", python, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    STAMP.write_text(f"{made_from_now()} {this_python()}\n")


def run(*command: object, **environment: str) -> None:
    """Run one step of the set-up, its output passed through; a failure raises CalledProcessError."""
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, env={**os.environ, **environment})


if __name__ == "__main__":
    main()
