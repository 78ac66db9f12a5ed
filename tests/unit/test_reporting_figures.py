"""What the figures draw: the numbers of the tables, the right samples, and nothing where there is nothing."""

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reporting_project
from matplotlib.figure import Figure
from reporting_project import declare, make_project, scored_run, with_column, write_project

from featherseg.adapters import METHODS
from featherseg.data.prepared import PreparedDataset
from featherseg.overview import gallery, language, runs, scores
from featherseg.papers.vlsm_adapter import figures as vlsm_adapter
from featherseg.reporting import overlays, style
from featherseg.reporting.collect import collect
from featherseg.reporting.study import Study
from featherseg.tasks.segmentation.evaluate import run_lengths
from featherseg.tasks.segmentation.metrics import dice

RECIPES = ("clipseg-zero_shot", "clipseg-decoder", "clipseg-vlsm_dense-vl")


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, RECIPES, ("lesions",), collected=True)
    return Study("study")


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_best_median_and_worst_are_what_they_are_called():
    scores = pd.Series({"c": 0.5, "a": 0.9, "e": 0.1, "b": 0.7, "d": 0.2})
    assert overlays.extremes(scores) == {"best": "a", "median": "c", "worst": "e"}
    assert overlays.extremes(scores.drop("a")) == {"best": "b", "median": "d", "worst": "e"}
    equal = pd.Series({"b": 0.5, "a": 0.5, "c": 0.5})
    assert overlays.extremes(equal) == {"best": "c", "median": "b", "worst": "a"}
    assert overlays.extremes(scores[["c", "a"]]) == {"best": "a", "worst": "c"}
    assert overlays.extremes(scores[["c"]]) == {"only sample": "c"}


def test_overlays_show_those_samples_with_their_prompt_and_score(study, monkeypatch):
    seen, drawn = [], []
    monkeypatch.setattr(style, "picture", seen.append)
    monkeypatch.setattr(overlays, "draw_outlines", lambda axis, image, *masks: drawn.append(dice(*masks)))
    gallery.overlays(study, "lesions")
    scores = pd.read_parquet("runs/study/evaluate/clipseg-decoder-lesions-0/predictions.parquet")
    scores = scores[scores.text_condition == "own"].sort_values("dsc")
    axes = {axis.get_title(loc="left"): axis for axis in seen[0].axes}
    worst, best = (f"{100 * scores.dsc.iloc[k]:.1f}" for k in (0, -1))
    assert f"decoder: worst, DSC {worst} %" in axes
    assert scores.prompt.iloc[0] in axes[f"decoder: worst, DSC {worst} %"].get_xlabel()
    assert f"decoder: best, DSC {best} %" in axes
    assert len(drawn) == 3 * len(RECIPES)
    assert [float(title.split()[-2]) / 100 for title in axes] == pytest.approx(drawn, abs=6e-4)


def titles_of_overlays(monkeypatch) -> list[str]:
    seen = []
    monkeypatch.setattr(style, "picture", seen.append)
    gallery.overlays(Study("study"), "lesions")
    return [axis.get_title(loc="left") for axis in seen[0].axes]


def with_empty_masks(run: str, samples: int) -> None:
    """Make truth and prediction of the first samples empty, as in a set with images of nothing."""
    folder = Path("runs/study/evaluate") / run
    masks = pd.read_parquet(folder / "predictions.parquet")
    empty = masks.sample_id.isin(sorted(masks.sample_id.unique())[:samples])
    masks.loc[empty, ["empty_truth", "empty_prediction"]] = True
    masks.loc[empty, "dsc"] = 1.0
    masks.loc[empty, "rle"] = run_lengths(np.zeros((96, 96), bool))
    masks.to_parquet(folder / "predictions.parquet")


def test_an_empty_mask_on_an_empty_truth_is_neither_best_nor_worst(study, monkeypatch):
    for recipe in RECIPES:
        with_empty_masks(f"{recipe}-lesions-0", 3)
    titles = titles_of_overlays(monkeypatch)
    assert len(titles) == 3 * len(RECIPES) and not [title for title in titles if "both masks empty" in title]
    assert "decoder: best, DSC 100.0 %" not in titles
    for recipe in RECIPES:
        with_empty_masks(f"{recipe}-lesions-0", 9)
    assert all("both masks empty" in title for title in titles_of_overlays(monkeypatch))


def test_a_split_of_one_sample_is_drawn_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = reporting_project.make_dataset
    monkeypatch.setattr(reporting_project, "make_dataset", lambda name: whole(name, images=1))
    write_project(tmp_path, RECIPES, ("lesions",))
    collect("study")
    titles = titles_of_overlays(monkeypatch)
    assert len(titles) == len(RECIPES) and all("only sample" in title for title in titles)


def test_stored_masks_come_back_as_they_were():
    mask = np.random.default_rng(0).random((33, 50)) > 0.6
    row = pd.Series({"height": 33, "width": 50, "rle": run_lengths(mask)})
    assert (overlays._decode(row) == mask).all()


def test_outlines_survive_empty_and_full_masks_and_odd_sizes():
    image = np.zeros((1, 700, 3), np.uint8)
    axis = Figure().subplots()
    for mask in (np.zeros((1, 700), bool), np.ones((1, 700), bool)):
        overlays.draw_outlines(axis, image, mask, ~mask)


def test_a_gallery_names_each_dataset_with_its_provenance(study):
    heading, picture = gallery.gallery(study)
    assert heading.data == "### lesions (synthetic stand-in)"
    assert picture.data[:2] == b"\xff\xd8" and len(picture.data) < 2_000_000
    assert PreparedDataset.read("data/processed/lesions").samples


def test_the_language_check_draws_what_its_table_says(study):
    figure = language.figure(study)
    table = language.table(study).set_index("method")
    drawn = {points.get_label(): points.get_offsets() for points in figure.axes[0].collections
             if not points.get_label().startswith("_")}
    assert sorted(drawn["own prompt"][:, 0]) == pytest.approx(sorted(table["own prompt"]))
    assert sorted(drawn["another's prompt"][:, 0]) == pytest.approx(sorted(table["another's prompt"]))


def test_zero_shot_is_a_line_since_it_trains_nothing(study):
    published, here = vlsm_adapter.parameters_and_dsc(study).axes
    assert "synthetic stand-in" in here.get_title() and "published" in published.get_title()
    assert [line.get_label() for line in here.lines] == ["zero-shot"]
    assert {float(p.get_offsets()[0, 0]) for p in here.collections} == {260_000, 46_000}


def test_one_width_is_said_and_two_are_drawn(study):
    assert "Only dim 16 has been run here" in vlsm_adapter.dim_lines(study).data
    declare("study", "clipseg-vlsm_dense-vl", "lesions", seed=1, dim=64)
    scored_run("study", "clipseg-vlsm_dense-vl", "lesions", seed=1)
    collect("study")
    (axis,) = vlsm_adapter.dim_lines(Study("study")).axes
    assert list(axis.lines[0].get_xdata()) == [16, 64]


def test_widths_of_experiments_count_where_nothing_else_differs(study):
    """An experiment is a commit under refs/exps/<baseline>, with its own params and results."""
    file, results = Path("params.yaml"), Path("reports/study/runs.csv")
    params = file.read_text() + "adapter: {dim: 16}\ntrain: {epochs: 5}\n"
    file.write_text(params)
    git("init", "-q")
    git("add", "params.yaml", "reports")
    git("commit", "-q", "-m", "baseline")
    baseline, own = git("rev-parse", "HEAD"), results.read_text()
    for name, dim, epochs in (("wide", "64", "5"), ("long", "32", "9")):
        file.write_text(params.replace("16", dim).replace("epochs: 5", f"epochs: {epochs}"))
        results.write_text(with_column(own, "adapter.dim", int(dim)))
        git("commit", "-q", "-a", "-m", name)
        git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", "HEAD")
        git("reset", "-q", "--hard", baseline)
    (axis,) = vlsm_adapter.dim_lines(Study("study")).axes
    assert list(axis.lines[0].get_xdata()) == [16, 64]


def test_the_committed_width_stands_beside_another_in_the_workspace(study):
    """As `dvc exp run -S adapter.dim=64` leaves the workspace."""
    file, results = Path("params.yaml"), Path("reports/study/runs.csv")
    file.write_text(file.read_text() + "adapter: {dim: 16}\n")
    git("init", "-q")
    git("add", "params.yaml", "reports")
    git("commit", "-q", "-m", "baseline")
    file.write_text(file.read_text().replace("dim: 16", "dim: 64"))
    results.write_text(with_column(results.read_text(), "adapter.dim", 64))
    (axis,) = vlsm_adapter.dim_lines(Study("study")).axes
    assert list(axis.lines[0].get_xdata()) == [16, 64]


def test_a_study_without_scores_says_so(tmp_path, monkeypatch):
    from featherseg.core.files import write_status

    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, (), ())
    declare("study", "clipseg-decoder", "lesions")
    write_status("runs/study/evaluate/clipseg-decoder-lesions-0", "no data")
    collect("study")
    empty = Study("study")
    assert "No run" in language.figure(empty).data
    assert "No run" in runs.training_curves(empty).data
    assert "No dense or shallow" in vlsm_adapter.position_bars(empty).data
    assert "No dense or shallow" in vlsm_adapter.dim_lines(empty).data
    assert "No run" in gallery.gallery(empty)[0].data
    assert "No run" in scores.verdict(empty)
    assert len(vlsm_adapter.parameters_and_dsc(empty).axes) == 1


def test_a_method_is_drawn_as_its_own_file_says():
    assert [style.colour("lora", positions) for positions in ("VL", "V", "L")] == ["#CC79A7", "#E3B1CC", "#EFD3E2"]
    assert (style.colour("bridger", "text_to_vision"), style.marker("bridger")) == ("#56B4E9", "p")
    assert (style.colour("not_a_method"), style.marker("not_a_method")) == ("#000000", ".")
    drawn = [(method.marker, colour) for method in map(METHODS.__getitem__, METHODS)
             for colour in set(method.colours.values())]
    assert len(drawn) == len(set(drawn))
