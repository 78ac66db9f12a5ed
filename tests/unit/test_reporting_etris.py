"""ETRIS's tables: every measure under its name, published beside made here, and a reason for what was not run."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reporting_project import ADAPTERS, REFERRED, TRAINABLE, declare, make_project, measured, scored_run, with_column

from featherseg.config import write_run
from featherseg.core.files import write_json, write_status
from featherseg.papers.etris import ablations, counts, figures, published, tuning
from featherseg.papers.etris import table as etris
from featherseg.reporting import overlays, style
from featherseg.reporting.collect import collect
from featherseg.reporting.records import DATA_LABELS
from featherseg.reporting.study import Study

STAND_IN = DATA_LABELS["synthetic"]
METHODS = ("etris_vit-decoder", "etris_vit-bridger", "etris_vit-bridger-text_to_vision", "etris_vit-lora")
PARTS = ("hierarchical_alignment", "global_alignment", "projector")
RECIPES = (*METHODS, "clipseg-decoder", "etris_vit-bridger-published")


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> Path:
    """A project with a collected study, which nobody changes."""
    root = tmp_path_factory.mktemp("etris")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_project(root, RECIPES, ("scenes_ref",))
        for number, recipe in enumerate(METHODS):
            write_json(f"runs/study/info/{recipe}-scenes_ref-0.json", {
                "images_per_second": 10.0 * number, "peak_memory_mib": {"process": 500 + number}})
        collect("study")
    return root


@pytest.fixture
def project(collected, tmp_path, monkeypatch) -> Path:
    """A copy of the project, where we are."""
    shutil.copytree(collected, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def study(project) -> Study:
    return Study("study")


@pytest.mark.parametrize("table", [etris.main_table, etris.measures, tuning.tuning, ablations.ablations])
def test_every_line_says_where_it_comes_from_and_stand_ins_carry_their_label(study, table):
    frame = table(study)
    assert (frame["where from"] != "").all()
    numbers = frame[frame.dataset == "scenes_ref"]
    numbers = numbers[~numbers["where from"].str.startswith("not run")]
    assert len(numbers) and numbers["where from"].str.contains(STAND_IN).all()


def test_every_measure_of_every_scored_run_stands_under_its_name(study):
    frame = etris.measures(study)
    assert len(frame) == len(RECIPES) * 2 * 2 * 2  # splits, sentences, thresholds
    line = frame[(frame.method == "ViT-B/16, LoRA") & (frame.split == "testB") & (frame.threshold == "0.35")
                 & (frame.sentences == "first sentence")]
    found = {name: measured("etris_vit-lora-scenes_ref-0", name, split="testB", scope="first", threshold=0.35)
             for name in ("mIoU", "oIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9")}
    for name, record in found.items():
        assert line[name].item() == pytest.approx(100 * record.value, abs=1e-3)
    assert line.expressions.item() == found["mIoU"].n and line["empty truth"].item() == 0
    assert list(frame.sentences.iloc[:4]) == ["first sentence"] * 2 + ["all sentences"] * 2


def test_the_three_main_measures_differ_and_are_those_of_the_results(study):
    frame = etris.main_table(study)
    here = frame[(frame.dataset == "scenes_ref") & (frame.split == "testA") & (frame[""] == "here")]
    assert list(here.measure) == [
        "mIoU at 0.35, all sentences", "oIoU at 0.5, all sentences", "P@0.5 at 0.5, all sentences"]
    results = study.every_result
    own = results[(results.recipe == "etris_vit-bridger") & (results.split == "testA") & (results.sentences == "all")]
    values = {(row.metric, row.threshold): 100 * row.mean for row in own.itertuples()}
    assert list(here["ETRIS ViT-B/16"]) == [f"{values[key]:.2f}" for key in (("mIoU", 0.35), ("oIoU", 0.5),
                                                                           ("P@0.5", 0.5))]
    assert here["ETRIS ViT-B/16"].nunique() == 3 and set(here["ETRIS RN50"]) == {"not run"}
    released = frame[(frame.dataset == "scenes_ref") & (frame.split == "testA") & (frame[""] == "here, as released")]
    assert list(released.measure) == list(here.measure)


def test_published_numbers_stand_above_what_was_made_with_the_distance(project):
    make_project(project, ("etris_vit-bridger", "etris_vit-bridger-published"), ("refcoco", "refcoco_plus"))
    declare("study", "etris_r50-bridger", "refcoco")
    write_status("runs/study/evaluate/etris_r50-bridger-refcoco-0", "no weights here")
    collect("study")
    study = Study("study")
    frame = etris.main_table(study)
    lines = frame[(frame.dataset == "refcoco") & (frame.split == "testB")].reset_index(drop=True)
    assert list(lines[""]) == ["published"] + ["here"] * 3 + ["here, as released"] * 3
    assert lines["ETRIS ViT-B/16"][0] == "66.63" and lines.measure[0].startswith("IoU, as printed")
    own = study.every_result
    own = own[(own.recipe == "etris_vit-bridger") & (own.split == "testB") & (own.sentences == "all")
              & (own.dataset == "refcoco") & (own.threshold == 0.35) & (own.metric == "mIoU")]
    ours = 100 * own["mean"].item()
    assert lines["ETRIS ViT-B/16"][1] == f"{ours:.2f} ({ours - 66.63:+.2f})"
    assert "(" not in lines["ETRIS ViT-B/16"][2], "oIoU is compared with a number that is no oIoU"
    assert set(lines["ETRIS RN50"][1:]) == {"not run"}
    absent = frame[(frame.dataset == "refcocog_google") & (frame[""] == "here")]
    assert absent["where from"].item() == "not run: no ETRIS on 'refcocog_google' in study 'study'"
    plus = frame[(frame.dataset == "refcoco_plus") & (frame.split == "testA") & (frame[""] == "here")]
    assert plus["where from"].item() == "not run: split 'testA' was not scored"
    assert frame["ETRIS RN50"][frame.dataset == "refcoco_plus"].iloc[0] == "not verified"


def test_numbers_that_are_not_verified_stay_out(study):
    values = published.by_split(published.rows(), published.COLUMNS)
    assert values.shape == (9, 3) and values.notna().sum().to_dict() == {
        "ETRIS RN50": 3, "ETRIS RN101": 8, "ETRIS ViT-B/16": 9}
    file = Path("data/published/etris.csv")
    rows = pd.read_csv(file, dtype=str)
    recollected = rows[(rows.verified == "no") & (rows.model == "ETRIS")]
    assert len(recollected) == 7
    shown = etris.main_table(study).to_string() + published.elsewhere().to_string()
    assert not any(f" {value} " in shown for value in recollected.value)


def test_other_papers_numbers_keep_the_name_of_their_measure(study):
    frame = published.elsewhere().set_index(["model", "measure as printed"])
    assert frame.loc[("DETRIS-B", "mIoU"), "RefCOCO val"].item() == 76.0
    assert frame.loc[("DETRIS-B", "oIoU"), "RefCOCO val"].item() == 74.3
    assert ("ETRIS_RP", "IoU") in frame.index
    assert "CLIP ResNet-101" not in set(frame.loc["ETRIS"].variant), "the paper's own rows stand in the main table"
    assert frame["where from"].str.startswith("published: ").all()


def test_a_run_scored_without_its_sentences_says_so_and_keeps_its_mean_iou(project):
    make_project(project, ("etris_vit-bridger",), ("lesions",))
    collect("study")
    study = Study("study")
    frame = etris.measures(study)
    line = frame[frame.dataset == "lesions"]
    assert line["where from"].item() == "not scored sentence by sentence: evaluate.prompts is 'fullest'"
    assert line.mIoU.isna().item()
    main = etris.main_table(study)
    main = main[main.dataset == "lesions"]
    iou = study.results[(study.results.dataset == "lesions") & (study.results.metric == "iou")
                        & (study.results.text_condition == "own")]
    assert main.measure.item() == "mIoU at 0.5, one prompt"
    assert main["ETRIS ViT-B/16"].item() == f"{100 * iou['mean'].item():.2f}"


def test_methods_that_were_not_run_are_one_line_a_reason(project):
    for recipe in ("etris_vit-full", "etris_r50-bridger"):
        declare("study", recipe, "refcoco")
        write_status(f"runs/study/evaluate/{recipe}-refcoco-0", "COCO is absent")
    collect("study")
    frame = etris.measures(Study("study"))
    line = frame[frame.dataset == "refcoco"]
    assert (line.method.item(), line["where from"].item()) == ("2 methods", "not run: COCO is absent")
    tuned = tuning.tuning(Study("study"))
    assert set(tuned[tuned.dataset == "refcoco"]["where from"]) == {"not run: COCO is absent"}


def test_what_a_method_trains_beyond_the_head_and_its_memory(study):
    frame = tuning.tuning(study).set_index("method")
    assert list(frame.index) == ["ETRIS ViT-B/16", "ETRIS ViT-B/16, text to vision", "ViT-B/16, head only",
                                 "ViT-B/16, LoRA"]
    assert list(frame["beyond the head"]) == [50_000, 30_000, 0, 10_000]
    assert frame.loc["ViT-B/16, LoRA", "memory (MiB)"] == 503 and frame.loc["ViT-B/16, LoRA", "images/s"] == 30
    assert set(frame.measure) == {"mIoU at 0.35, all sentences"}


def test_unequal_budgets_are_shouted(study, project):
    assert "all 4 methods had one budget: 5 epochs, batch 32" in tuning.equal_budget(study)
    plan = project / "runs/study/plan/etris_vit-lora-scenes_ref-0.yaml"
    plan.write_text(plan.read_text().replace("epochs: 5", "epochs: 6"))
    assert "budgets are NOT equal" in tuning.equal_budget(Study("study"))


def test_counts_are_those_of_the_released_code_to_the_digit(study):
    frame = counts.parameters().set_index("backbone")
    assert list(frame.Bridger) == [1_942_080, 1_942_080, 598_592] and list(frame.equal) == ["yes"] * 3
    assert list(frame.positions) == [141_824, 141_824, 559_360]
    assert list(frame["all trainable"]) == [28_819_009, 26_328_129, 23_829_313]
    assert list(frame["% of CLIP"].round(2)) == [1.90, 1.62, 0.40]
    assert list(frame["with positions, %"].round(2)) == [2.04, 1.74, 0.77]
    assert list(frame.published) == ["1.68M", "1.94M", "1.39M"]
    assert list(frame["which is"]) == ["none of ours", "a Bridger of dim 64", "a Bridger of dim 128"]


def test_a_head_of_another_size_would_be_found_out(study, monkeypatch):
    released = published.released_counts()
    released["ETRIS RN50"]["HA+GA+Projector"] += 1
    monkeypatch.setattr(published, "released_counts", lambda: released)
    assert list(counts.parameters().equal) == ["NO", "yes", "yes"]


def ablated(recipe: str, parts: tuple[str, ...] | None = None, seed: int = 0, **adapter) -> None:
    """A scored run of the Bridger with other knobs, or without parts of the head."""
    run = declare("study", recipe, "scenes_ref", seed, **adapter)
    write_run("runs/study/plan", run.model_copy(update={"model": run.model.model_copy(update={"head_parts": parts})}))
    scored_run("study", recipe, "scenes_ref", seed)


def test_ablations_hold_everything_else_alike(project):
    ablated("etris_vit-bridger", seed=1, dim=64)
    ablated("etris_vit-bridger", seed=2, dim=32, stages=2)
    ablated("etris_vit-bridger", ("hierarchical_alignment", "projector"), seed=3)
    ablated("etris_vit-bridger", ("projector",), seed=4)
    ablated("etris_vit-bridger", ("global_alignment", "projector"), seed=5, dim=64)
    collect("study")
    frame = ablations.ablations(Study("study")).set_index(["knob", "value"])
    made = frame.accuracy.notna()
    assert list(frame[made].index) == [
        ("dim", "16"), ("dim", "64"), ("stages", "3"), ("direction", "both"), ("direction", "text_to_vision"),
        ("head parts", "all three parts"), ("head parts", "without global alignment"),
        ("head parts", "without hierarchical alignment and global alignment")]
    assert list(frame["Bridger, etris_r50"].loc["stages"]) == [1_215_168, 1_513_088, 1_942_080]
    assert frame.loc[("dim", "64"), "Bridger, etris_vit"] == 598_592
    assert frame.loc[("dim", "8"), "where from"] == "not run"
    head = frame["head, etris_vit"].loc["head parts"]
    assert list(head) == [22_671_361, 22_671_361 - 9_983_488 + 263_168, 22_671_361 - 7_899_136,
                          22_671_361 - 4_788_737 + 513, 4_788_737 + 263_168]
    assert frame.loc[("head parts", "without projector"), "where from"] == "not run"
    assert frame.loc[("dim", "16"), "trainable"] == 950_000
    assert frame.loc[("dim", "16"), "memory (MiB)"] == 501 and pd.isna(frame.loc[("dim", "64"), "memory (MiB)"])


def test_ablations_are_no_tuning_methods(project, monkeypatch):
    before = tuning.tuning(Study("study"))
    for recipe, parts in (("etris_vit-bridger-dim8", None), ("etris_vit-bridger-no_global", PARTS[::2])):
        monkeypatch.setitem(ADAPTERS, recipe, ADAPTERS["etris_vit-bridger"])
        monkeypatch.setitem(TRAINABLE, recipe, 900_000)
        ablated(recipe, parts, **({} if parts else {"dim": 8}))
    declare("study", "etris_vit-bridger-dim8", "refcoco", dim=8)
    write_status("runs/study/evaluate/etris_vit-bridger-dim8-refcoco-0", "COCO is absent")
    declare("study", "etris_vit-bridger", "refcoco")
    write_status("runs/study/evaluate/etris_vit-bridger-refcoco-0", "COCO is absent")
    collect("study")
    after = tuning.tuning(Study("study"))
    pd.testing.assert_frame_equal(after[after.dataset == "scenes_ref"], before)
    assert list(after[after.dataset == "refcoco"].method) == ["ETRIS ViT-B/16"]
    assert {"ETRIS ViT-B/16, dim 8", "ETRIS ViT-B/16, no global alignment"} <= set(
        etris.measures(Study("study")).method), "but they are scored"
    figure = figures.ablations_and_cost(Study("study"))
    drawn = {line.get_label(): len(line.get_xdata()) for line in figure.axes[0].lines}
    assert drawn == {"dim": 2, "stages": 1, "direction": 2, "head parts": 2}
    assert {text.get_text() for text in figure.axes[0].texts} == {
        "8", "text_to_vision", "the recipe itself", "without global alignment"}
    assert "mIoU at 0.35" in figure.axes[0].get_ylabel()


def test_one_value_of_each_knob_is_no_ablation(project):
    make_project(project, ("etris_vit-bridger",), ("refcoco",), study="alone")
    collect("alone")
    assert "No ablation" in figures.ablations_and_cost(Study("alone")).data


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_ablations_take_experiments_that_changed_these_knobs_alone(study, project):
    file, results = project / "params.yaml", project / "reports/study/runs.csv"
    params = file.read_text() + "adapter: {dim: 16, stages: 3}\ntrain: {epochs: 5}\n"
    file.write_text(params)
    git("init", "-q")
    git("add", "params.yaml", "reports")
    git("commit", "-q", "-m", "baseline")
    baseline, own = git("rev-parse", "HEAD"), results.read_text()
    for name, stages, epochs in (("fewer", 2, 5), ("longer", 1, 9)):
        file.write_text(params.replace("stages: 3", f"stages: {stages}").replace("epochs: 5", f"epochs: {epochs}"))
        results.write_text(with_column(own, "adapter.stages", stages))
        git("commit", "-q", "-a", "-m", name)
        git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", "HEAD")
        git("reset", "-q", "--hard", baseline)
    frame = ablations.ablations(Study("study")).set_index(["knob", "value"])
    assert list(frame.accuracy.loc["stages"].notna()) == [False, True, True]


def test_a_study_in_which_nothing_ran_gives_reasons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, (), (), study="etris")
    declare("etris", "etris_vit-bridger", "refcoco")
    write_status("runs/etris/evaluate/etris_vit-bridger-refcoco-0", "COCO is absent")
    collect("etris")
    study = Study("etris")
    main = etris.main_table(study)
    here = main[(main.dataset == "refcoco") & (main[""] == "here")]
    assert set(here["where from"]) == {"not run: COCO is absent"} and len(here) == 3
    assert ablations.ablations(study)["where from"].iloc[0] == "not run: COCO is absent"
    assert "No tuning method" in tuning.equal_budget(study)
    assert "No tuning method" in figures.accuracy_and_cost(study).data
    assert "No run" in figures.two_sentences(study)[0].data


def test_the_panels_draw_what_the_table_says(study):
    parameters, memory = figures.accuracy_and_cost(study).axes
    table = tuning.tuning(study)
    for axis, costs in ((parameters, table.trainable), (memory, table["memory (MiB)"] / 1024)):
        drawn = sorted(tuple(points.get_offsets()[0]) for points in axis.collections)
        assert drawn == [pytest.approx(pair) for pair in sorted(zip(costs, table.accuracy, strict=True))]
    assert "mIoU at 0.35, all sentences (%)" == parameters.get_ylabel() == memory.get_ylabel()
    assert f"scenes_ref ({STAND_IN}), testA" == parameters.get_title()
    assert table.trainable.max() < 10 * table.trainable.min() and parameters.get_xscale() == "linear"
    assert "memory" in memory.get_xlabel()


def test_memory_that_was_not_recorded_is_said(study, project):
    shutil.rmtree(project / "runs/study/info")
    collect("study")
    study = Study("study")
    _, memory = figures.accuracy_and_cost(study).axes
    assert [text.get_text() for text in memory.texts] == ["not recorded here"]


def test_two_sentences_on_one_image_are_of_that_image(study, monkeypatch):
    figures_seen, drawn = [], []
    monkeypatch.setattr(style, "picture", figures_seen.append)
    monkeypatch.setattr(overlays, "draw_outlines",
                        lambda axis, image, truth, prediction: drawn.append((image, prediction)))
    heading, _ = figures.two_sentences(study)
    assert heading.data == f"### scenes_ref ({STAND_IN}), split testA: ETRIS ViT-B/16"
    axes = figures_seen[0].axes
    ranks = [axis.get_title(loc="left").split(" pair")[0] for axis in axes]
    assert ranks == ["best", "best", "median", "median", "worst", "worst"]
    for first, second in zip(drawn[::2], drawn[1::2], strict=True):
        assert (first[0] == second[0]).all() and not np.array_equal(first[1], second[1])
    prompts = [axis.get_xlabel() for axis in axes]
    assert all("left" in prompt for prompt in prompts[::2]) and all("right" in prompt for prompt in prompts[1::2])
    worse = [min(float(axis.get_title(loc="left").split()[-2]) for axis in axes[k : k + 2]) for k in (0, 2, 4)]
    assert worse == sorted(worse, reverse=True) and worse[0] > worse[2]


def test_a_set_with_one_target_an_image_has_no_pairs(project):
    make_project(project, ("etris_vit-bridger",), ("lesions",))
    collect("study")
    shown = [item.data for item in figures.two_sentences(Study("study")) if isinstance(item.data, str)]
    assert "No image of this split has two targets with different prompts." in shown


def test_several_splits_are_those_of_the_project(study):
    assert set(study.every_result.split) == set(REFERRED["scenes_ref"])
