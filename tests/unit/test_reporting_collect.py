"""What collect gathers: the declared runs and nothing else, with their provenance or their reason."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import reporting_project
from reporting_project import declare, make_project, measured, scored_run, write_project

import featherseg.tasks
from featherseg.config import ModelConfig, Run, write_run
from featherseg.core.errors import UserError
from featherseg.core.files import write_json, write_status
from featherseg.overview import other_tasks, runs, scores
from featherseg.reporting.collect import collect
from featherseg.reporting.study import Study, find_root
from featherseg.tasks import base
from featherseg.tasks.base import Score
from featherseg.tasks.segmentation.referring import MEASURES

RECIPES = ("clipseg-decoder", "clipseg-vlsm_dense-vl")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, RECIPES)
    return tmp_path


def results() -> pd.DataFrame:
    collect("study")
    return Study("study").results


def test_runs_that_a_shrunk_grid_left_on_disk_are_not_read():
    scored_run("study", "clipseg-lora", "lesions")
    assert "clipseg-lora-lesions-0" not in set(results().run)
    declare("study", "clipseg-lora", "lesions")
    assert "clipseg-lora-lesions-0" in set(results().run)


def test_a_row_holds_what_evaluate_measured():
    rows = results()
    row = rows[(rows.run == "clipseg-decoder-organs-0") & (rows.text_condition == "other")
               & (rows.metric == "hd95")]
    other = measured("clipseg-decoder-organs-0", "hd95", condition="other")
    assert row["mean"].item() == pytest.approx(other.value, abs=1e-6)
    assert row.unit.item() == other.unit == "px"
    assert (row.split.item(), row.threshold.item(), row.sentences.item()) == ("test", 0.5, "")
    assert row.n.item() == 9
    assert row.trainable_parameters.item() == 260_000
    assert row.weights.item() == "clipseg-small (small stand-in, sha256 abababababab)"
    assert len(rows) == len(RECIPES) * 2 * 4 * 3  # datasets, text conditions, metrics


def test_a_referring_set_has_every_measure_of_every_split(project):
    make_project(project, RECIPES, ("scenes_ref",))
    collect("study")
    study = Study("study")
    rows = study.every_result[study.every_result.run == "clipseg-decoder-scenes_ref-0"]
    assert list(rows.split.unique()) == ["testA", "testB"]
    referring = rows[rows.sentences != ""]
    assert len(referring) == 2 * 2 * 2 * len(MEASURES)  # splits, sentences, thresholds
    assert not referring.duplicated(["split", "sentences", "threshold", "metric"]).any()
    for row in referring.itertuples():
        found = measured("clipseg-decoder-scenes_ref-0", row.metric, split=row.split, scope=row.sentences,
                         threshold=row.threshold)
        assert row.mean == pytest.approx(found.value, abs=1e-6) and row.n == found.n
    shown = study.results[study.results.dataset == "scenes_ref"]
    assert set(shown.split) == {"testA"} and set(shown.sentences) == {""}
    assert set(shown.metric) == {"dsc", "iou", "hd95"}
    assert not study.results.duplicated(["run", "text_condition", "metric"]).any()
    assert scores.table(study).set_index("dataset").loc["scenes_ref", "split"].eq("testA").all()


def test_a_pooled_set_has_a_mean_for_each_member_and_one_for_all(project):
    make_project(project, RECIPES, ("both", "lesions_to_organs", "endoscopy"))
    collect("study")
    study = Study("study")
    rows = study.by_member[(study.by_member.recipe == "clipseg-decoder") & (study.by_member.metric == "dsc")
                           & (study.by_member.text_condition == "own")]
    members = {dataset: list(of.member) for dataset, of in rows.groupby("dataset")}
    assert members == {"both": ["lesions", "organs"], "lesions_to_organs": ["organs"],
                       "endoscopy": ["clinicdb", "etis", "kvasir_seg"]}
    for row in rows[rows.dataset == "both"].itertuples():
        of_member = measured("clipseg-decoder-both-0", "dsc", member=row.member)
        assert row.mean == pytest.approx(of_member.value, abs=1e-6) and row.n == 9
    whole = study.results[(study.results.dataset == "both") & (study.results.metric == "dsc")
                          & (study.results.recipe == "clipseg-decoder") & (study.results.text_condition == "own")]
    assert whole.n.item() == 18 and whole["mean"].item() == pytest.approx(
        measured("clipseg-decoder-both-0", "dsc").value, abs=1e-6)
    assert set(study.every_result.member) == {""} and "both" in set(scores.table(study).dataset)
    origin = dict(zip(rows.dataset, rows.data, strict=True))
    assert origin == {"both": "synthetic stand-in", "lesions_to_organs": "synthetic stand-in", "endoscopy": "official"}


def test_means_of_a_plain_set_stand_once(project):
    collect("study")
    assert Study("study").by_member.empty
    assert set(pd.read_csv("reports/study/results.csv").member.isna()) == {True}


def test_test_comes_first_whatever_the_order_of_the_settings(project, monkeypatch):
    monkeypatch.setitem(reporting_project.REFERRED, "scenes_ref", ("val", "test"))
    write_project(project, RECIPES, ("scenes_ref",))
    collect("study")
    assert set(Study("study").results.split) == {"test"}
    assert "split" not in scores.table(Study("study"))


def test_results_of_an_older_form_are_named(project):
    collect("study")
    for name, columns in (("results.csv", ("split", "scope", "member", "target")),
                          ("runs.csv", ("run", "title", "data.kind", "weights.kind"))):
        file = Path("reports/study") / name
        table = pd.read_csv(file)
        for column in columns:
            table.drop(columns=column).to_csv(file, index=False)
            with pytest.raises(UserError, match=f"{name} lacks the column '{column}'; collect the study again"):
                _ = Study("study").results
        table.to_csv(file, index=False)


def test_a_run_that_was_not_made_appears_with_its_reason():
    shutil.rmtree("runs/study/evaluate/clipseg-decoder-organs-0")
    write_status("runs/study/evaluate/clipseg-decoder-organs-0", "organs are given out by request only")
    row = results().set_index("run").loc["clipseg-decoder-organs-0"]
    assert (row.status, row.reason) == ("not_run", "organs are given out by request only")
    assert pd.isna(row["mean"])
    shown = scores.table(Study("study"))
    line = shown[(shown.dataset == "organs") & (shown.recipe == "clipseg-decoder")]
    assert line["where from"].item() == "not run: organs are given out by request only"
    assert line.DSC.isna().item()


def test_a_declared_run_without_scores_is_an_error():
    shutil.rmtree("runs/study/evaluate/clipseg-decoder-organs-0")
    with pytest.raises(UserError, match=r"'clipseg-decoder-organs-0' is declared but not scored.*dvc repro"):
        collect("study")
    assert not Path("reports").exists()


def test_equal_runs_give_equal_bytes():
    files = [Path("reports/study") / name for name in ("runs.csv", "results.csv", "metrics.json", "curves.csv")]
    collect("study")
    first = [file.read_bytes() for file in files]
    collect("study")
    assert [file.read_bytes() for file in files] == first


def test_metrics_are_one_number_a_recipe():
    collect("study")
    metrics = json.loads(Path("reports/study/metrics.json").read_text())
    assert set(metrics) == {"dsc"} and set(metrics["dsc"]) == set(RECIPES)
    rows = Study("study").results
    own = rows[(rows.recipe == RECIPES[0]) & (rows.text_condition == "own") & (rows.metric == "dsc")]
    assert metrics["dsc"][RECIPES[0]] == pytest.approx(own["mean"].mean(), abs=1e-4)


def test_curves_are_those_of_trained_runs():
    declare("study", "clipseg-zero_shot", "lesions")
    scored_run("study", "clipseg-zero_shot", "lesions")
    collect("study")
    curves = pd.read_csv("reports/study/curves.csv")
    assert set(curves.recipe) == set(RECIPES)
    assert curves.groupby("run").epoch.max().eq(5).all()


@pytest.mark.parametrize(("dataset", "label"), [
    ("lesions", "synthetic stand-in"), ("clinic", "own folder"), ("kvasir_seg", "official")])
def test_every_row_says_what_its_data_are(project, dataset, label):
    shutil.rmtree("runs")
    make_project(project, RECIPES[:1], (dataset,))
    assert set(results().data) == {label}


def test_an_unknown_study_is_named_with_the_known_ones():
    with pytest.raises(UserError, match="unknown study 'studdy'.*study"):
        collect("studdy")


def test_the_project_root_is_found_from_a_folder_below(project, tmp_path_factory):
    below = project / "notebooks" / "deeper"
    below.mkdir()
    assert find_root(below) == project
    with pytest.raises(UserError, match="no project root"):
        find_root(tmp_path_factory.mktemp("elsewhere"))


@pytest.mark.parametrize("break_it", [
    lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1"),
    lambda path: pd.read_parquet(path).drop(columns="scope").to_parquet(path),
    lambda path: pd.read_parquet(path).assign(split="val").to_parquet(path)])
def test_scores_of_another_form_are_one_sentence(break_it):
    path = Path("runs/study/evaluate/clipseg-decoder-organs-0/results.parquet")
    break_it(path)
    with pytest.raises(UserError, match=r"clipseg-decoder-organs-0/results\.parquet") as error:
        collect("study")
    assert "\n" not in str(error.value) and not Path("reports").exists()


def test_counts_of_another_form_are_one_sentence():
    Path("runs/study/evaluate/clipseg-decoder-organs-0/model.json").write_text("{}")
    with pytest.raises(UserError, match=r"clipseg-decoder-organs-0/model\.json.*trainable_parameters"):
        collect("study")


@pytest.mark.parametrize("text", [b"", b"a,b\n1,2\n", b"\xff\xfe\0"])
def test_a_curve_of_another_form_is_one_sentence(text):
    Path("runs/study/train/clipseg-decoder-organs-0/history.csv").write_bytes(text)
    with pytest.raises(UserError, match=r"decoder-organs-0/history\.csv is not the curve of a training") as error:
        collect("study")
    assert "\n" not in str(error.value) and not Path("reports/study/metrics.json").exists()


@pytest.mark.parametrize("word", ["NA", "nan", "null", "None"])
def test_a_target_named_like_a_missing_value_is_a_target(word):
    collect("study")
    file = Path("reports/study/results.csv")
    rows = file.read_text().splitlines()
    place = rows[0].split(",").index("target")
    cells = rows[1].split(",")
    cells[place] = word
    file.write_text("\n".join([rows[0], ",".join(cells), *rows[2:]]) + "\n")
    study = Study("study")
    assert list(study.by_target.target) == [word]


TOY = """
from featherseg.tasks.base import TASKS, Metric, Task

@TASKS.register("toy")
class Toy(Task):
    metrics = (Metric("accuracy"), Metric("error", "deg", higher_is_better=False))
    def build(self, run): ...
    def objective(self, run, model, dataset): ...
    def evaluate(self, run, model, dataset, splits, out): ...
"""


@pytest.fixture
def toy(project, monkeypatch):
    """A task of another kind: numbers per image, without prompts, targets or thresholds."""
    (project / "tasks/toy").mkdir(parents=True)
    (project / "tasks/toy/__init__.py").write_text(TOY)
    monkeypatch.setattr(base.TASKS, "_entries", dict(base.TASKS._entries))
    monkeypatch.setattr(featherseg.tasks, "__path__", [*featherseg.tasks.__path__, str(project / "tasks")])
    yield
    sys.modules.pop("featherseg.tasks.toy")


def test_another_task_is_collected_and_has_a_table(toy):
    run = Run(task="toy", study="study", recipe="clipseg-full", dataset="lesions", model=ModelConfig(name="clipseg"),
              adapter={"name": "full"})
    declare("study", run.recipe, run.dataset)
    write_run("runs/study/plan", run)
    out = Path("runs/study/evaluate") / run.name
    out.mkdir()
    answers = [score for k in range(4) for score in (
        Score(f"s{k}", "test", "accuracy", k % 2), Score(f"s{k}", "test", "error", k))]
    metrics = base.TASKS["toy"].metrics
    base.records(base.score_table(answers, metrics), metrics).to_parquet(out / "results.parquet")
    write_json(out / "model.json", {"trainable_parameters": 3, "total_parameters": 9})
    write_status(out)
    train = Path("runs/study/train") / run.name
    train.mkdir()
    (train / "history.csv").write_text("epoch,loss,val_accuracy,lr\n1,0.5,0.25,0.1\n")
    collect("study")
    study = Study("study")
    assert json.loads(Path("reports/study/metrics.json").read_text())["accuracy"] == {"clipseg-full": 0.5}
    assert study.curves.set_index("run").loc[run.name, "val_accuracy"] == 0.25
    assert run.name not in set(study.every_result.run) and run.name in set(study.every_task.run)
    line = other_tasks.table("toy", study.every_task[study.every_task.task == "toy"]).iloc[0]
    assert (line.method, line.accuracy, line.error, line.samples) == ("full fine-tuning", 0.5, 1.5, 4)
    heading, _ = other_tasks.tables(study)
    assert heading.data == "### toy" and "clipseg-full" in set(runs.table(study).recipe)
    assert "clipseg-full" not in set(scores.table(study).recipe) and scores.verdict(study)
