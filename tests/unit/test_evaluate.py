"""Evaluation of tiny runs: what is scored, at which resolution, how often towers run, and what is written."""

import itertools
import json
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pycocotools import mask as coco
from tiny_run import HEIGHT, TARGETS, WIDTH, make_run, write_dataset, write_training, write_weights

from featherseg.core.errors import UserError
from featherseg.core.files import write_status
from featherseg.data.prepared import PreparedDataset, PreparedWriter, Sample
from featherseg.data.transforms import Squash
from featherseg.evaluate import evaluate
from featherseg.models.clipseg.model import CLIPSeg
from featherseg.tasks.base import records, score_table
from featherseg.tasks.segmentation import Segmentation, predict
from featherseg.tasks.segmentation import evaluate as evaluation
from featherseg.tasks.segmentation.evaluate import count_targets
from featherseg.tasks.segmentation.metrics import AVERAGED, score
from featherseg.tasks.segmentation.pixels import PixelDataset
from featherseg.tasks.segmentation.predict import load_model, predict_probabilities
from featherseg.tasks.segmentation.referring import MEASURES
from featherseg.tasks.segmentation.task import COUNTED, PRECISIONS
from featherseg.tasks.segmentation.trials import Trial, plan_trials


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    write_dataset(tmp_path / "data")
    return tmp_path


def scored(project, adapter="vlsm_dense", out="out", **settings):
    run = make_run(write_weights(project / "weights"), adapter, **settings)
    write_training(run, project / "train" / adapter)
    evaluate(run, project / "data", project / "train" / adapter, project / out)
    return run


def tables(folder):
    return pd.read_parquet(folder / "per_sample.parquet"), pd.read_parquet(folder / "predictions.parquet")


def test_every_sample_is_scored_under_four_prompts(project):
    scored(project)
    per_sample, predictions = tables(project / "out")
    assert len(predictions) == 15 * 4 and len(per_sample) == 15 * 4 * len((*AVERAGED, *COUNTED))
    assert not per_sample.duplicated(["sample_id", "condition", "metric"]).any()
    assert set(per_sample.split) == {"test"} and set(per_sample.scope) == {""} and set(predictions.sentence) == {0}
    assert set(predictions.image_condition) == {"own"} and set(predictions.grid) == {"original"}
    by_condition = dict(list(predictions.groupby("text_condition")))
    assert by_condition["own"].prompt.str.startswith("the ").all()
    assert (by_condition["none"].prompt == "").all()
    assert set(by_condition["class_only"].prompt) == set(TARGETS)
    merged = by_condition["other"].merge(by_condition["own"], on="sample_id", suffixes=("", "_own"))
    assert (merged.prompt != merged.prompt_own).all()


@pytest.mark.parametrize("adapter", ["vlsm_dense", "decoder"])
def test_a_class_name_beside_them_moves_no_other_score(project, monkeypatch, adapter):
    scored(project, adapter)
    plan = evaluation.plan_trials
    monkeypatch.setattr(evaluation, "plan_trials", lambda *given: [
        trial for trial in plan(*given) if trial.condition != "class_only"])
    scored(project, adapter, out="without")
    for beside, alone in zip(tables(project / "out"), tables(project / "without"), strict=True):
        column = "condition" if "condition" in beside else "text_condition"
        kept = beside[beside[column] != "class_only"].reset_index(drop=True)
        pd.testing.assert_frame_equal(kept, alone, rtol=0, atol=1e-4)
        assert len(beside) > len(alone)


def test_a_run_is_scored_with_its_own_threads(project, monkeypatch):
    run = make_run(write_weights(project / "weights"), "vlsm_dense")
    write_training(run, project / "train")
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    evaluate(run.model_copy(update={"threads": 3}), project / "data", project / "train", project / "out")
    assert threads == [3]


def test_class_names_are_asked_for_where_every_sample_has_one(project):
    samples = PreparedDataset.read(project / "data").samples
    assert sum(trial.condition == "class_only" for trial in plan_trials(samples, "fullest", 0)) == len(samples)
    without = {level: texts for level, texts in samples[3].prompts.items() if level != "p1"}
    samples[3] = replace(samples[3], prompts=without)  # a map of prompts is shared by all who read the set
    assert not [trial for trial in plan_trials(samples, "fullest", 0) if trial.condition == "class_only"]


def test_masks_that_miss_or_flood_are_counted(project):
    run = make_run(write_weights(project / "weights"))
    sample = PreparedDataset.read(project / "data").samples[1]
    trial = Trial(sample, "own", "disc", sample.sample_id)
    disc, nothing = np.zeros((20, 20), bool), np.zeros((20, 20))
    disc[5:10, 5:10] = True
    rows = [*evaluation.score_rows(trial, nothing, disc, run.evaluate),
            *evaluation.score_rows(trial, nothing + 1, disc, run.evaluate),
            *evaluation.score_rows(trial, nothing, nothing > 0, run.evaluate),
            *evaluation.score_rows(trial, nothing + 1, nothing == 0, run.evaluate),
            *evaluation.score_rows(trial, 1.0 * disc, disc, run.evaluate)]
    assert [row["missed"] for row in rows] == [True, False, False, False, False]
    assert [row["flooded"] for row in rows] == [False, True, False, False, False]
    counted = [score for row in rows for score in evaluation.scores_of(trial, [row], True, run)]
    table = records(score_table(counted, Segmentation.metrics), Segmentation.metrics)
    own = table[(table.target == "") & (table.member == "")].set_index("metric")
    assert (own.n["dsc"], own.value["n_missed"], own.value["n_flooded"]) == (5, 1, 1)


def whole(folder):
    """The records of whole splits by condition and metric."""
    results = pd.read_parquet(folder / "results.parquet")
    return results[(results.target == "") & (results.member == "")].set_index(["condition", "metric"]).sort_index()


def test_the_records_follow_from_the_stored_scores(project):
    scored(project)
    per_sample, _ = tables(project / "out")
    results = pd.read_parquet(project / "out/results.parquet")
    assert set(results.split) == {"test"} and set(results.scope) == {""}
    assert set(results.target) == {"", *TARGETS}
    for (condition, target, metric), record in results.set_index(["condition", "target", "metric"]).iterrows():
        rows = per_sample[(per_sample.condition == condition) & (per_sample.metric == metric)]
        values = (rows if target == "" else rows[rows.target == target]).value.to_numpy()
        assert record.n == len(values) == (5 if target else 15)
        if metric in COUNTED:
            assert record.value == values.sum() and record.unit == "masks"
        else:
            assert record.value == pytest.approx(np.mean(values), rel=1e-12)
            assert record["std"] == pytest.approx(np.std(values), rel=1e-12)
    own = results[results.condition == "own"].set_index(["target", "metric"]).value
    assert own["", "n_empty_truth"] == own["left disc", "n_empty_truth"] == 1
    records = whole(project / "out").value
    assert records["own", "n_own_prompt"] == 15 and records["other", "n_own_prompt"] == 0
    metrics = json.loads((project / "out/metrics.json").read_text())
    assert set(metrics["targets"]) == set(metrics["prompts"]) == {"test"}


def test_hd95_is_in_millimetres_where_every_sample_of_the_split_knows_its_pixels(project, monkeypatch, capsys):
    scored(project)
    plain, _ = tables(project / "out")
    assert dict(plain.groupby("metric").unit.unique().str[0]) == {
        "dsc": "1", "iou": "1", "hd95": "px", **dict.fromkeys(COUNTED, "masks")}
    monkeypatch.setattr(Sample, "spacing", property(lambda self: (0.5, 0.5)))
    scored(project, out="known")
    known, _ = tables(project / "known")
    far = plain.metric == "hd95"
    assert set(known[far].unit) == {"mm"} and known[~far].equals(plain[~far])
    np.testing.assert_allclose(known[far].value, plain[far].value / 2)
    units = whole(project / "known").unit
    assert (units["own", "hd95"], units["own", "dsc"]) == ("mm", "1")
    capsys.readouterr()
    monkeypatch.setattr(Sample, "spacing", property(lambda self: None if "image0" in self.image_id else (0.5, 0.5)))
    scored(project, out="some")
    assert tables(project / "some")[0].equals(plain)
    assert "3 of 15 samples have no pixel_spacing, so HD95 is in pixels for all" in capsys.readouterr().err


def test_samples_of_several_sets_have_records_by_set(project):
    run = scored(project)
    per_sample, _ = tables(project / "out")
    assert set(per_sample.member) == {""}
    evaluate(run.model_copy(update={"dataset": "pool"}), project / "data", project / "train/vlsm_dense",
             project / "pooled")
    assert set(tables(project / "pooled")[0].member) == {"discs"}
    moved = per_sample.sample_id.str.startswith("discs/image0/")
    table = records(per_sample.assign(member=per_sample.member.mask(moved, "others")), Segmentation.metrics)
    dsc = table[(table.metric == "dsc") & (table.target == "")].set_index(["condition", "member"])
    for condition in ("own", "none", "other", "class_only"):
        rows = per_sample[(per_sample.condition == condition) & (per_sample.metric == "dsc")]
        assert dsc.n[condition].to_dict() == {"": 15, "others": 3}
        assert dsc.value[condition, ""] == pytest.approx(rows.value.mean())
        of_image = rows[rows.sample_id.str.startswith("discs/image0/")]
        assert dsc.value[condition, "others"] == pytest.approx(of_image.value.mean())


def test_stored_masks_reproduce_the_scores_at_original_resolution(project):
    scored(project)
    per_sample, predictions = tables(project / "out")
    data = PreparedDataset.read(project / "data")
    samples = {sample.sample_id: sample for sample in data.samples}
    values = per_sample.set_index(["sample_id", "condition", "metric"]).value
    areas = set()
    for row in predictions.itertuples():
        assert (row.height, row.width) == (HEIGHT, WIDTH)
        mask = coco.decode({"size": [row.height, row.width], "counts": row.rle}).astype(bool)
        areas.add(int(mask.sum()))
        measured = score(mask, data.mask(samples[row.sample_id]))
        for metric, value in ((name, measured[name]) for name in AVERAGED):
            assert values[row.sample_id, row.text_condition, metric] == value
    assert len(areas) > 5, "the masks are all alike, so this test compares nothing"


def test_predicting_by_hand_gives_the_stored_masks(project):
    run = scored(project)
    _, predictions = tables(project / "out")
    data = PreparedDataset.read(project / "data")
    images = {sample.sample_id: data.image(sample) for sample in data.samples}
    model = load_model(run, project / "train/vlsm_dense")
    given = [images[sample_id] for sample_id in predictions.sample_id]
    maps = predict_probabilities(model, given, list(predictions.prompt))
    for row, probabilities in zip(predictions.itertuples(), maps, strict=True):
        stored = coco.decode({"size": [HEIGHT, WIDTH], "counts": row.rle}).astype(bool)
        assert ((probabilities > 0.5) != stored).mean() < 0.002


@pytest.mark.parametrize("adapter", ["zero_shot", "decoder", "vlsm_shallow", "full"])
def test_scoring_twice_gives_the_same_bytes_whatever_the_global_generators(project, adapter):
    scored(project, adapter, out="first")
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    scored(project, adapter, out="second")
    names = sorted(path.name for path in (project / "first").iterdir())
    assert names == ["metrics.json", "model.json", "per_sample.parquet", "predictions.parquet", "results.parquet",
                     "status.json"]
    for name in names:
        assert (project / "first" / name).read_bytes() == (project / "second" / name).read_bytes()


@pytest.mark.parametrize("adapter", ["full", "decoder"])
def test_each_image_and_each_prompt_is_encoded_once(project, monkeypatch, adapter):
    seen = {"image": 0, "text": 0}
    encode_image, encode_text = CLIPSeg.encode_image, CLIPSeg.encode_text
    monkeypatch.setattr(CLIPSeg, "encode_image",
                        lambda self, x: seen.update(image=seen["image"] + len(x)) or encode_image(self, x))
    monkeypatch.setattr(CLIPSeg, "encode_text",
                        lambda self, x: seen.update(text=seen["text"] + len(x)) or encode_text(self, x))
    scored(project, adapter, batch_size=4)
    looked_at_shapes = 1 if adapter == "decoder" else 0
    assert seen == {"image": 5 + looked_at_shapes, "text": 15 + 1 + 3 + looked_at_shapes}  # own, empty, class names


def test_prompts_and_maps_go_through_a_cpu_a_few_at_once(project, monkeypatch):
    seen, encode_text, decode = {"text": [], "maps": []}, CLIPSeg.encode_text, CLIPSeg.decode
    monkeypatch.setattr(predict, "STATES_ON_CPU", 1)
    monkeypatch.setattr(predict, "PROMPTS_ON_CPU", 1)
    monkeypatch.setattr(CLIPSeg, "encode_text", lambda self, x: seen["text"].append(len(x)) or encode_text(self, x))
    monkeypatch.setattr(CLIPSeg, "decode",
                        lambda self, v, t: seen["maps"].append(len(t.sentence)) or decode(self, v, t))
    scored(project, "full")
    assert seen == {"text": [1] * 19, "maps": [1] * 60}


def test_the_batch_size_changes_no_score(project):
    scored(project, out="large")
    scored(project, out="small", batch_size=2)
    large, small = (tables(project / out)[0] for out in ("large", "small"))
    assert (large.drop(columns="value") == small.drop(columns="value")).all(axis=None)
    dsc = large.metric == "dsc"
    assert np.abs(large.value - small.value)[dsc].max() < 5e-3


def test_the_threshold_decides(project):
    scored(project, out="low", threshold=0.1)
    scored(project, out="high", threshold=0.999999)
    low, high = (tables(project / out) for out in ("low", "high"))
    sizes = [[coco.area({"size": [HEIGHT, WIDTH], "counts": counts}) for counts in predictions.rle]
             for _, predictions in (low, high)]
    assert (np.array(sizes[0]) > 2 * np.array(sizes[1])).all()
    assert set(low[0].threshold) == {0.1} and set(low[1].threshold) == {0.1}


def test_the_checkpoint_is_used(project):
    scored(project, "decoder", out="trained")
    scored(project, "zero_shot", out="untrained")
    trained, untrained = (tables(project / out)[0] for out in ("trained", "untrained"))
    assert not np.array_equal(trained.value, untrained.value)


@pytest.mark.parametrize("where", ["data", "train", "plan"])
def test_a_reason_is_handed_on(project, where):
    run = make_run(write_weights(project / "weights"), "decoder")
    write_training(run, project / "train")
    if where == "plan":
        run = run.model_copy(update={"not_run": "no plan here"})
    else:
        write_status(project / where, f"no {where} here")
    evaluate(run, project / "data", project / "train", project / "out")
    assert [file.name for file in (project / "out").iterdir()] == ["status.json"]
    assert json.loads((project / "out/status.json").read_text()) == {
        "status": "not_run", "reason": f"no {where} here"}


def test_an_empty_split_is_named_and_leaves_nothing(project):
    with pytest.raises(UserError, match="'discs' has no samples in split 'testA'; .* that it has \\(test\\)"):
        scored(project, splits=("testA",))
    assert not (project / "out").exists() and not list(project.glob(".out*"))


def test_a_corrupt_checkpoint_is_named_and_leaves_nothing(project):
    run = make_run(write_weights(project / "weights"), "decoder")
    write_training(run, project / "train")
    file = project / "train/checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        evaluate(run, project / "data", project / "train", project / "out")
    assert not (project / "out").exists() and not list(project.glob(".out*"))


def test_the_other_prompt_comes_from_the_same_image_where_it_can(project):
    samples = PreparedDataset.read(project / "data").samples
    image_of = {sample.sample_id: sample.image for sample in samples}
    others = [trial for trial in plan_trials(samples, "fullest", 0) if trial.condition == "other"]
    assert all(image_of[trial.prompt_of] == trial.sample.image for trial in others)
    assert all(trial.prompt_of != trial.sample.sample_id for trial in others)
    assert len({trial.prompt_of for trial in others}) > 5


def test_the_other_prompt_comes_from_another_image_where_it_must(tmp_path):
    write_dataset(tmp_path / "data", images=6, targets=("disc",))
    samples = PreparedDataset.read(tmp_path / "data").samples
    image_of = {sample.sample_id: sample.image for sample in samples}
    chosen = set()
    for seed in range(100):
        for trial in plan_trials(samples, "fullest", seed):
            if trial.condition == "other":
                assert image_of[trial.prompt_of] != trial.sample.image
                chosen.add((trial.sample.image, trial.prompt_of))
    assert len(chosen) == 6 * 5, "some other sample is never drawn"


def test_where_all_prompts_are_one_the_other_is_the_same_and_counted(project):
    scored(project, prompts="p0")
    kept = whole(project / "out").loc[("other", "n_own_prompt")]
    assert kept.value == kept.n == 15


def test_trials_do_not_depend_on_the_order_of_samples_but_on_the_seed(project):
    samples = PreparedDataset.read(project / "data").samples
    trials = plan_trials(samples, "random", 0)
    assert plan_trials(samples[::-1], "random", 0) == trials
    assert plan_trials(samples, "random", 1) != trials
    prompts = [trial.prompt for trial in trials if trial.condition == "own"]
    assert set(prompts) & set(TARGETS), "level p1 is never drawn"
    assert any(prompt.startswith("row ") for prompt in prompts), "the second prompt of p2 is never drawn"


def test_images_of_different_sizes_are_scored_each_at_its_own(project):
    with PreparedWriter(project / "data", dataset="discs") as writer:
        for k, shape in enumerate([(1, 1), (10, 3), (300, 40)]):
            writer.add_image(f"image{k}", np.full((*shape, 3), 90, np.uint8))
            writer.add_sample(image_id=f"image{k}", target="disc", mask=np.ones(shape, bool), split="test",
                              prompts={"p1": "größerer Kreis " * 300})
    scored(project)
    _, predictions = tables(project / "out")
    assert set(zip(predictions.height, predictions.width, strict=True)) == {(1, 1), (10, 3), (300, 40)}


def write_referred(folder, splits=("val", "testA")):
    """Two discs an image, each with three sentences of its own, in two splits; one of testA has no sentences."""
    rng, (rows, columns) = np.random.default_rng(0), np.mgrid[:HEIGHT, :WIDTH]
    with PreparedWriter(folder, dataset="discs") as writer:
        for k, split in enumerate(splits * 3):
            writer.add_image(f"image{k}", rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
            for place, target in enumerate(("left", "right")):
                mask = (rows - 20) ** 2 + (columns - 18 - 34 * place) ** 2 < (9 + 2 * k) ** 2
                sentences = [f"{target} disc of {k}", f"the {target} one in picture {k}", f"disc, {target}"]
                writer.add_sample(image_id=f"image{k}", target=target, mask=mask, split=split, prompts={
                    "p1": target} if (k, place) == (1, 1) else {"sentences": sentences})


@pytest.fixture
def referred(project):
    write_referred(project / "data")
    return project


def test_every_sentence_is_a_trial_and_the_other_conditions_come_once_a_target(referred):
    scored(referred, prompts="sentences", splits=("val", "testA"), threshold=0.5)
    per_sample, predictions = tables(referred / "out")
    counts = predictions.groupby(["sample_id", "text_condition"]).size().unstack()
    assert (counts[["none", "other"]] == 1).all(axis=None)
    assert counts.own.to_dict() == {f"discs/image{k}/{side}": 1 if (k, side) == (1, "right") else 3
                                    for k in range(6) for side in ("left", "right")}
    own = predictions[predictions.text_condition == "own"]
    assert not own.duplicated(["sample_id", "sentence"]).any()
    sentences = {sample.sample_id: sample.prompts for sample in PreparedDataset.read(referred / "data").samples}
    assert all(row.prompt == sentences[row.sample_id].get("sentences", ["right"])[row.sentence]
               for row in own.itertuples())
    found = per_sample.groupby(["condition", "threshold"]).metric.unique().map(set).to_dict()
    plain, referring = {*AVERAGED, *COUNTED}, {*MEASURES, "n_empty_truth", "n_empty_prediction"}
    assert found == {("own", 0.5): plain | referring, ("own", 0.35): referring, ("none", 0.5): plain,
                     ("other", 0.5): plain}
    assert set(zip(per_sample.sample_id, per_sample.split, strict=True)) == {
        (sample.sample_id, sample.split) for sample in PreparedDataset.read(referred / "data").samples}


def test_the_referring_measures_follow_from_the_stored_scores(referred):
    scored(referred, prompts="sentences", splits=("val", "testA"), threshold=0.4)
    per_sample, predictions = tables(referred / "out")
    assert set(per_sample.threshold) == {0.35, 0.4, 0.5}
    results = pd.read_parquet(referred / "out/results.parquet")
    own = ["split", "condition", "scope", "threshold", "metric"]
    results = results[(results.member == "") & (results.target == "")].set_index(own).sort_index()
    assert set(results.index.unique("split")) == {"val", "testA"}
    values = set()
    for split, n in (("val", 18), ("testA", 16)):
        for scope, threshold in itertools.product(("first", "all"), (0.35, 0.5)):
            rows = per_sample[(per_sample.split == split) & (per_sample.threshold == threshold)]
            rows = rows[rows.scope == scope]
            miou, oiou = (rows[rows.metric == name] for name in ("mIoU", "oIoU"))
            found = results.loc[split, "own", scope, threshold]
            assert set(found.n) == {len(miou)} == {6 if scope == "first" else n}
            assert found.value["mIoU"] == pytest.approx(np.mean(miou.value))
            assert found.value["oIoU"] == pytest.approx(oiou.value.sum() / oiou.weight.sum())
            for least in PRECISIONS:
                assert found.value[f"P@{least}"] == pytest.approx((miou.value > least).mean())
            for name in ("n_empty_truth", "n_empty_prediction"):
                assert found.value[name] == rows[rows.metric == name].value.sum()
            values.add(round(found.value["mIoU"], 6))
        kept = results.loc[split, "own", "", 0.4, "n_own_prompt"]
        assert (kept.n, kept.value) == (n, n) and results.loc[split, "other", "", 0.4, "dsc"].n == 6
    assert len(values) > 4, "first and all, or both thresholds, are the same here, so this test compares nothing"


def test_a_split_is_scored_alike_whatever_else_is_scored(referred):
    scored(referred, prompts="sentences", splits=("val", "testA"), out="both")
    scored(referred, prompts="sentences", splits=("testA",), out="one")
    both, one = (tables(referred / out)[0] for out in ("both", "one"))
    pd.testing.assert_frame_equal(both[both.split == "testA"].reset_index(drop=True), one)


def test_the_data_are_read_through_once_for_all_splits(referred, monkeypatch):
    read, fingerprint = [], PreparedDataset.fingerprint
    monkeypatch.setattr(PreparedDataset, "fingerprint", lambda self: read.append(self) or fingerprint(self))
    scored(referred, prompts="sentences", splits=("val", "testA"))
    assert len(read) == 1


def test_a_split_that_a_set_lacks_is_passed_over_and_said(referred, capsys):
    scored(referred, splits=("test", "val"), prompts="sentences")
    assert "no samples in split 'test'; scored are val, and its splits are testA, val" in capsys.readouterr().err
    assert set(tables(referred / "out")[0].split) == {"val"}


@pytest.mark.parametrize(("splits", "message"), [
    (("val", "tesA"), r"no samples in split 'tesA'; set .* that it has \(testA, val\)"),
    (("test", "train"), r"no samples in split 'test', 'train'; set .*testA, val")])
def test_splits_that_cannot_be_meant_are_named(referred, splits, message):
    with pytest.raises(UserError, match=message):
        scored(referred, splits=splits)
    assert not (referred / "out").exists()


def test_the_other_prompt_is_none_of_the_own_sentences(tmp_path):
    with PreparedWriter(tmp_path / "data", dataset="discs") as writer:
        shared = [["a", "b", "c"], ["b", "a"], ["c"], ["d"], ["e", "a"], ["a", "d"]]
        for k, sentences in enumerate(shared):
            writer.add_image(f"image{k}", np.zeros((8, 8, 3), np.uint8))
            writer.add_sample(image_id=f"image{k}", target="disc", mask=np.ones((8, 8), bool), split="val",
                              prompts={"sentences": sentences})
    samples, drawn = PreparedDataset.read(tmp_path / "data").samples, set()
    for seed in range(60):
        for trial in plan_trials(samples, "sentences", seed):
            if trial.condition == "other":
                assert trial.prompt not in trial.sample.prompts["sentences"]
                drawn.add((trial.sample.image_id, trial.prompt))
    firsts = {sentences[0] for sentences in shared}
    assert drawn == {(f"image{k}", first) for k, own in enumerate(shared) for first in firsts - set(own)}


def test_targets_that_share_their_prompt_or_vanish_at_the_input_size_are_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    masks = {"dot": (1, 1), "large": (slice(50, 150), slice(50, 150)), "empty": (slice(0), slice(0))}
    prompts = {"dot": "Left  lung", "large": "left lung", "empty": "heart"}
    with PreparedWriter(tmp_path / "set", dataset="set") as writer:
        writer.add_image("x", np.zeros((300, 300, 3), np.uint8))
        for target, place in masks.items():
            mask = np.zeros((300, 300), bool)
            mask[place] = True
            writer.add_sample(image_id="x", target=target, mask=mask, split="test", prompts={"p1": prompts[target]})
    dataset = PreparedDataset.read(tmp_path / "set")
    for size, vanishing in ((32, 1), (300, 0)):
        counts = count_targets(dataset.samples, PixelDataset(dataset, Squash(size)), "fullest", 0)
        assert counts == {"n": 3, "alike": 2, "vanishing": vanishing}
    assert count_targets(dataset.samples, PixelDataset(dataset, Squash(32)), "p0", 0)["alike"] == 3


def respell(folder, spellings):
    """Give the samples these prompts in turn, as their only ones."""
    import pyarrow.parquet

    file = folder / "samples.parquet"
    table = pyarrow.parquet.read_table(file)
    prompts = [json.dumps({"p1": [spellings[k % len(spellings)]]}) for k in range(len(table))]
    rows = [row | {"prompts": of} for row, of in zip(table.to_pylist(), prompts, strict=True)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), file)


LONG = "disc " * 90


@pytest.mark.parametrize(("spellings", "sentence"), [
    (["lesion", "Lesion", "lesion ", "LESION\n"], "4 of 4 different prompts are the same to the model as another one"),
    ([f"{LONG} left", f"{LONG} right"], "2 of 2 different prompts are cut after 77 tokens"),
])
def test_prompts_that_the_model_cannot_tell_apart_are_one_prompt(project, capsys, spellings, sentence):
    respell(project / "data", spellings)
    scored(project)
    records = whole(project / "out")
    kept = records.loc[("other", "n_own_prompt")]
    assert kept.value == kept.n == 15 and records.value["other", "dsc"] == records.value["own", "dsc"]
    prompts = json.loads((project / "out/metrics.json").read_text())["prompts"]["test"]
    assert prompts["n"] == prompts["alike"] == len(spellings)
    assert sentence in capsys.readouterr().err


def test_an_other_prompt_is_read_as_another_one(project):
    respell(project / "data", ["lesion", "Lesion", "lung ", "lung"])
    trials = plan_trials(PreparedDataset.read(project / "data").samples, "fullest", 0)
    own = {trial.sample.sample_id: trial.prompt for trial in trials if trial.condition == "own"}
    for trial in trials:
        if trial.condition == "other":
            assert trial.prompt.strip().lower() != own[trial.sample.sample_id].strip().lower()
            assert trial.prompt == own[trial.prompt_of]


def test_maps_that_are_no_numbers_are_refused_and_leave_nothing(project, monkeypatch):
    def damaged(run, train_dir):
        model = load_model(run, train_dir)
        for parameter in model.net.decoder.parameters():
            parameter.data.fill_(float("inf"))
        return model

    monkeypatch.setattr("featherseg.evaluate.load_model", damaged)
    with pytest.raises(UserError, match="NaN or infinite"):
        scored(project)
    assert not (project / "out").exists()
