"""Published beside made: a difference is shown only where data and weights are the paper's, as the records say."""

import json

import pandas as pd
import pytest
from reporting_project import declare, make_project, make_run, scored_run

from featherseg.core.files import read_json, write_json
from featherseg.papers.detris import table as detris
from featherseg.papers.medvlsm import table as medvlsm
from featherseg.papers.vlsm_adapter import table as vlsm_adapter
from featherseg.reporting import beside
from featherseg.reporting.collect import collect
from featherseg.reporting.records import data_kinds, weights_label, weights_record
from featherseg.reporting.study import Study

SMALL = "pipelines/pretrain/weights/clipseg-small"
PUBLIC = "data/weights/clipseg-rd64-refined"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def collected(root, recipe: str, dataset: str, weights: str) -> Study:
    """A study of one run with these weights."""
    make_project(root, (recipe,), (dataset,))
    declare("study", recipe, dataset, weights=weights)
    collect("study")
    return Study("study")


def here(frame: pd.DataFrame, dataset: str, title: str) -> str:
    """What was made here on a dataset, in the first line that has it."""
    lines = frame[(frame.dataset == dataset) & (frame[""] == "here")]
    return lines[title].iloc[0]


@pytest.mark.parametrize(("weights", "shown"), [(PUBLIC, True), (SMALL, False), ("random", False), ("my/own", False)])
def test_medvlsms_table_compares_runs_with_the_papers_weights_alone(project, weights, shown):
    study = collected(project, "clipseg-decoder", "kvasir_seg", weights)
    dsc = study.results[(study.results.text_condition == "own") & (study.results.metric == "dsc")]["mean"].item()
    difference = f" ({100 * dsc - 89.51:+.2f})" if shown else ""
    assert here(medvlsm.table_2(study), "kvasir_seg", "CLIPSeg") == f"{100 * dsc:.2f}{difference}"


@pytest.mark.parametrize(("weights", "shown"), [("data/weights/detris-b", True), ("random", False)])
def test_weights_assembled_from_the_papers_parts_are_the_papers(project, weights, shown):
    study = collected(project, "detris_b-dense_aligner", "refcoco", weights)
    assert ("(" in here(detris.main_table(study), "refcoco", "DETRIS-B")) == shown


def test_biomedclipseg_d_with_its_assembled_weights_is_comparable():
    runs = pd.DataFrame([{"data_kind": "official", "weights_kind": kind} for kind in ("assembled", "public")])
    assert beside.difference(runs, 85.0, 80.0) == 5.0
    model = make_run("study", "clipseg-decoder", "kvasir_seg").model
    record = weights_record(model.model_copy(update={"weights": "data/weights/biomedclipseg-d"}))
    assert record["weights.kind"] == "assembled" and record["weights.parts"] == "biomedclip+clipseg-rd64-refined"


def test_labels_say_what_weights_are_made_of_and_which_images_are_the_projects_own(project):
    assert weights_label("assembled", "dino-clipseg", "ab" * 32, "dinov2-s14-focus+minilm-l6") == (
        "dino-clipseg (dinov2-s14-focus and minilm-l6, sha256 abababababab)")
    assert weights_label("small", "clipseg-small", "ab" * 32, "") == (
        "clipseg-small (small stand-in, sha256 abababababab)")
    folders = {"polyp": {"path": "data/embedded/polyp"}, "clinic": {"path": "clinic"}}
    (project / "params.yaml").write_text(json.dumps({
        "study": {"datasets": [], "recipes": [], "seeds": []},
        "data": {"folders": folders, "pooled": {"both": {"train": ["polyp"], "test": ["clinic", "polyp"]}}}}))
    assert {name: data_kinds(name) for name in ("polyp", "clinic", "both", "busi")} == {
        "polyp": ["embedded"], "clinic": ["own"], "both": ["own", "embedded"], "busi": ["official"]}


def test_a_folder_that_is_called_like_public_weights_is_not_them(project):
    study = collected(project, "clipseg-decoder", "kvasir_seg", "mine/clipseg-rd64-refined")
    assert study.results.weights_kind.unique() == ["own"]
    assert "(" not in here(vlsm_adapter.table_1(study), "kvasir_seg", "CLIPSeg end-to-end")
    assert "(" not in here(medvlsm.table_2(study), "kvasir_seg", "CLIPSeg")


@pytest.mark.parametrize(("recorded", "kind"), [("ab" * 32, "public"), ("cd" * 32, "own")])
def test_public_weights_that_changed_since_their_download_are_not_the_papers(project, recorded, kind):
    write_json("data/checksums.json", {"weights/clipseg-rd64-refined/model.safetensors": recorded})
    assert collected(project, "clipseg-decoder", "kvasir_seg", PUBLIC).results.weights_kind.unique() == [kind]


def test_on_other_data_nothing_is_compared(project):
    study = collected(project, "clipseg-decoder", "endoscopy", PUBLIC)
    assert "(" in here(medvlsm.table_2(study), "etis", "CLIPSeg")
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("folders: {clinic", "folders: {etis: {path: etis}, clinic").replace(
        "official: [kvasir_seg, clinicdb, busi, etis]", "official: [kvasir_seg, clinicdb, busi]"))
    collect("study")
    assert "(" not in here(medvlsm.table_2(Study("study")), "etis", "CLIPSeg")


def test_one_run_with_other_weights_spoils_the_comparison(project):
    make_project(project, ("clipseg-decoder",), ("kvasir_seg",))
    declare("study", "clipseg-decoder", "kvasir_seg", seed=1)
    scored_run("study", "clipseg-decoder", "kvasir_seg", seed=1)
    collect("study")
    assert "(" in here(vlsm_adapter.table_1(Study("study")), "kvasir_seg", "CLIPSeg end-to-end")
    declare("study", "clipseg-decoder", "kvasir_seg", seed=1, weights=SMALL)
    collect("study")
    assert "(" not in here(vlsm_adapter.table_1(Study("study")), "kvasir_seg", "CLIPSeg end-to-end")


def test_what_a_run_is_comes_from_its_record_and_not_from_its_name(project):
    make_project(project, ("clipseg-decoder",), ("kvasir_seg",))
    path = project / "runs/study/plan/recipes.json"
    write_json(path, read_json(path) | {"clipseg-decoder": {"title": "as released", "published": ["loss"]}})
    collect("study")
    rows = Study("study").results
    assert rows.released.all() and set(rows.title) == {"as released"} and set(rows.published) == {"loss"}
