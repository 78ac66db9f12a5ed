"""The notebooks in git, run on a small project with fabricated scores."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from live_markup import live_markup
from reporting_project import REPOSITORY, make_project, write_project

from featherseg.reporting.collect import collect
from featherseg.reporting.notebook import execute


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """A project with a collected study, which nobody changes."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_project(root, ("clipseg-zero_shot", "clipseg-decoder", "clipseg-vlsm_dense-vl", "etris_vit-bridger"))
        make_project(root, ("etris_vit-decoder", "etris_vit-bridger"), ("scenes_ref",))
        collect("study")
    return root


@pytest.fixture
def project(collected, tmp_path, monkeypatch):
    """A copy of the project, where we are."""
    monkeypatch.chdir(shutil.copytree(collected, tmp_path / "project"))
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "project"


def beginning(notebook: Path) -> str:
    """The parameters of a notebook, and how it opens its study."""
    parameters, imports = [cell.source for cell in nbformat.read(notebook, as_version=4).cells
                           if cell.cell_type == "code"][:2]
    opening = [line for line in imports.splitlines() if line.startswith(("study", "style"))]
    return "\n".join([parameters, *opening])


def test_a_notebook_opened_by_hand_runs(project):
    """nbmake executes it from its own folder, as JupyterLab does.

    All open their study alike, so one stands for those that are executed elsewhere.
    """
    assert len({beginning(notebook) for notebook in Path("notebooks").glob("*.ipynb")}) == 1
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
    notebook = Path("notebooks/40_reliance.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider", str(notebook)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=project)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "1 passed" in done.stdout


def test_every_notebook_is_executed_by_a_test():
    """Here, or as a stage of the root study, which tests/pipeline reproduces."""
    names = {notebook.stem for notebook in (REPOSITORY / "notebooks").glob("*.ipynb")}
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    text = Path(__file__).read_text()
    elsewhere = names - set(stages["notebook"]["matrix"]["name"])
    assert [name for name in elsewhere if f'"{name}"' not in text] == []


def test_the_overviews_page_holds_tables_figures_and_pictures(project):
    page = Path(execute("00_overview", "study")).read_text()
    assert page.count("<table") == 4 and "Not prepared here" in page
    assert live_markup(page) == []
    assert page.count("data:image/webp") == 6
    assert "synthetic stand-in" in page and "Traceback" not in page


def test_etris_page_shows_masks_that_the_sentence_decides_and_names_every_measure(project):
    page = Path(execute("20_etris", "study")).read_text()
    assert page.count("<table") == 12 and page.count("data:image/") == 2
    assert len(re.findall("rows not run[^<]*</summary>", page)) == 4
    assert page.count("<details>") == page.count("<details") > 4, "some are open"
    for name in ("mIoU at 0.35, all sentences", "oIoU at 0.5, all sentences", "first sentence", "P@0.9"):
        assert name in page
    assert "Traceback" not in page and "not run: no ETRIS on" in page and "not run: no DETRIS on" in page


def test_medvlsms_page_has_table_2_the_regimes_and_where_the_grid_of_levels_stands(project):
    make_project(project, ("clipseg-zero_shot", "clipseg-decoder", "unet-full"), ("both", "lesions_to_organs"))
    collect("study")
    page = Path(execute("30_medvlsm", "study")).read_text()
    assert page.count("<table") >= 6 and page.count("data:image/") == 2
    for said in ("pooled: both", "published: github", "no such run in study", "reports/prompt_levels/40_reliance.html"):
        assert said in page
    assert "Traceback" not in page


def test_the_page_on_reliance_shows_the_controls_even_where_no_run_was_measured(project):
    page = Path(execute("40_reliance", "study")).read_text()
    assert page.count("<table") == 3 and page.count("data:image/") == 6
    for said in ("evaluate.reliance", "image only", "language only", "synthetic stand-in",
                 "reports/prompt_levels"):
        assert said in page
    assert "Traceback" not in page


def test_pictures_of_an_own_folder_are_in_the_page_only_where_they_may_be_published(project):
    shutil.rmtree("runs/study/plan")
    write_project(project, ("clipseg-decoder",), ("clinic", "ward"))
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("{clinic: {path: clinic}}",
                                                 "{clinic: {path: clinic}, ward: {path: ward, public: true}}"))
    collect("study")
    page = Path(execute("00_overview", "study"))
    folder, link = Path("reports/study/pictures/00_overview"), 'src="pictures/00_overview/'
    cells = nbformat.read(page.with_suffix(".ipynb"), as_version=4).cells
    displayed = [data for cell in cells for output in cell.get("outputs", []) for data in [output.get("data", {})]]
    assert sum("image/jpeg" in data for data in displayed) == 1, "the public folder's"
    assert link in page.with_suffix(".ipynb").read_text().replace('\\"', '"')
    embedded = sum(kind.startswith("image/") for data in displayed for kind in data)
    assert page.read_text().count(link) == 1 and page.read_text().count("data:image/") == embedded
    assert [file.name for file in folder.glob("predictions-*")] == ["predictions-clinic.jpg"]
    assert live_markup(page.read_text()) == [] and "file:" in page.read_text(), "for the folder that is linked"
    shutil.copy(REPOSITORY / ".gitignore", ".gitignore")
    subprocess.run(["git", "init", "--quiet"], check=True)
    added = subprocess.run(["git", "add", "--dry-run", "reports"], capture_output=True, text=True, check=True).stdout
    assert "00_overview.html" in added and "pictures" not in added
