"""Pinned arithmetic: what is set, when, and what a run records of it."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from featherseg.cli import main
from featherseg.core.arithmetic import PINNED, SWITCH, pin
from featherseg.core.errors import UserError

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def environment(monkeypatch):
    """An environment with other settings, in a process that has not imported torch."""
    for name in PINNED:
        monkeypatch.setenv(name, "other")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return monkeypatch


def settings() -> dict[str, str]:
    return {name: os.environ[name] for name in PINNED}


@pytest.mark.parametrize("switch", ["", "0"])
def test_nothing_is_set_without_the_switch(environment, switch):
    environment.setenv(SWITCH, switch)
    pin()
    assert set(settings().values()) == {"other"}


def test_the_switch_sets_everything(environment):
    environment.setenv(SWITCH, "1")
    pin()
    assert settings() == PINNED


def test_another_switch_is_refused(environment):
    environment.setenv(SWITCH, "yes")
    with pytest.raises(UserError, match="FEATHERSEG_PINNED is 'yes'; valid values are 0 and 1"):
        pin()


def test_after_torch_it_is_too_late_and_the_command_says_so(environment, capsys):
    environment.setitem(sys.modules, "torch", object())
    environment.setenv(SWITCH, "1")
    with pytest.raises(SystemExit) as ended:
        main(["index"])
    assert "FEATHERSEG_PINNED=1 comes too late" in str(ended.value.code)
    for name, value in PINNED.items():
        environment.setenv(name, value)
    pin()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction sets are those of x86-64")
def test_a_run_records_what_was_set():
    code = ("import json; from featherseg.core.arithmetic import pin; pin();"
            "from featherseg.core.provenance import provenance; print(json.dumps(provenance()))")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), SWITCH: "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    recorded = json.loads(done.stdout)
    assert recorded["arithmetic"] == {"instructions": "AVX2", "pinned": PINNED}
    assert recorded["threads"] == int(PINNED["OMP_NUM_THREADS"])
