"""MedVLSM's tables: the regime of a run, published beside made here, and what was tested elsewhere."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from reporting_project import REPOSITORY, declare, make_project, measured, rescore

from featherseg.config import Params, PoolParams, parse, read_run, read_yaml, write_run
from featherseg.core.files import write_status
from featherseg.papers.medvlsm import figures, published
from featherseg.papers.medvlsm import table as medvlsm
from featherseg.reporting import tables
from featherseg.reporting.collect import collect
from featherseg.reporting.records import DATA_LABELS
from featherseg.reporting.study import Study

STAND_IN = DATA_LABELS["synthetic"]
RECIPES = ("clipseg-zero_shot", "clipseg-decoder", "unet-full")
DATASETS = ("kvasir_seg", "endoscopy", "all_but_endoscopy", "kvasir_seg_to_endoscopy", "lesions", "both",
            "lesions_to_organs")
NOT_RUN = "CRIS has no open address."


def read_params_of_the_project() -> Params:
    return parse(Params, read_yaml(REPOSITORY / "params.yaml"), "params.yaml")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A study of every regime, in which CRIS was not run."""
    root = tmp_path_factory.mktemp("medvlsm")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_project(root, RECIPES, DATASETS)
        make_project(root, ("clipseg-decoder-medvlsm-published",), ("kvasir_seg",))
        for dataset in ("kvasir_seg", "endoscopy"):
            declare("study", "cris-full-medvlsm", dataset)
            write_status(f"runs/study/evaluate/cris-full-medvlsm-{dataset}-0", NOT_RUN)
        collect("study")
    return root


@pytest.fixture
def study(made, monkeypatch) -> Study:
    monkeypatch.chdir(made)
    return Study("study")


@pytest.fixture
def copied(made, tmp_path, monkeypatch) -> Study:
    """The same study, to be changed."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Study("study")


def mean_of(run: str, dataset: str) -> float:
    member = "" if run.endswith(f"-{dataset}-0") else dataset
    return 100 * measured(run, "dsc", member=member).value


def lines(frame: pd.DataFrame, regime: str, dataset: str) -> dict[str, dict]:
    of = frame[(frame.trained == regime) & (frame.dataset == dataset)]
    assert not of[""].duplicated().any()
    return {line[""]: line for line in of.to_dict("records")}


def test_the_regime_follows_from_the_method_and_the_pool():
    one, two = (PoolParams(train=list(names), test=["c"]) for names in ("a", "ab"))
    pools = {"all": two, "all_but_c": two, "a_to_c": one}
    assert {medvlsm.regime_of(name, "zero_shot", pools, "c") for name in ("c", "all")} == {"zero-shot"}
    found = {name: medvlsm.regime_of(name, "full", pools, "c") for name in ("a", *pools)}
    assert found == {"a": "individual", "all": "pooled: all", "all_but_c": "left out: c", "a_to_c": "individual"}


def test_a_set_for_testing_only_is_left_out_with_its_domain_and_else_an_unseen_set():
    pools = read_params_of_the_project().data.pooled
    for domain, own in (("skin", ["isic2016", "dfu"]), ("ultrasound", ["camus", "busi"]), ("xray", ["chexlocalize"])):
        tested = {name: medvlsm.regime_of(f"all_but_{domain}", "full", pools, name)
                  for name in pools[f"all_but_{domain}"].test}
        assert tested == dict.fromkeys(own, f"left out: {domain}") | dict.fromkeys(
            ("cvc300", "colondb", "etis"), f"unseen set: {domain} left out")
    tested = {medvlsm.regime_of("all_but_endoscopy", "full", pools, name) for name in pools["all_but_endoscopy"].test}
    assert tested == {"left out: endoscopy"}


def test_every_pooled_regime_scores_every_set_for_testing_only():
    pools = read_params_of_the_project().data.pooled
    scored = {name for name, pool in pools.items() if {"cvc300", "colondb", "etis"} <= set(pool.test)}
    declared = read_yaml(REPOSITORY / "pipelines/medvlsm/params.yaml")["study"]["datasets"]
    assert {name for name in declared if name in pools} == scored


def test_the_published_table_is_whole():
    values = published.table_2()
    assert values.loc[("pooled: all", "etis"), "UNet"] == 12.0 and values.shape == (8 + 6 + 11, 6)
    assert values.loc[("individual", "busi"), "best elsewhere"] == 89.8
    assert values.drop(columns="best elsewhere").notna().all(axis=None)
    assert set(values.index.get_level_values("dataset")) == set(published.SETS.values())


def test_a_score_stands_under_its_regime_and_the_set_that_was_tested(study):
    rows = medvlsm.scores(study)
    rows = rows[(rows.recipe == "clipseg-decoder") & (rows.status == "ok")]
    found = {(row.regime, row.trained, row.tested): row.dsc for row in rows.itertuples()}
    endoscopy = ("kvasir_seg", "clinicdb", "etis")
    assert found.keys() == {
        *(("individual", "kvasir_seg", name) for name in endoscopy), ("individual", "lesions", "lesions"),
        ("individual", "lesions", "organs"), *(("pooled: endoscopy", "endoscopy", name) for name in endoscopy),
        *(("left out: endoscopy", "all_but_endoscopy", name) for name in endoscopy),
        ("pooled: both", "both", "lesions"), ("pooled: both", "both", "organs")}
    assert found["individual", "kvasir_seg", "etis"] == pytest.approx(
        mean_of("clipseg-decoder-kvasir_seg_to_endoscopy-0", "etis"), abs=1e-3)
    ours = mean_of("clipseg-decoder-both-0", "organs")
    assert found["pooled: both", "both", "organs"] == pytest.approx(ours, abs=1e-3)
    assert not rows.duplicated(["regime", "trained", "tested"]).any()


def test_table_2_has_published_lines_and_what_was_made_with_its_distance(study):
    frame = medvlsm.table_2(study)
    found = lines(frame, "individual", "kvasir_seg")
    assert list(found) == ["published", "here", "here, as released"]
    assert (found["published"]["CLIPSeg"], found["published"]["U-Net"]) == ("89.51", "84.77")
    ours = mean_of("clipseg-decoder-kvasir_seg-0", "kvasir_seg")
    assert found["here"]["CLIPSeg"] == f"{ours:.2f} ({ours - 89.51:+.2f})"
    released = mean_of("clipseg-decoder-medvlsm-published-kvasir_seg-0", "kvasir_seg")
    assert found["here, as released"]["CLIPSeg"].startswith(f"{released:.2f} (")
    assert found["here"]["CRIS"] == found["here"]["U-Net++"] == "not run" and found["here"]["best elsewhere"] == "–"
    said = found["here"]["where from"]
    assert said.startswith("official; commit not recorded") and f"not run: CRIS: {NOT_RUN}" in said
    assert "not run: U-Net++, DeepLabV3+: no such run in study 'study'" in said
    assert "not run" not in found["here, as released"]["where from"]
    pooled = lines(frame, "pooled: endoscopy", "etis")
    member = mean_of("clipseg-decoder-endoscopy-0", "etis")
    assert pooled["published"]["CLIPSeg"] == "71.18"
    assert pooled["here"]["CLIPSeg"] == f"{member:.2f}", "embedded weights are not the paper's"
    assert "BiomedCLIPSeg" not in frame, "neither the paper nor this study has it"


def test_each_regime_is_a_table_without_columns_of_nothing(study):
    frame, shown = medvlsm.table_2(study), medvlsm.table_2_by_regime(study)
    assert [part.caption for part in shown] == [f"{name} (DSC in %)" for name in dict.fromkeys(frame.trained)]
    by_regime = {part.caption.partition(" (")[0]: list(part.data.columns) for part in shown}
    assert "best elsewhere" in by_regime["individual"] and "best elsewhere" not in by_regime["pooled: all"]
    assert sum(len(part.data) for part in shown) == len(frame)


def test_individual_means_trained_on_that_very_set(study):
    frame = medvlsm.table_2(study)
    assert not lines(frame, "individual", "etis"), "trained on Kvasir-SEG and tested on ETIS is no such row"
    assert "(" not in lines(frame, "individual", "lesions")["here"]["CLIPSeg"], "nothing is published to compare with"


def test_regimes_that_the_paper_lacks_follow_without_a_published_line(study):
    frame = medvlsm.table_2(study)
    assert list(lines(frame, "zero-shot", "lesions")) == ["here"] == list(lines(frame, "left out: endoscopy", "etis"))
    zero = lines(frame, "zero-shot", "lesions")["here"]
    assert zero["CLIPSeg"] == f"{mean_of('clipseg-zero_shot-lesions-0', 'lesions'):.2f}" and zero["U-Net"] == "–"


@pytest.mark.parametrize("table", [medvlsm.table_2, medvlsm.regimes, medvlsm.domain_shift])
def test_every_line_says_where_it_comes_from_and_stand_ins_carry_their_label(study, table):
    frame = table(study)
    assert len(frame) and (frame["where from"] != "").all()
    key = "dataset" if "dataset" in frame else "trained"
    drawn = frame[frame[key].isin(["lesions", "organs", "both", "lesions_to_organs"])]
    drawn = drawn[~drawn["where from"].str.startswith("not run")]
    assert len(drawn) and drawn["where from"].str.contains(STAND_IN).all()


def test_sets_that_were_not_run_are_one_line_a_reason(study):
    frame = medvlsm.table_2(study)
    absent = frame[(frame.trained == "pooled: all") & (frame[""] == "here")]
    assert list(absent.dataset) == ["11 sets"]
    assert absent["where from"].item() == "not run: no such run in study 'study'"
    assert absent["CLIPSeg"].item() == "not run" and absent["best elsewhere"].item() == "–"


def test_what_was_trained_here_and_tested_there(study):
    frame = medvlsm.domain_shift(study)
    line = frame[(frame.method == "U-Net") & (frame.trained == "kvasir_seg")]
    assert list(frame.columns[2:7]) == ["kvasir_seg", "clinicdb", "etis", "lesions", "organs"]
    assert line.etis.item() == pytest.approx(mean_of("unet-full-kvasir_seg_to_endoscopy-0", "etis"), abs=1e-3)
    assert line.lesions.isna().item()
    unmade = frame[frame["where from"].str.startswith("not run")]
    assert (unmade.method.item(), unmade.trained.item()) == ("CRIS, full (MedVLSM)", "kvasir_seg, endoscopy")


def test_regimes_stand_side_by_side(study):
    frame = medvlsm.regimes(study)
    assert list(frame.columns) == ["dataset", "method", "zero-shot", "left out: endoscopy", "individual",
                                   "pooled: both", "pooled: endoscopy", "where from"]
    line = frame[(frame.dataset == "kvasir_seg") & (frame.method == "CLIPSeg, decoder")]
    assert line["pooled: endoscopy"].item() == pytest.approx(mean_of("clipseg-decoder-endoscopy-0", "kvasir_seg"),
                                                             abs=1e-3)
    assert line["pooled: both"].isna().item() and line["zero-shot"].isna().item()
    etis = frame[(frame.dataset == "etis") & (frame.method == "CLIPSeg, decoder")]
    assert etis["individual"].isna().item()


def test_figures_draw_each_set_once_and_every_number_of_the_matrix(study):
    figure = figures.regime_figure(study)
    assert [axis.get_title() for axis in figure.axes[:3]] == [
        "published: mean of 3 endoscopy sets", "published: mean of 8 sets", "tested: kvasir_seg (official)"]
    assert len(figure.axes) == 2 + 5
    figure = figures.shift_figure(study)
    shown = {text.get_text() for axis in figure.axes for text in axis.texts}
    frame = medvlsm.domain_shift(study)
    trained = frame[frame.method.isin(["CLIPSeg, decoder", "U-Net"])]
    assert {f"{value:.1f}" for value in trained[list(trained.columns[2:7])].stack().dropna()} == shown


def test_a_study_in_which_nothing_can_be_had_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, (), ())
    for recipe in ("clipseg-zero_shot", "clipseg-decoder", "unet-full"):
        for dataset in ("kvasir_seg", "endoscopy", "all_but_endoscopy"):
            run = declare("study", recipe, dataset)
            write_status(f"runs/study/evaluate/{run.name}", "; ".join(f"set {k} is absent" for k in range(9)))
    collect("study")
    study = Study("study")
    frame = medvlsm.table_2(study)
    here = frame[frame[""] == "here"]
    assert len(here) and here["where from"].str.startswith("not run: ").all()
    assert here["where from"].str.len().max() < 200 and here["where from"].str.contains("and 6 more reasons").any()
    assert len(medvlsm.domain_shift(study)) == 1 and list(medvlsm.regimes(study).dataset) == [
        "kvasir_seg, clinicdb, etis"]
    assert "No run of this study" in figures.shift_figure(study).data and figures.regime_figure(study).axes
    for table in (medvlsm.table_2, medvlsm.regimes, medvlsm.domain_shift):
        tables.show(table(study)).to_html()


def test_seeds_are_averaged(copied):
    run = read_run("runs/study/plan/clipseg-decoder-kvasir_seg-0.yaml")
    write_run(Path("runs/study/plan"), run.model_copy(update={"seed": 1}))
    for stage in ("train", "evaluate"):
        folder = Path("runs/study") / stage
        shutil.copytree(folder / "clipseg-decoder-kvasir_seg-0", folder / "clipseg-decoder-kvasir_seg-1")
    rescore("clipseg-decoder-kvasir_seg-1", "dsc", value=0.5)
    collect("study")
    ours = (50 + mean_of("clipseg-decoder-kvasir_seg-0", "kvasir_seg")) / 2
    here = lines(medvlsm.table_2(Study("study")), "individual", "kvasir_seg")["here"]
    assert here["CLIPSeg"] == f"{ours:.2f} ({ours - 89.51:+.2f})"
