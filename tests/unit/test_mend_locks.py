"""What a killed DVC leaves in its list of locks is removed, and a list that is whole or being written stays."""

import importlib.util
import json
from pathlib import Path

import pytest
from dvc.lock import make_lock
from dvc.rwlock import RWLockFileCorruptedError, rwlock

from featherseg.core.files import read_json

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/mend_locks.py"
WHOLE = json.dumps({"read": {}, "write": {}})


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("mend_locks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=[".dvc/tmp", ".dvc/tmp/exps"])
def path(request, tmp_path) -> Path:
    folder = tmp_path / request.param
    folder.mkdir(parents=True)
    return folder / "rwlock"


def lock_with_dvc(path: Path) -> None:
    from dvc.fs import localfs

    with rwlock(str(path.parent), localfs, "a test", [], ["/some/output"], False):
        assert read_json(path)["write"]


@pytest.mark.parametrize("content", ["", WHOLE[:9], "null"])
def test_dvc_locks_again_once_a_cut_list_is_mended(script, path, tmp_path, content):
    path.write_text(content)
    if content != "null":
        with pytest.raises(RWLockFileCorruptedError):
            lock_with_dvc(path)
    script.main(tmp_path)
    lock_with_dvc(path)


def test_a_whole_list_stays(script, path, tmp_path):
    path.write_text(WHOLE)
    script.main(tmp_path)
    assert path.read_text() == WHOLE
    path.unlink()
    script.main(tmp_path)


def test_a_list_that_is_being_written_stays(script, path, tmp_path, capsys):
    path.write_text("")
    with make_lock(f"{path}.lock", tmp_dir=str(path.parent)):
        script.main(tmp_path)
    assert path.is_file() and "another DVC is writing" in capsys.readouterr().err
