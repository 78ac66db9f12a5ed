"""Training through DVC, killed and resumed: the end is the same to the last bit."""

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from conftest import DENSE, Workspace

EPOCHS, MINUTES = 24, 60
TRAIN = ("dvc", "repro", "--single-item", "--no-run-cache", f"train@{DENSE}")
OUTPUT = Path("runs/study/train") / DENSE


def trainer_of(dvc: subprocess.Popen) -> psutil.Process:
    return next(process for process in psutil.Process(dvc.pid).children(recursive=True)
                if process.cmdline()[1:4] == ["-m", "featherseg", "train"])


def kill_trainer(dvc: subprocess.Popen) -> None:
    trainer_of(dvc).kill()


def kill_dvc(dvc: subprocess.Popen) -> None:
    dvc.kill()


def kill_group(dvc: subprocess.Popen) -> None:
    os.killpg(dvc.pid, signal.SIGKILL)


KILLS = {"dvc": kill_dvc, "trainer": kill_trainer, "group": kill_group}


def saved_states(workspace: Workspace) -> list[Path]:
    return list((workspace.path / ".cache/resume").glob("*/state.pt"))


def train_killed(workspace: Workspace, kill) -> None:
    """Start the stage, kill in the middle of training, and start it again."""
    assert saved_states(workspace) == []
    with subprocess.Popen(**workspace.command(*TRAIN), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          start_new_session=True) as dvc:
        deadline = time.monotonic() + 5 * MINUTES
        while not saved_states(workspace):
            assert dvc.poll() is None, dvc.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        kill(dvc)
        assert not (workspace.path / OUTPUT).exists()
    workspace.run(*TRAIN)


@pytest.fixture(scope="module")
def trained(reproduced, tmp_path_factory) -> dict[str, Workspace]:
    """Workspaces after the same training: one undisturbed, the others killed once, two at a time."""
    base = reproduced.copy(tmp_path_factory.mktemp("base") / "featherseg")
    base.edit("params.yaml", lambda params: params["train"].update(epochs=EPOCHS, early_stop_patience=EPOCHS))
    base.dvc("repro", "plan")
    copies = {name: base.copy(tmp_path_factory.mktemp(name) / "featherseg") for name in ("undisturbed", *KILLS)}
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(copies["undisturbed"].run, *TRAIN)]
        jobs += [pool.submit(train_killed, copies[name], kill) for name, kill in KILLS.items()]
        for job in jobs:
            job.result()
    return copies


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_training_ends_bit_equal(trained, name):
    expected, found = (trained[which].path / OUTPUT for which in ("undisturbed", name))
    assert sorted(path.name for path in found.iterdir()) == ["checkpoint.safetensors", "history.csv", "status.json"]
    assert len((found / "history.csv").read_text().splitlines()) == 1 + EPOCHS
    for file in expected.iterdir():
        assert (found / file.name).read_bytes() == file.read_bytes(), file.name
    assert saved_states(trained[name]) == []


@pytest.mark.parametrize("name", ["trainer", "group"])
def test_it_went_on_after_the_last_finished_epoch(trained, name):
    info = json.loads((trained[name].path / f"runs/study/info/{DENSE}.json").read_text())
    assert 1 <= info["resumed_after_epoch"] < EPOCHS
