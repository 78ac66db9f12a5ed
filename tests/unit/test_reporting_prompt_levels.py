"""The grid of prompt levels: what was trained with and what was tested, as table, figure and words."""

from pathlib import Path

import numpy as np
import pytest
from reporting_project import REPOSITORY, declare, describe_recipe, make_project

from featherseg.config import write_run
from featherseg.core.files import write_json
from featherseg.papers.medvlsm import prompt_levels
from featherseg.plan import resolve_study
from featherseg.reporting.collect import collect
from featherseg.reporting.records import DATA_LABELS
from featherseg.reporting.study import Study
from featherseg.tasks.segmentation.config import PROMPT_LEVELS

DECODER, DENSE, ZERO_SHOT = "clipseg-decoder", "clipseg-vlsm_dense-vl", "clipseg-zero_shot"
RECIPES = {level: f"{DECODER}-{level}" for level in PROMPT_LEVELS}

STAND_IN = DATA_LABELS["synthetic"]


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """A study of two methods and one without training on organs, whose records are made up."""
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, (DECODER, DENSE, ZERO_SHOT), ("organs",), collected=True)
    return Study("study")


def measured(study: Study, recipe: str, dsc: dict[str, float], policy: str | None = None) -> None:
    """A run whose record has these scores by level; one of a policy is the decoder's with other prompts."""
    run = declare("study", DECODER if policy else recipe, "organs")
    if policy:
        run = run.model_copy(update={"recipe": recipe, "train": run.train.model_copy(
            update={"prompts": policy, "val_prompts": policy})})
        write_run(Path("runs/study/plan"), run)
        describe_recipe("study", recipe)
    conditions = [{"condition": f"level_{level}", "modality": "text", "dsc": value} for level, value in dsc.items()]
    write_json(study.evaluate(run.name) / "reliance.json", {
        "test": {"n_images": 4, "own": {"value": 0.5}, "conditions": [
            {"condition": "permuted", "modality": "text", "dsc": 0.1}, *conditions]}})


def whole_grid(study: Study, cell) -> None:
    """Every level trained and tested, and random ones; a cell's DSC is a function of both places."""
    for number, level in enumerate(PROMPT_LEVELS):
        scores = {tested: cell(number, place) for place, tested in enumerate(PROMPT_LEVELS)}
        measured(study, RECIPES[level], scores, level)
    measured(study, DECODER, {level: cell(place, place) - 0.02 for place, level in enumerate(PROMPT_LEVELS)})
    for run in Study("study").runs:
        folder = study.evaluate(run.name)
        if not (folder / "status.json").is_file():
            for name in ("status.json", "model.json", "results.parquet"):
                (folder / name).write_bytes((study.evaluate(f"{DECODER}-organs-0") / name).read_bytes())
    collect("study")


def test_the_grid_has_a_line_a_run_and_the_levels_that_were_scored(study):
    measured(study, DECODER, {"p0": 0.1, "p6": 0.62})
    measured(study, ZERO_SHOT, {"p0": 0.05, "p1": 0.3})
    frame = prompt_levels.grid(study).set_index("trained with")
    assert list(frame.columns) == ["dataset", "method", "P0", "P1", "P6", "images", "where from"]
    assert (frame.loc["random", "P6"], frame.loc["nothing", "P1"]) == (62, 30)
    assert np.isnan(frame.loc["random", "P1"]) and (frame.images == 4).all()
    assert frame["where from"].str.startswith(STAND_IN).all()


def test_the_figure_has_every_cell_and_frames_a_levels_own(study):
    whole_grid(study, lambda trained, tested: 0.5 - 0.03 * abs(trained - tested))
    axis, = prompt_levels.figure(Study("study")).axes
    rows = [label.get_text() for label in axis.get_yticklabels()]
    columns = [label.get_text() for label in axis.get_xticklabels()]
    assert rows == [*(level.upper() for level in PROMPT_LEVELS), "random"] and columns == rows[:10]
    cells = {tuple(int(place) for place in text.get_position()): text.get_text() for text in axis.texts}
    assert len(cells) == 110 and (cells[3, 3], cells[5, 2], cells[0, 10]) == ("50.0", "41.0", "48.0")
    framed = {(round(patch.get_x() + 0.46), round(patch.get_y() + 0.46)) for patch in axis.patches}
    assert framed == {(place, place) for place in range(10)}


def test_methods_that_share_their_prompts_are_told_apart_by_their_titles(study):
    for recipe in (DECODER, DENSE, ZERO_SHOT):
        measured(study, recipe, {"p0": 0.2, "p1": 0.4})
    axis, = prompt_levels.figure(study).axes
    assert {label.get_text() for label in axis.get_yticklabels()} == {
        "decoder: random", "DA-VL: random", "zero-shot: nothing"}
    assert not axis.patches


def test_the_words_say_what_the_grid_says(study):
    whole_grid(study, lambda trained, tested: 0.2 + 0.03 * tested - (0.15 if (trained, tested) == (9, 1) else 0.01) * (
        trained != tested))
    said = prompt_levels.note(Study("study"))
    assert said.startswith("**organs (synthetic stand-in)** (clipseg, decoder)")
    assert "20.0 % without words (P0), 23.0 % with the class (P1), and highest with P9, 47.0 %" in said
    assert f"{-(71 * 1 + 15) / 72:+.1f} points on average, at worst -15.0 (trained on P9, tested on P1)" in said
    assert "one trained on random levels -2.0, at worst -2.0." in said


def test_a_part_of_the_grid_points_to_the_study_that_has_the_whole(study):
    assert prompt_levels.note(study) == prompt_levels.ELSEWHERE
    assert "evaluate.reliance" in prompt_levels.figure(study).data and prompt_levels.grid(study).empty
    measured(study, RECIPES["p3"], dict.fromkeys(PROMPT_LEVELS, 0.3), "p3")
    measured(study, DENSE, dict.fromkeys(PROMPT_LEVELS, 0.3))
    here = "Here models were trained with prompts of P3, random."
    assert prompt_levels.note(Study("study")) == f"{here} {prompt_levels.ELSEWHERE}"


@pytest.mark.parametrize(("study", "dataset", "model", "images"), [
    ("prompt_levels", "organs", "clipseg", None), ("real_levels", "polyp", "dino_clipseg", 60),
    ("real_levels", "skin", "dino_clipseg", 60)])
def test_the_studies_train_and_score_each_level(monkeypatch, study, dataset, model, images):
    monkeypatch.chdir(REPOSITORY)
    runs = [run for run in resolve_study(study) if run.dataset == dataset]
    used = {run.recipe: (run.train.prompts, run.train.val_prompts, run.evaluate.prompts) for run in runs}
    assert used == {f"{model}-decoder-{level}": (level,) * 3 for level in PROMPT_LEVELS} | {
        f"{model}-decoder": ("random", "fullest", "fullest")}
    others = [run.train.model_copy(update={"prompts": "p1", "val_prompts": "p1"}) for run in runs]
    assert all((run.model, run.adapter, train) == (runs[0].model, runs[0].adapter, others[0])
               for run, train in zip(runs, others, strict=True))
    assert all(run.evaluate.reliance.images == images for run in runs)
