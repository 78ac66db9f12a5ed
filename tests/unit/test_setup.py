"""The set-up script's refusals and its stamp, and that the lock covers what pyproject.toml asks for."""

import importlib.util
import itertools
import re
import shutil
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
DiskUsage = namedtuple("DiskUsage", "total used free")


@pytest.fixture
def bootstrap(tmp_path, monkeypatch):
    """The script, at work on a small copy of a clone that has every tool and room enough."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (tmp_path / ".git").mkdir()
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(script, "STAMP", tmp_path / ".venv" / "setup-stamp")
    monkeypatch.setattr(script, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(script.shutil, "disk_usage", lambda _: DiskUsage(0, 0, 50e9))
    monkeypatch.setattr(script.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.delenv("PYTHON", raising=False)
    return script


def stamped(script):
    """Leave what a completed set-up leaves."""
    (script.VENV / "bin").mkdir(parents=True)
    (script.VENV / "bin" / "python").touch()
    script.STAMP.write_text(f"{script.made_from_now()} {script.this_python()}\n")


def test_check_accepts_this_machine(bootstrap):
    bootstrap.check()


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 14, 0), (2, 7, 18)])
def test_another_python_is_refused_with_the_range(bootstrap, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=r"3\.11 to 3\.13.*PYTHON=python3\.11 make repro"):
        bootstrap.check()


def test_a_missing_venv_module_is_named(bootstrap, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match="no venv module"):
        bootstrap.check()


def test_missing_git_is_named(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="git was not found"):
        bootstrap.check()


def test_an_unpacked_archive_is_refused(bootstrap):
    (bootstrap.ROOT / ".git").rmdir()
    with pytest.raises(SystemExit, match="not a git clone"):
        bootstrap.check()


def test_too_little_disk_says_how_much_is_needed(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: DiskUsage(0, 0, 2.87e8))
    with pytest.raises(SystemExit, match=r"0\.3 GB are free .* needs 10"):
        bootstrap.check()


def test_a_completed_set_up_is_not_repeated(bootstrap, monkeypatch):
    stamped(bootstrap)
    monkeypatch.setattr(bootstrap, "check", lambda: pytest.fail("set up again"))
    bootstrap.main()


def test_set_up_is_repeated_when_interrupted_or_outdated(bootstrap, monkeypatch):
    assert not bootstrap.is_ready()
    stamped(bootstrap)
    assert bootstrap.is_ready()

    with monkeypatch.context() as patch:
        patch.setenv("PYTHON", "python3.99")
        patch.setattr(sys, "version_info", (3, 99, 0))
        assert not bootstrap.is_ready(), "another Python was chosen"
        patch.delenv("PYTHON")
        assert bootstrap.is_ready(), "without a choice the finished one stays"

    with bootstrap.LOCK.open("a") as lock:
        lock.write("# changed\n")
    assert not bootstrap.is_ready(), "the lock changed"


def locked_versions():
    """Name -> pinned versions (more than one where they depend on the Python), from requirements.lock."""
    versions = {}
    for name, version in re.findall(
        r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements.lock").read_text(), re.M
    ):
        versions.setdefault(name, []).append(version)
    return versions


def test_the_lock_satisfies_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    locked = locked_versions()
    for requirement in map(Requirement, asked):
        assert all(version in requirement.specifier for version in locked[requirement.name]), requirement


def test_the_lock_has_hashes_for_all_and_names_no_host():
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert len(entries) > 200
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
