"""Reliance as a part of `evaluate`, and its settings."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from tiny_run import make_run, write_dataset, write_training, write_weights

from featherseg.config import parse, read_run, write_run
from featherseg.core.errors import UserError
from featherseg.core.files import read_json
from featherseg.data.prepared import PreparedDataset
from featherseg.evaluate import evaluate
from featherseg.models.clipseg.model import CLIPSeg
from featherseg.plan import resolve_study
from featherseg.reliance import page as reliance
from featherseg.reliance import tables
from featherseg.tasks.segmentation.config import RelianceConfig, SegmentationEvaluate
from featherseg.tasks.segmentation.image import IMAGE
from featherseg.tasks.segmentation.predict import load_model, predict_probabilities
from featherseg.tasks.segmentation.text import TEXT

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    write_dataset(tmp_path / "data")
    return tmp_path


def scored(project, **settings):
    run = make_run(write_weights(project / "weights"), "decoder", **settings)
    write_training(run, project / "train")
    evaluate(run, project / "data", project / "train", project / "out")
    return run


def test_without_the_setting_nothing_is_measured(project):
    scored(project)
    assert not [path for path in (project / "out").iterdir() if path.name.startswith("reliance")]


def test_trials_and_scores_are_written_and_follow_from_the_model(project):
    run = scored(project, prompts="p1", threshold=0.45, reliance=RelianceConfig(draws=200))
    trials, record = pd.read_parquet("out/reliance.parquet"), read_json("out/reliance.json")["test"]
    assert (record["n_images"], record["n_samples"], record["n_empty_truth"]) == (5, 15, 1)
    assert (record["prompts"], record["threshold"], record["draws"], record["seed"]) == ("p1", 0.45, 200, 3)
    data, model = PreparedDataset.read(project / "data"), load_model(run, project / "train")
    row = trials[(trials.text_condition == "other_sample") & (trials.image_condition == "own")].iloc[7]
    sample = next(one for one in data.samples if one.sample_id == row.sample_id)
    prediction = predict_probabilities(model, [data.image(sample)], [row.prompt])[0] > 0.45
    truth = data.mask(sample)
    expected = 2 * np.count_nonzero(prediction & truth) / (prediction.sum() + truth.sum())
    assert row.dsc == pytest.approx(expected, abs=0.01) and row.split == "test"


def test_the_own_dsc_is_that_of_the_main_scores(project):
    scored(project, prompts="p1", reliance=RelianceConfig(text=("class_only",), image=(), draws=50))
    own = read_json("out/reliance.json")["test"]["own"]["value"]
    results = pd.read_parquet("out/results.parquet")
    results = results[(results.metric == "dsc") & (results.condition == "own") & (results.target == "")]
    assert own == pytest.approx(results.value.item(), abs=1e-3)


def test_settings_choose_interventions_and_images(project):
    scored(project, reliance=RelianceConfig(text=("shuffled_words",), image=("blur",), images=2, draws=50))
    trials = pd.read_parquet("out/reliance.parquet")
    assert set(trials.text_condition) == {"own", "none", "permuted", "other_structure", "shuffled_words"}
    assert set(trials.image_condition) == {"own", "mean_colour", "other_image", "blur"}
    assert trials.image_id.nunique() == 2


def test_prompts_that_the_run_cannot_tell_apart_could_not_be_exchanged(project, capsys):
    """Ninety words that all prompts begin with are more than CLIPSeg reads."""
    file = project / "data/samples.parquet"
    table = pyarrow.parquet.read_table(file)
    rows = [row | {"prompts": json.dumps({"p1": ["disc " * 90 + row["target"]]})} for row in table.to_pylist()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), file)
    scored(project, reliance=RelianceConfig(draws=50))
    record = read_json("out/reliance.json")["test"]
    assert record["own_prompts"] | {"first_cut": [], "first_alike": []} == {
        "n": 3, "cut": 3, "limit": 77, "alike": 3, "first_cut": [], "first_alike": []}
    conditions = {one["condition"]: one for one in record["conditions"] if one["modality"] == "text"}
    assert conditions["permuted"]["same_as"] == "own" and conditions["permuted"]["n_cut"] == 15
    assert {"other_structure", "other_sample", "over"} <= set(record["fit_no_sample"])
    assert record["following"] is None and "permuted among" not in record["paragraph"]
    said = capsys.readouterr().err
    assert "3 of 3 different prompts are cut after 77 tokens" in said
    page = reliance.report(record, pd.read_parquet("out/reliance.parquet"), PreparedDataset.read(project / "data"))
    assert "Own prompts: 3 of 3 different prompts are cut after 77 tokens" in page
    assert "could not be exchanged" in tables.comparison({"it": record}).to_string()


def test_an_image_is_encoded_once_for_all_its_prompts(project, monkeypatch):
    seen, original = [], CLIPSeg.encode_image

    def counting(self, pixels):
        seen.append(len(pixels))
        return original(self, pixels)

    scored(project)
    monkeypatch.setattr(CLIPSeg, "encode_image", counting)
    run = make_run(write_weights(project / "weights"), "decoder", reliance=RelianceConfig(draws=50))
    evaluate(run, project / "data", project / "train", project / "out")
    # 5 own images for the main scores; then, with 5 others of their own images, 4 variants of each and the image
    assert sum(seen) <= 5 + 5 * 5
    assert len(pd.read_parquet("out/reliance.parquet")) > 15 * 15


def test_an_intervention_costs_one_decorated_function(project, monkeypatch):
    """Settings take its name, the suite tries it, tables show its title; an image's likewise."""
    for interventions in (TEXT, IMAGE):
        monkeypatch.setattr(interventions, "_entries", dict(interventions._entries))
    TEXT.add("loud", "in capitals")(lambda case, rng: [case.own.upper() + "!"])
    IMAGE.add("dark", "darkened")(lambda picture, other, rng: picture // 2)
    settings = parse(SegmentationEvaluate, {"reliance": {"text": ["loud"], "image": ["dark"]}}, "params.yaml")
    scored(project, reliance=settings.reliance.model_copy(update={"draws": 50}))
    record = json.loads((project / "out/reliance.json").read_text())["test"]
    tried = {(one["modality"], one["condition"]) for one in record["conditions"]}
    assert {("text", "loud"), ("image", "dark")} < tried
    assert {"in capitals", "darkened"} < set(tables.effects(record).intervention)


def test_settings_are_kept_in_the_plan_and_wrong_ones_refused(project):
    run = make_run(write_weights(project / "weights"), reliance=RelianceConfig(text=("none",), images=3))
    write_run("plan", run)
    assert read_run(Path("plan") / f"{run.name}.yaml").evaluate == run.evaluate
    with pytest.raises(UserError, match="'reliance.imag': did you mean 'reliance.image'"):
        parse(SegmentationEvaluate, {"reliance": {"imag": ["blur"]}}, "params.yaml")
    with pytest.raises(UserError, match="reliance.text.0.* text intervention 'flip_color': did you mean 'flip_colour'"):
        parse(SegmentationEvaluate, {"reliance": {"text": ["flip_color"]}}, "params.yaml")
    with pytest.raises(UserError, match="image intervention 'blurr': did you mean 'blur'"):
        parse(SegmentationEvaluate, {"reliance": {"image": ["blurr"]}}, "params.yaml")
    assert parse(SegmentationEvaluate, {"reliance": {}}, "params.yaml").reliance == RelianceConfig()


def test_the_knob_reaches_every_run_of_the_study(monkeypatch):
    from featherseg.config import read_params

    monkeypatch.chdir(ROOT)
    declared = read_params("study")
    assert declared.evaluate["reliance"] != {"images": 4}
    changed = declared.model_copy(update={"evaluate": declared.evaluate | {"reliance": {"images": 4}}})
    monkeypatch.setattr("featherseg.plan.read_params", lambda study: changed)
    assert {run.evaluate.reliance for run in resolve_study("study")} == {RelianceConfig(images=4)}
