"""One thread for each test process, since the tests' models are tiny and cores may be shared; and no waiting for disks.
"""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """The workspace that the pipeline's tests share is made first, while another process tests what needs none."""
    items.sort(key=lambda item: item.path.name != "test_repro.py")


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch):
    """What tests write need not survive one, and thousands of small files would wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "sync", lambda: None)
