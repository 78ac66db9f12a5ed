"""Free text from files and servers stays text in every page, card and CSV file."""

import csv
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import reporting_project
from IPython.display import Markdown
from live_markup import HOSTILE, live_markup, text_of
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from reporting_project import declare, write_project
from ruamel.yaml import YAML

from featherseg.core.files import write_json, write_status
from featherseg.core.markup import csv_cell, from_csv_cell, html_text, markdown_text, one_line
from featherseg.data.card import About, write_card
from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.overview import gallery, language, runs, scores
from featherseg.papers.etris import table as etris
from featherseg.papers.etris import tuning
from featherseg.papers.vlsm_adapter import table as paper
from featherseg.reliance import page as reliance
from featherseg.reliance import study as reliance_study
from featherseg.reliance.controls import Controls
from featherseg.reliance.measure import Settings, measure
from featherseg.reporting import tables
from featherseg.reporting.collect import collect
from featherseg.reporting.frames import read_runs
from featherseg.reporting.index import write_index
from featherseg.reporting.notebook import to_html
from featherseg.reporting.study import Study

RECIPES = ("clipseg-zero_shot", "clipseg-decoder", "clipseg-vlsm_dense-vl", "etris_vit-bridger")
MEASURED, ABSENT = "clipseg-decoder", "clipseg-lora"


def hostile_dataset(name: str, images: int = 6) -> None:
    """Two blocks an image; targets and prompts hold markup."""
    rng = np.random.default_rng(0)
    with PreparedWriter(Path("data/processed") / name, dataset=name) as writer:
        for k in range(images):
            writer.add_image(f"image{k}", rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
            for place in (0, 20):
                mask = np.zeros((40, 40), bool)
                mask[10 : 20 + k, place + 4 : place + 16] = True
                writer.add_sample(image_id=f"image{k}", target=f"{HOSTILE}{place}", mask=mask, split="test",
                                  prompts={"p1": f"{HOSTILE}{place}", "p2": f"{HOSTILE}{place} of {k}"})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A project in which every free text is hostile: titles, prompts, targets, reasons, weights."""
    root = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(reporting_project, "make_dataset", hostile_dataset)
        patch.setattr(reporting_project, "EMBEDDED", f"weights/{HOSTILE.replace('/', '')}")
        write_project(root, RECIPES, ("lesions",))
        for path in Path("recipes").glob("*.yaml"):
            recipe = YAML(typ="safe").load(path.read_text())
            YAML().dump(recipe | {"title": HOSTILE.replace("\x1b", "") + path.stem}, path)
        declare("study", ABSENT, "lesions")
        write_status(f"runs/study/evaluate/{ABSENT}-lesions-0", HOSTILE)
        collect("study")
    return root


@pytest.fixture
def study(hostile, tmp_path, monkeypatch) -> Study:
    """A study of such a project."""
    shutil.copytree(hostile, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Study("study")


def rendered(*outputs) -> str:
    """The page of a notebook that displayed these objects, and whose prose is hostile too."""
    cell = new_code_cell("")
    for shown in outputs:
        data = {"text/markdown": shown.data} if isinstance(shown, Markdown) else {"text/html": shown.to_html()}
        cell.outputs.append(new_output("display_data", data))
    Path("reports/study").mkdir(parents=True, exist_ok=True)
    path = Path("reports/study/hostile.ipynb")
    nbformat.write(new_notebook(cells=[new_markdown_cell(f"# {HOSTILE}\n\n{HOSTILE}"), cell]), path)
    return to_html(path).read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [runs.table, scores.table, language.table, paper.table_1, paper.gains,
                                   paper.positions, tuning.tuning, etris.main_table])
def test_tables_show_markup_as_text(study, table):
    frame = table(study)
    frame.columns = [f"{name}<b>" for name in frame.columns]
    shown = tables.show(frame, HOSTILE).to_html()
    assert live_markup(shown) == []
    assert "<script>alert(1)</script>" in text_of(shown) and "\x1b" not in shown and "\u202e" not in shown


def test_the_pages_of_a_study_run_nothing(study):
    heading, *_ = gallery.gallery(study)
    page = rendered(Markdown(scores.verdict(study)), heading, tables.show(scores.table(study)),
                    Markdown(f"**{HOSTILE}**\n\n{HOSTILE}\n\n<div onclick=alert(4)>x</div>"))
    assert live_markup(page) == []
    assert "<script>alert(1)</script>" in text_of(page) and "Content-Security-Policy" in page
    assert live_markup(write_index().read_text()) == []


def test_a_policy_stands_in_every_page_before_anything_else_can():
    from featherseg.reporting.page import POLICY, page

    text = page("x", "<script>alert(1)</script>")
    assert "default-src 'none'" in POLICY and "script-src" not in POLICY
    assert text.index(POLICY) < text.index("<title>")


def test_the_page_on_reliance_runs_nothing(study):
    data = PreparedDataset.read("data/processed/lesions")
    segment = Controls(data, data.samples, "fullest").segments()["oracle"]
    trials, record = measure(segment, data, data.samples, Settings(draws=50), model=HOSTILE, data=HOSTILE)
    page = reliance.report(record, trials, data)
    assert live_markup(page) == [] and "<script>alert(1)</script>" in text_of(page)
    run = f"{MEASURED}-lesions-0"
    trials.to_parquet(study.evaluate(run) / "reliance.parquet")
    write_json(study.evaluate(run) / "reliance.json", {"test": record})
    texts = [shown for shown in (*reliance_study.decisions(study), *reliance_study.gallery(study))
             if hasattr(shown, "to_html") or isinstance(shown, Markdown)]
    page = rendered(Markdown(reliance_study.answer(study)), *texts)
    assert live_markup(page) == [] and "<script>alert(1)</script>" in text_of(page)


def test_a_card_runs_nothing_and_keeps_its_tables(study):
    about = About(HOSTILE, HOSTILE, HOSTILE, HOSTILE, (HOSTILE, f"# {HOSTILE}"))
    write_card(Path("data/processed/lesions"), about)
    text = Path("data/processed/lesions/card.md").read_text(encoding="utf-8")
    page = rendered(Markdown(text))
    assert live_markup(page) == [] and page.count("<table") == 2
    assert "<script" not in text and "\x1b" not in text
    assert "[a](javascript:alert(3))" in text_of(page)


def test_a_spreadsheet_runs_no_cell_and_the_text_comes_back(study):
    with open("reports/study/runs.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    named = ("reason", "model.weights", "recipe", "title", "dataset")
    texts = {value for row in rows for name, value in row.items() if name in named}
    assert any(text.startswith("'=1+1<script>") for text in texts)
    assert not [text for text in texts if text.lstrip().startswith(("=", "+", "-", "@"))]
    reasons = set(read_runs(Path("reports/study/runs.csv")).reason)
    assert one_line(HOSTILE) in reasons


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r@a", " =1", "a=1", "'a", "", "-"])
def test_what_a_spreadsheet_would_run_is_guarded(text):
    cell = csv_cell(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert from_csv_cell(cell) == one_line(text)


def test_numbers_are_no_text():
    frame = pd.DataFrame({"mean": [-1.5, None], "n": [-3, 4]})
    assert frame.map(csv_cell).to_csv() == frame.to_csv()


@pytest.mark.parametrize("text", [
    "# a", "- a", "+ a", "1. a", "3) a", "a | b", "**a** _a_ `a`", "[a](b)", "![a](b)", "~~a~~", "&lt;", "a\nb",
    "kvasir_seg", "\\*", "$a$ $b$", "<b>a</b>", "---", "=== "])
def test_text_in_markdown_is_shown_as_it_is(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    page = rendered(Markdown(markdown_text(text)))
    shown = text_of(page.partition("output")[2])
    assert one_line(text).strip() in shown
    assert markdown_text("kvasir_seg 12.5 % (a, b)") == "kvasir_seg 12.5 % (a, b)"


def test_control_characters_are_named():
    assert one_line("a\x1b[31m\tb\u2028c\u202ed") == "a\\x1b[31m b c\\u202ed"
    assert html_text("é 左 😀 \u200d") == "é 左 😀 \u200d"


def test_an_executed_notebook_in_another_folder_is_linked(study, tmp_path):
    folder = Path("reports/a#b & c")
    folder.mkdir(parents=True)
    shutil.copy("reports/study/results.csv", folder / "results.csv")
    index = write_index().read_text()
    assert live_markup(index) == [] and 'href="a%23b%20%26%20c/results.csv"' in index
