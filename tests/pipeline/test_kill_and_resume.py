"""Training through DVC, killed and resumed: the end is the same to the last bit."""

import functools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from conftest import BRIDGER, EPOCHS, Workspace, experiments
from featherseg.config import read_yaml

MINUTES = 60
TRAIN = ("dvc", "repro", "--force", "--single-item", f"train@{BRIDGER}")
EXPERIMENT = ("dvc", "exp", "run", "--temp", "--force", "--single-item", f"train@{BRIDGER}")
OUTPUT = Path("runs/study/train") / BRIDGER


def trainer_of(dvc: subprocess.Popen) -> psutil.Process:
    return next(process for process in psutil.Process(dvc.pid).children(recursive=True)
                if process.cmdline()[1:4] == ["-m", "featherseg", "train"])


def kill_trainer(dvc: subprocess.Popen) -> None:
    trainer_of(dvc).kill()


def kill_dvc(dvc: subprocess.Popen) -> None:
    dvc.kill()


def kill_dvc_and_let_the_trainer_finish(dvc: subprocess.Popen) -> None:
    trainer = trainer_of(dvc)
    dvc.kill()
    psutil.wait_procs([trainer], timeout=5 * MINUTES)


def kill_group(dvc: subprocess.Popen) -> None:
    os.killpg(dvc.pid, signal.SIGKILL)


KILLS = {"dvc": (TRAIN, kill_dvc), "dvc alone": (TRAIN, kill_dvc_and_let_the_trainer_finish),
         "trainer": (TRAIN, kill_trainer), "group": (TRAIN, kill_group), "experiment": (EXPERIMENT, kill_group)}
# what the trainer does then is tested by every run of unit/test_resume.py: the second one waits for the first one and
# takes its output over, or goes on where it was killed; "experiment" kills the group in a workspace of DVC's own
SLOW = {"dvc", "dvc alone", "trainer", "group"}


def kills(*names: str) -> list:
    """Parameters of a test, those of `SLOW` marked."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in names]


def saved_states(workspace: Workspace) -> list[Path]:
    return list((workspace.path / ".cache/resume").glob("*/state.pt"))


def train_killed(workspace: Workspace, command: tuple[str, ...], kill: Callable[[subprocess.Popen], None]) -> str:
    """Start a command, kill in the middle of training, and start it again; returns what that printed."""
    assert saved_states(workspace) == []
    with subprocess.Popen(**workspace.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          start_new_session=True) as dvc:
        deadline = time.monotonic() + 5 * MINUTES
        while not saved_states(workspace):
            assert dvc.poll() is None, dvc.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        kill(dvc)
    workspace.cold = False
    return workspace.run(*command)


@pytest.fixture(scope="module")
def trained(reproduced, tmp_path_factory) -> Callable[[str], Workspace]:
    """Gives the workspace after a second training that was killed once in one of the ways of `KILLS`."""

    @functools.cache
    def workspace(name: str) -> Workspace:
        copy = reproduced.copy(tmp_path_factory.mktemp(name) / "featherseg")
        copy.cold = True  # what is killed is what a user starts; what goes on may start at once
        copy.output = train_killed(copy, *KILLS[name])
        return copy

    return workspace


@pytest.mark.parametrize("name", kills("dvc", "dvc alone", "trainer", "group"))
def test_a_killed_training_ends_bit_equal(reproduced, trained, name):
    expected, found = (workspace.path / OUTPUT for workspace in (reproduced, trained(name)))
    assert sorted(path.name for path in found.iterdir()) == ["checkpoint.safetensors", "history.csv", "status.json"]
    assert len((found / "history.csv").read_text().splitlines()) == 1 + EPOCHS
    for file in expected.iterdir():
        assert (found / file.name).read_bytes() == file.read_bytes(), file.name
    assert saved_states(trained(name)) == []


@pytest.mark.parametrize("name", kills("trainer", "group"))
def test_it_went_on_after_the_last_finished_epoch(trained, name):
    info = json.loads((trained(name).path / f"runs/study/info/{BRIDGER}.json").read_text())
    assert 1 <= info["resumed_after_epoch"] < EPOCHS


@pytest.mark.slow  # test_a_finished_training_whose_outputs_dvc_deleted_is_taken_over of unit/test_resume.py
def test_what_finished_after_dvc_was_killed_is_not_trained_again(trained):
    assert "is finished already" in trained("dvc alone").output


def recorded(lock: Path) -> dict[str, str]:
    """Hashes of the training's outputs in a dvc.lock, by path."""
    return {out["path"]: out["md5"] for out in read_yaml(lock)["stages"][f"train@{BRIDGER}"]["outs"]}


def test_a_killed_experiment_goes_on_and_ends_bit_equal(reproduced, trained, tmp_path):
    done = trained("experiment")
    [commit] = experiments(done)
    (tmp_path / "dvc.lock").write_text(done.run("git", "show", f"{commit}:dvc.lock"))
    found, expected = recorded(tmp_path / "dvc.lock"), recorded(reproduced.path / "dvc.lock")
    assert found[str(OUTPUT)] == expected[str(OUTPUT)]
    assert "going on after epoch" in done.output
    assert saved_states(done) == []
