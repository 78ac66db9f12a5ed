"""One thread for each test process, since the tests' models are tiny and cores may be shared; and no waiting for disks.
"""

import gc
import os
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
# nbformat's jsonschema would compile grammars for two seconds in each process, of which no notebook needs one
sys.modules.setdefault("rfc3987_syntax", None)


# The slowest, in the order in which processes take them: test_repro.py makes the workspace that the pipeline's tests
# share, while others test what needs none.
FIRST = ("test_repro.py", "test_notebooks.py", "test_not_run.py", "test_engine.py", "test_experiments.py",
         "test_kill_and_resume.py", "test_toy_task.py", "test_resume.py", "test_check.py")


def pytest_collection_modifyitems(items):
    """The slowest files come first, so that none of them is left for the end."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(FIRST)))


def pytest_collection_finish():
    """The libraries' objects stay until the end; the garbage collector need not look at them again and again."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """With `-n auto` one process more than there are processors: tests wait for subprocesses, locks and each other."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch):
    """What tests write need not survive one, and thousands of small files would wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "sync", lambda: None)
