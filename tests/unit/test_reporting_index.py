"""reports/index.html: the root study in one figure, then one line for every page."""

import re
import shutil
from pathlib import Path

import pytest
from live_markup import live_markup, text_of
from reporting_project import make_project

from featherseg.reporting.index import write_index
from featherseg.reporting.page import page


@pytest.fixture
def reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, ("clipseg-decoder", "clipseg-vlsm_dense-vl"), ("lesions",), collected=True)
    for study, name in (("study", "00_overview"), ("study", "40_reliance"), ("another", "00_overview")):
        folder = tmp_path / "reports" / study
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.html").write_text(page(f"{name} of {study}", "", "What it shows. And so on, at length."))
    return tmp_path / "reports"


def test_the_index_opens_with_a_picture_of_the_root_study_that_is_inside(reports):
    text = write_index().read_text()
    assert text.count("<img") == 1 and "src=\"data:image/" in text and live_markup(text) == []
    assert text.index("<img") < text.index("<li>")
    assert write_index().read_text() == text


def test_every_page_has_one_line_with_its_first_sentence_and_tables_have_none(reports):
    text = write_index().read_text()
    lines = [" ".join(text_of(line).split()) for line in re.findall("<li>.*?</li>", text, re.DOTALL)]
    assert lines == ["00_overview of study: What it shows.", "40_reliance of study: What it shows.",
                     "00_overview of another: What it shows."]
    assert 'href="study/results.csv"' in text.rpartition("</ul>")[0].rpartition("</ul>")[2]


def test_a_study_without_results_has_no_picture(reports):
    shutil.rmtree(reports / "study")
    assert "<img" not in write_index().read_text()
    assert Path("reports/index.html").is_file()
