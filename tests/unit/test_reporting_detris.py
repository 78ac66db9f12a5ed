"""DETRIS's tables: published beside made here, and counts beside the released code's."""

import pytest
from reporting_project import declare, make_project

from featherseg.core.files import write_status
from featherseg.papers.detris import published
from featherseg.papers.detris import table as detris
from featherseg.papers.etris import tuning
from featherseg.reporting.collect import collect
from featherseg.reporting.study import Study

RECIPES = ("detris_b-dense_aligner", "detris_b-decoder")


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, RECIPES, ("refcoco",))
    declare("study", RECIPES[0], "refcoco_plus")
    write_status(f"runs/study/evaluate/{RECIPES[0]}-refcoco_plus-0", "no weights here")
    collect("study")
    return Study("study")


def test_published_numbers_stand_above_what_was_made_with_the_distance(study):
    frame = detris.main_table(study)
    assert list(frame.columns[4:6]) == ["DETRIS-B", "DETRIS-L"]
    lines = frame[(frame.dataset == "refcoco") & (frame.split == "testB")].reset_index(drop=True)
    assert list(lines[""]) == ["published"] + ["here"] * 3
    assert lines["DETRIS-B"][0] == "73.50" and lines["DETRIS-L"][0] == "75.20"
    own = study.every_result
    own = own[(own.recipe == RECIPES[0]) & (own.split == "testB") & (own.sentences == "all")
              & (own.dataset == "refcoco") & (own.threshold == 0.35) & (own.metric == "mIoU")]
    ours = 100 * own["mean"].item()
    assert lines["DETRIS-B"][1] == f"{ours:.2f} ({ours - 73.5:+.2f})" and set(lines["DETRIS-L"][1:]) == {"not run"}
    assert lines["where from"][0].startswith("published: github:jiaqihuang01/DETRIS")


def test_what_was_not_made_says_why(study):
    frame = detris.main_table(study)
    here = frame[frame[""] == "here"]
    assert set(here["where from"][here.dataset == "refcoco_plus"]) == {"not run: no weights here"}
    assert here["where from"][here.dataset == "refcocog_google"].item() == (
        "not run: no DETRIS on 'refcocog_google' in study 'study'")
    published = frame[frame[""] == "published"]
    assert len(published) == 9 and (published[["DETRIS-B", "DETRIS-L"]] != "not verified").all(axis=None)


def test_head_only_and_the_adapters_stand_among_the_tuning_methods(study):
    frame = tuning.tuning(study).set_index("method")
    assert frame.loc["DETRIS-B", "beyond the head"].dropna().item() == 980_000 - 905_000
    assert frame.loc["DETRIS-B, head only", "beyond the head"] == 0


def test_parameters_stand_beside_the_released_codes():
    assert published.shares() == (0.9, 1.8)
    frame = detris.parameters().set_index("model")
    assert list(frame.equal) == ["yes", "yes"]
    assert frame.loc["DETRIS-B", "Dense Aligners"] == 2_297_376 and frame.loc["DETRIS-L", "head"] == 23_195_649
    shares = frame["% of the backbone"]
    assert shares["DETRIS-B"] == pytest.approx(1.8136, abs=1e-4)
    assert shares["DETRIS-L"] == pytest.approx(0.8465, abs=1e-4)
