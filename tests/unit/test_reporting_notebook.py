"""Executing notebooks: on this code, with known parameters, all or nothing; and the notebooks in git."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from reporting_project import REPOSITORY

import featherseg
from featherseg.core.errors import UserError
from featherseg.reporting.index import write_index
from featherseg.reporting.notebook import execute
from featherseg.reporting.page import title_and_summary

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def make_project(root: Path, patch: pytest.MonkeyPatch) -> None:
    """An empty project, where we are."""
    patch.chdir(root)
    patch.setenv("FEATHERSEG_CACHE", str(root / "cache"))
    for name in ("dvc.yaml", "params.yaml"):
        (root / name).write_text("")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    make_project(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """A project with a notebook and its page, which nobody changes."""
    root = tmp_path_factory.mktemp("executed")
    with pytest.MonkeyPatch.context() as patch:
        make_project(root, patch)
        write_notebook("fragile", "print('sound')")
        execute("fragile", "study")
    return root


@pytest.fixture
def fragile(executed, project) -> dict[str, bytes]:
    """What the reports of an executed notebook hold."""
    shutil.copytree(executed, project, dirs_exist_ok=True)
    return reports()


def reports() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("reports/study").glob("*.*")}


def write_notebook(name: str, code: str) -> None:
    parameters = new_code_cell('study = "study"', metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell("# A title\n\nOne *line*."), parameters, new_code_cell(code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    Path("notebooks").mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=kernel), f"notebooks/{name}.ipynb")


def test_a_notebook_runs_on_this_code_from_the_root_with_its_study(project, monkeypatch):
    kernel = project / "foreign" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["/bin/false"], "display_name": "foreign", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(project / "foreign"))
    write_notebook("where", "import os, featherseg\n"
                   f"print(featherseg.__file__ == {featherseg.__file__!r}, os.getcwd() == {str(project)!r}, study)")
    page = execute("where", "mine", {})
    text = page.read_text()
    assert page == Path("reports/mine/where.html")
    assert "True True mine" in text
    assert "import os" not in text and "<title>A title</title>" in text
    assert "://" not in text and "<script" not in text
    executed = nbformat.read("reports/mine/where.ipynb", as_version=4)
    assert executed.metadata.kernelspec.name == "python3"
    assert sorted(path.name for path in Path("reports/mine").iterdir()) == ["pictures", "where.html", "where.ipynb"]
    assert list(Path("reports/mine/pictures/where").iterdir()) == []
    index = write_index().read_text()
    assert '<a href="mine/where.html">A title</a>: One *line*.' in index


def test_an_unknown_parameter_is_refused_before_anything_runs():
    write_notebook("sweep", "raise SystemExit")
    with pytest.raises(UserError, match="unknown parameter .* 'studdy': did you mean 'study'"):
        execute("sweep", "study", {"studdy": "x"})
    assert not Path("reports").exists()


def test_an_unknown_notebook_is_named_with_the_known_ones():
    write_notebook("sweep", "")
    with pytest.raises(UserError, match="unknown notebook 'sweeep'.*valid values are sweep"):
        execute("sweeep", "study")


def test_a_failing_cell_is_one_sentence_and_leaves_the_last_report_as_it_was(fragile):
    write_notebook("fragile", "1 / 0")
    with pytest.raises(UserError, match="'fragile' failed in its cell 3: ZeroDivisionError: div") as error:
        execute("fragile", "study")
    partly = Path(str(error.value).partition("notebook is ")[2].rstrip(".)"))
    assert "division by zero" in partly.read_text()
    assert reports() == fragile
    assert len(list(Path("reports/study").iterdir())) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_output_and_no_logic(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) <= 12
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    parameters = [cell.source for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert parameters == ['study = "study"']
    for word in ("def ", "class ", "for ", "while ", "if ", "lambda", "import torch", "pd."):
        assert not any(word in cell.source for cell in code), f"{path.name} holds logic: {word!r}"


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == [
        "00_overview", "10_vlsm_adapter", "20_etris", "30_medvlsm", "40_reliance", "90_audit"]


def test_the_summary_ends_where_the_next_cell_begins(tmp_path):
    cells = [new_markdown_cell("# Title\n\nWhat it shows."), new_markdown_cell("## A heading\n\nMore.")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "page.ipynb")
    assert title_and_summary(tmp_path / "page.ipynb") == ("Title", "What it shows.")


def test_a_kernel_that_dies_is_one_sentence():
    write_notebook("fatal", "import os\nos._exit(1)")
    with pytest.raises(UserError, match="the kernel of notebook 'fatal' died"):
        execute("fatal", "study")
    assert not Path("reports").exists()


def test_no_page_names_a_folder_of_this_machine(project):
    write_notebook("warns", "import os, warnings, featherseg, nbformat\nfrom IPython.display import Markdown\n"
                   "warnings.warn_explicit('careful', UserWarning, nbformat.__file__, 1)\n"
                   "print(featherseg.__file__, os.getcwd())\nMarkdown(f'`{os.path.join(os.getcwd(), \"data\")}`')")
    page = execute("warns", "mine")
    for path in (page, page.with_suffix(".ipynb")):
        text = path.read_text()
        assert "careful" in text and "nbformat/__init__.py" in text and "<code>data" in text or path.suffix == ".ipynb"
        for folder in (project, Path(featherseg.__file__).parents[1], Path(nbformat.__file__).parents[1]):
            assert str(folder) not in text


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"cells": 5}', b'{"nbformat": 4, "cells": [{}]}'])
def test_a_damaged_notebook_is_one_sentence_and_the_last_report_stays(fragile, content):
    Path("notebooks/fragile.ipynb").write_bytes(content)
    with pytest.raises(UserError, match="notebooks/fragile.ipynb is not a Jupyter notebook") as error:
        execute("fragile", "study")
    assert "\n" not in str(error.value) and reports() == fragile


def test_a_page_that_cannot_be_made_leaves_the_last_report_as_it_was(fragile, monkeypatch):
    write_notebook("fragile", "print('another')")
    monkeypatch.setattr("featherseg.reporting.notebook.notebook_page", lambda notebook: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        execute("fragile", "study")
    assert reports() == fragile


def test_the_study_is_no_parameter():
    write_notebook("sweep", "raise SystemExit")
    with pytest.raises(UserError, match="name it by --study"):
        execute("sweep", "study", {"study": 5})
    assert not Path("reports").exists()
