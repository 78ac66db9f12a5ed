"""`dvc exp run`: one changed value, here or in the queue's own workspaces."""

import csv
import io
import json
import time

import pytest

from conftest import BRIDGER, CHECK, DECODER, experiments, ran
from featherseg.config import read_yaml

MINUTES = 60


def test_another_width_trains_exactly_the_runs_that_have_it(workspace):
    done = workspace.dvc("exp", "run", "-S", "adapter.dim=64", "collect")
    assert ran(done) == {CHECK, "plan", f"train@{BRIDGER}", f"evaluate@{BRIDGER}", "collect"}
    with open(workspace.path / "reports/study/runs.csv", encoding="utf-8") as file:
        widths = {(row["run"], row["adapter.dim"]) for row in csv.DictReader(file)}
    assert {(run, width and float(width)) for run, width in widths} == {(DECODER, ""), (BRIDGER, 64.0)}

    shown = workspace.dvc("exp", "show", "--only-changed", "--drop", "runs|reports", "--csv")
    header = next(csv.reader(io.StringIO(shown)))
    changed = {name.removeprefix("params.yaml:") for name in header if name.startswith(("dsc.", "params", "adapter"))}
    assert {"adapter.dim"} <= changed <= {"adapter.dim", "dsc.etris_vit-bridger"}
    assert len(header) < 10


def width_and_version(workspace, commit: str) -> tuple[int, str]:
    """The width of an experiment, and the version of the code that trained its run, from what DVC keeps."""
    lock = workspace.path.parent / "dvc.lock"
    lock.write_text(workspace.run("git", "show", f"{commit}:dvc.lock"))
    stages = read_yaml(lock)["stages"]
    info, = (out["md5"] for out in stages[f"train@{BRIDGER}"]["outs"] if out["path"].endswith(".json"))
    stored = workspace.path / ".dvc/cache/files/md5" / info[:2] / info[2:]
    width = stages["plan"]["params"]["params.yaml"]["adapter"]["dim"]
    return width, json.loads(stored.read_text())["featherseg"]


@pytest.fixture
def queue(workspace):
    """A workspace whose queue is stopped and whose workers have ended when the test is over."""
    yield workspace
    workspace.dvc("queue", "stop", "--kill")


def test_the_queue_runs_each_value_with_the_queued_code(queue):
    version = queue.path / "src/featherseg/__init__.py"
    original = version.read_text()
    version.write_text(original.replace('__version__ = "', '__version__ = "queued-'))
    queue.dvc("exp", "run", "--queue", "-S", "adapter.dim=8,32", f"train@{BRIDGER}")
    version.write_text(original)
    assert experiments(queue) == []

    queue.dvc("queue", "start")
    deadline = time.monotonic() + 5 * MINUTES
    while len(experiments(queue)) < 2:
        assert time.monotonic() < deadline, queue.dvc("queue", "status")
        time.sleep(1)
    found = dict(width_and_version(queue, commit) for commit in experiments(queue))
    assert set(found) == {8, 32}
    assert all(code.startswith("queued-") for code in found.values()), found
    assert queue.run("git", "status", "--porcelain") == ""
