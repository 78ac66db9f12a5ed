"""`dvc exp run`: one changed value, in the queue's own workspace."""

import csv
import io
import time

import pytest

from conftest import BRIDGER, CHECK, DECODER, experiments, ran

MINUTES = 60


@pytest.fixture
def queue(workspace):
    """A workspace whose queue is stopped and whose workers have ended when the test is over."""
    yield workspace
    workspace.dvc("queue", "stop", "--kill")


def finished(workspace) -> str:
    """The commit of the one queued experiment, once it has ended."""
    deadline = time.monotonic() + 5 * MINUTES
    while not experiments(workspace):
        assert time.monotonic() < deadline, workspace.dvc("queue", "status")
        time.sleep(0.2)
    commit, = experiments(workspace)
    return commit


def test_the_queue_runs_what_another_width_reaches_with_the_queued_code(queue):
    writer = queue.path / "src/featherseg/core/provenance.py"  # whose code decides no number
    original = writer.read_text()
    queue.append("src/featherseg/core/provenance.py", "\n__version__ = 'queued'\n")
    queue.dvc("exp", "run", "--queue", "--name", "wide", "-S", "adapter.dim=64", "collect")
    writer.write_text(original)
    assert experiments(queue) == []

    queue.dvc("queue", "start")
    commit = finished(queue)
    assert ran(queue.dvc("queue", "logs", "wide")) == {
        "code", CHECK, "plan", f"train@{BRIDGER}", f"evaluate@{BRIDGER}", "collect"}
    rows = list(csv.DictReader(queue.run("git", "show", f"{commit}:reports/study/runs.csv").splitlines()))
    assert {(row["run"], row["adapter.dim"] and float(row["adapter.dim"])) for row in rows} == {
        (DECODER, ""), (BRIDGER, 64.0)}
    assert {row["run"]: row["featherseg"] for row in rows}[BRIDGER] == "queued"
    assert queue.run("git", "status", "--porcelain") == ""

    shown = queue.dvc("exp", "show", "--only-changed", "--drop", "runs|reports", "--csv")
    header = next(csv.reader(io.StringIO(shown)))
    changed = {name.removeprefix("params.yaml:") for name in header if name.startswith(("dsc.", "params", "adapter"))}
    assert {"adapter.dim"} <= changed <= {"adapter.dim", "dsc.etris_vit-bridger"}
    assert len(header) < 10
