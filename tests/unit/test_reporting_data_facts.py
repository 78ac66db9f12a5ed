"""What the overview says of a study's data."""

import pytest
from reporting_project import declare, make_dataset, make_project

from featherseg.core.files import read_json, write_json
from featherseg.data.card import About, write_card
from featherseg.data.facts import read_facts
from featherseg.overview.data_facts import summary
from featherseg.reporting.study import Study


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """One scored run on `lesions`, and one on a pool of two sets of the same pictures, which did not run."""
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, recipes=("clipseg-decoder",), datasets=("lesions",))
    write_card("data/processed/lesions", About("lesions", "drawn for a test"))
    declare("study", "clipseg-decoder", "both")
    declare("study", "clipseg-decoder", "kvasir_seg")
    return Study("study")


def test_every_dataset_has_its_facts(study):
    make_dataset("both")
    lines = summary(study).splitlines()
    assert [line.split("**")[1] for line in lines] == ["both", "kvasir_seg", "lesions"]
    assert read_facts("data/processed/both").pictures == {}  # each picture is in both members, in the same split
    assert "No picture and no group" in lines[0] and "Not prepared here" in lines[1]


def test_leaks_and_what_the_runs_met_are_named_with_numbers(study):
    facts = read_json("data/processed/lesions/facts.json")
    write_json("data/processed/lesions/facts.json", facts | {
        "pictures_in_several_splits": {"train and test": 7}, "groups_in_several_splits": {"train and val": 3}})
    write_json("runs/study/evaluate/clipseg-decoder-lesions-0/metrics.json", {
        "targets": {"test": {"n": 40, "alike": 0, "vanishing": 27}}})
    line = summary(study).splitlines()[-1]
    assert "7 pictures in several splits (train and test: 7)" in line
    assert "3 groups (patients) in several splits (train and val: 3)" in line
    assert "27 of 40 samples of the split test have no pixel left at an input of 64 px" in line
    assert "share their prompt" not in line
