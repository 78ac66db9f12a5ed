"""The notebooks in git, run on a small project with fabricated scores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from reporting_project import REPOSITORY, make_project

from featherseg.reporting.collect import collect
from featherseg.reporting.notebook import execute


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    make_project(tmp_path, ("clipseg-zero_shot", "clipseg-decoder", "clipseg-vlsm_dense-vl"))
    collect("study")
    return tmp_path


def test_notebooks_opened_by_hand_run(project):
    """nbmake executes each from its own folder, as JupyterLab does."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider", "notebooks"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=project)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "3 passed" in done.stdout


def test_the_overviews_page_holds_tables_figures_and_pictures(project):
    page = Path(execute("00_overview", "study")).read_text()
    assert page.count("<table") == 3
    assert page.count("data:image/png") == 3 and page.count("data:image/jpeg") == 2
    assert "synthetic stand-in" in page and "Traceback" not in page
