"""Remove DVC's lists of readers and writers where a killed DVC left one cut.

DVC writes `rwlock` in place, holding `rwlock.lock` meanwhile. Killed in between it leaves an empty or cut list, at
which every later command stops ("JSON structure is corrupted"). By hand: delete `.dvc/tmp/rwlock`.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(root: Path = ROOT) -> None:
    """Mend the lists of the project and of its experiments."""
    for path in (root / ".dvc/tmp/rwlock", root / ".dvc/tmp/exps/rwlock"):
        if is_cut(path):
            mend(path)


def is_cut(path: Path) -> bool:
    """Whether a list is there and is no whole JSON object."""
    try:
        return not isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except FileNotFoundError:
        return False
    except ValueError:
        return True


def mend(path: Path) -> None:
    """Remove a cut list, unless a living DVC is just writing it."""
    from dvc.lock import LockError, make_lock

    try:
        with make_lock(f"{path}.lock", tmp_dir=str(path.parent)):
            if is_cut(path):
                path.unlink()
                print(f"{path} was cut by a killed DVC and is removed", file=sys.stderr)
    except LockError:
        print(f"another DVC is writing {path}; where none runs, delete it", file=sys.stderr)


if __name__ == "__main__":
    main()
