"""A workspace of its own for tests that run DVC: the checkout's files in a fresh repository, with a micro study."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warm
from filelock import FileLock

from featherseg.config import read_yaml, write_yaml

ROOT = Path(__file__).parents[2]
CHECK = "pipelines/data/dvc.yaml:check"
DECODER, BRIDGER = "clipseg-decoder-lesions-0", "etris_vit-bridger-lesions-0"
EPOCHS = 6  # enough to kill a training between two


class Workspace:
    """A copy of the project in which commands run as a user's do: relative paths, the venv on PATH.

    Nothing outside is asked: every proxy is a closed port. Stages keep the bytecode of `src` for the next ones.

    Attributes:
        programs: folder of the programs that start at once (`warm`); the venv's own without one.
        cold: whether commands start as a user's do.
    """

    programs: Path | None = None

    def __init__(self, path: Path, cold: bool = False) -> None:
        self.path, self.cold = path, cold
        self.output = ""

    @property
    def environment(self) -> dict[str, str]:
        dropped = ("PYTHONPATH", "FEATHERSEG_CACHE", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items()
                if name not in dropped and not name.startswith(("GIT_", "DVC_"))}
        closed = "http://127.0.0.1:9"
        folders = [*([str(self.programs)] if self.programs else []), str(Path(sys.executable).parent), kept["PATH"]]
        return kept | {"PATH": os.pathsep.join(folders), warm.COLD: "1" if self.cold else "", "OMP_NUM_THREADS": "1",
                       "HTTP_PROXY": closed, "HTTPS_PROXY": closed, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}

    def command(self, *arguments: str) -> dict[str, Any]:
        """Arguments of `subprocess` for a command in this workspace."""
        return {"args": arguments, "cwd": self.path, "env": self.environment, "text": True}

    def run(self, *arguments: str, fails: bool = False) -> str:
        """Output of a command (both streams), which must succeed, or fail where `fails`."""
        done = subprocess.run(**self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert (done.returncode != 0) == fails, f"{' '.join(arguments)}\n{done.stdout}"
        return done.stdout

    def dvc(self, *arguments: str, fails: bool = False) -> str:
        return self.run("dvc", *arguments, fails=fails)

    def edit(self, file: str, change: Callable[[dict], None]) -> None:
        """Change the values of a YAML file."""
        value = read_yaml(self.path / file)
        change(value)
        write_yaml(self.path / file, value)

    def append(self, file: str, text: str) -> None:
        with open(self.path / file, "a", encoding="utf-8") as opened:
            opened.write(text)

    def leave_out_pipelines(self, *kept: str) -> None:
        """Remove all pipelines of papers but those `kept`, since every command of DVC reads every one."""
        for file in (self.path / "pipelines").glob("*/dvc.*"):
            if file.parent.name not in ("data", "pretrain", *kept):
                file.unlink()

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def copy(self, path: Path) -> "Workspace":
        """A workspace of its own with all that this one has made, times of files included."""
        shutil.copytree(self.path, path, symlinks=True, copy_function=copy_or_link)
        return Workspace(path)


def copy_or_link(source: str, target: str) -> None:
    """Copy a file; what git and DVC store under its digest is never changed in place and is linked."""
    stored = "/.git/objects/" in source or "/.dvc/cache/files/" in source
    os.link(source, target) if stored else shutil.copy2(source, target)


def experiments(workspace: Workspace) -> list[str]:
    """Commits of the workspace's finished experiments; the queue keeps those that wait under celery/."""
    named = workspace.run("git", "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps/").splitlines()
    return [line.split()[1] for line in named if not line.startswith("refs/exps/celery/")]


def ran(output: str) -> set[str]:
    """Names of the stages that a `dvc repro` or `dvc exp run` ran."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def shrink_params(params: dict) -> None:
    """Two short runs on a dozen images of 64 px; tests that train again train ETRIS, which starts sooner."""
    params["study"] = {"datasets": ["lesions"], "recipes": ["clipseg-decoder", "etris_vit-bridger"], "seeds": [0]}
    params["model"]["image_size"] = 64
    params["data"]["synthetic"]["lesions"].update(images=12, size=64)
    params["adapter"].update(dim=16)
    params["train"].update(epochs=EPOCHS, min_epochs=EPOCHS, batch_size=4, lr=1e-3, schedule="constant")


def made_once(place: Path, make: Callable[[Workspace], None]) -> Workspace:
    """A workspace that the first of several test processes makes for all of them."""
    workspace, output = Workspace(place / "featherseg"), place / "output.txt"
    with FileLock(place.with_suffix(".lock")):
        if not output.is_file():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(workspace)
            output.write_text(workspace.output)
    workspace.output = output.read_text()
    return workspace


@pytest.fixture(scope="session", autouse=True)
def warm_start(tmp_path_factory):
    """Commands in workspaces start at once, where a process can be forked with its libraries."""
    if sys.platform != "linux":
        yield
        return
    with warm.programs(tmp_path_factory.mktemp("bin")) as folder:
        Workspace.programs = folder
        yield
    Workspace.programs = None


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """The folder that the processes of one test run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def clone(shared) -> Workspace:
    """What a clone of this checkout holds, its uncommitted edits included, with the micro study declared."""
    return made_once(shared / "clone", make_clone)


def make_clone(workspace: Workspace) -> None:
    """Copy what git tracks or would track, but for the reports' pages, into a repository of its own."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        is_page = name.startswith("reports/") and not name.endswith((".csv", ".json", ".yaml"))
        if (ROOT / name).is_file() and not is_page:
            (workspace.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, workspace.path / name)
    workspace.run("git", "init", "--quiet")
    workspace.run("git", "config", "user.name", "A Tester")
    workspace.run("git", "config", "user.email", "tester@example.org")
    workspace.edit("params.yaml", shrink_params)
    for study in (".", "pipelines/data"):  # DVC reads and writes all of a lock for each stage, others' runs too
        (workspace.path / study / "dvc.lock").unlink()
    # without the public weights, which are far away, and with one notebook; tests/notebooks executes them all
    stages = re.sub(r" *- data/weights/.*\n", "", (workspace.path / "dvc.yaml").read_text())
    (workspace.path / "dvc.yaml").write_text(re.sub(r"name: \[00_overview.*\]", "name: [00_overview]", stages))
    workspace.commit("Declare a micro study")


@pytest.fixture(scope="session")
def reproduced(clone, shared) -> Workspace:
    """The clone without the papers' pipelines after its first `dvc repro`, committed; nobody changes it.

    A `dvc repro` beside all pipelines is that of test_bad_params.
    """

    def reproduce(workspace: Workspace) -> None:
        clone.copy(workspace.path)
        workspace.leave_out_pipelines()
        workspace.output = workspace.dvc("repro")
        workspace.commit("Reproduce the micro study")

    return made_once(shared / "reproduced", reproduce)


@pytest.fixture
def workspace(reproduced, tmp_path) -> Workspace:
    """A copy of the reproduced workspace for one test to change."""
    return reproduced.copy(tmp_path / "featherseg")
