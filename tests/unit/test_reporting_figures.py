"""What the figures draw: the numbers of the tables, the right samples, and nothing where there is nothing."""

import itertools
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reporting_project
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from reporting_project import declare, make_project, scored_run, with_column, write_project

from featherseg.data.prepared import PreparedDataset
from featherseg.overview import gallery, language, runs, scores
from featherseg.papers.etris import figures as etris
from featherseg.papers.medvlsm import figures as medvlsm
from featherseg.papers.vlsm_adapter import figures as vlsm_adapter
from featherseg.reporting import headline, overlays, style
from featherseg.reporting.collect import collect
from featherseg.reporting.experiments import with_experiments
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


def test_every_method_is_shown_on_the_images_that_the_mean_over_methods_chooses(study, monkeypatch):
    seen, drawn = [], []
    monkeypatch.setattr(style, "picture", seen.append)
    monkeypatch.setattr(overlays, "draw_outlines", lambda axis, image, *masks: drawn.append(masks))
    gallery.overlays(study, "lesions")
    recipes = list(dict.fromkeys(study.results.recipe))
    stored = {recipe: overlays.predictions(study, f"{recipe}-lesions-0") for recipe in recipes}
    mean = pd.DataFrame({recipe: one.dsc for recipe, one in stored.items()}).mean(axis=1)
    chosen = overlays.extremes(mean)
    axes = seen[0].axes
    columns = 1 + len(RECIPES)
    assert len(axes) == len(drawn) == 3 * columns
    for row, (rank, sample) in enumerate(chosen.items()):
        first, *others = axes[row * columns:(row + 1) * columns]
        assert first.get_title(loc="left") == f"{rank}: {100 * mean[sample]:.0f} %"
        assert stored["clipseg-decoder"].prompt[sample] in first.get_xlabel().replace("\n", " ")
        scored = [float(axis.get_title(loc="left").split()[-2]) / 100 for axis in others]
        assert scored == pytest.approx([one.dsc[sample] for one in stored.values()], abs=6e-4)
        masks = drawn[row * columns:(row + 1) * columns]
        assert len(masks[0]) == 1 and [dice(*pair) for pair in masks[1:]] == pytest.approx(scored, abs=6e-4)
    assert [axis.get_title(loc="left").split("\n")[0] for axis in axes[1:columns]] == [
        study.title(recipe) for recipe in recipes]


def test_many_methods_are_shown_on_the_same_images_in_several_figures(study, monkeypatch):
    seen = []
    monkeypatch.setattr(style, "picture", seen.append)
    monkeypatch.setattr(overlays, "MOST_COLUMNS", 2)
    gallery.overlays(study, "lesions")
    assert [len(figure.axes) for figure in seen] == [9, 6]
    ranks = [[figure.axes[row * len(figure.axes) // 3].get_title(loc="left") for row in range(3)] for figure in seen]
    assert ranks[0] == ranks[1]


def titles_of_overlays(monkeypatch) -> list[str]:
    seen = []
    monkeypatch.setattr(style, "picture", seen.append)
    gallery.overlays(Study("study"), "lesions")
    return [axis.get_title(loc="left").split("\n")[-1] for axis in seen[0].axes]


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
    assert len(titles) == 3 + 3 * len(RECIPES) and not [title for title in titles if "both masks empty" in title]
    assert "best: 100 %" not in titles
    for recipe in RECIPES:
        with_empty_masks(f"{recipe}-lesions-0", 9)
    titles = titles_of_overlays(monkeypatch)
    assert titles[0] == "best: 100 %" and titles.count("both masks empty") == 3 * len(RECIPES)


def test_a_split_of_one_sample_is_drawn_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = reporting_project.make_dataset
    monkeypatch.setattr(reporting_project, "make_dataset", lambda name: whole(name, images=1))
    write_project(tmp_path, RECIPES, ("lesions",))
    collect("study")
    titles = titles_of_overlays(monkeypatch)
    assert len(titles) == 1 + len(RECIPES) and titles[0].startswith("only sample: ")


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
    assert [line.get_label() for line in here.lines] == ["zero-shot", "Pareto front"]
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


def test_committed_results_of_other_runs_than_the_params_declare_are_left_out(study):
    """As where params were changed and committed before the study was run again."""
    results = {path: path.read_text() for path in map(Path, ("reports/study/runs.csv", "reports/study/results.csv"))}
    for path, text in results.items():
        path.write_text(text.replace("clipseg-vlsm_dense-vl", "clipseg-vlsm_shallow-vl"))
    git("init", "-q")
    git("add", "params.yaml", "reports")
    git("commit", "-q", "-m", "older results")
    for path, text in results.items():
        path.write_text(text)
    assert set(with_experiments(Study("study")).recipe) == set(Study("study").every_result.recipe)


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


def overlapping(figure) -> list[tuple[str, str]]:
    """Tick labels of one axis that lie on each other."""
    figure.draw_without_rendering()
    found = []
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        labels = [(tick.label1, tick.get_loc()) for tick in axis.get_major_ticks()]
        boxes = [(label.get_text(), label.get_window_extent()) for label, place in labels
                 if label.get_text() and low <= place <= high]
        found += [(one, other) for (one, box), (other, next_box) in itertools.pairwise(boxes) if box.overlaps(next_box)]
    return found


def project_of(root: Path, methods: int) -> Study:
    """A study of so many methods, whose trainable parameters are of very different numbers."""
    names = [name for name in reporting_project.ADAPTERS if not name.startswith("detris_b")][:methods]
    make_project(root, tuple(names), ("lesions",), collected=True)
    return Study("study")


@pytest.mark.parametrize("methods", [4, 22])
def test_tick_labels_do_not_overlap(tmp_path, monkeypatch, methods):
    monkeypatch.chdir(tmp_path)
    study = project_of(tmp_path, methods)
    assert study.results.recipe.nunique() == methods
    figures = [vlsm_adapter.parameters_and_dsc(study), vlsm_adapter.position_bars(study), language.figure(study),
               headline.figure(study), runs.training_curves(study), medvlsm.regime_figure(study)]
    if methods > 8:
        figures.append(etris.accuracy_and_cost(study))
    for figure in figures:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of a layout without room
            assert overlapping(figure) == []


def test_ticks_of_a_wide_logarithmic_axis_have_room():
    figure, (axis,) = style.panels(1, width=3)
    axis.set(xscale="log", xlim=(1e4, 4e8))
    style.few_ticks(axis)
    assert overlapping(figure) == [] and len(axis.get_xticks()) > 2
    axis.set(xlim=(1e5, 1e6))
    figure.draw_without_rendering()
    assert {1e5, 2e5, 5e5, 1e6} <= set(axis.get_xticks())


def test_labels_at_points_lie_on_no_point_and_on_no_other_label():
    figure, (axis,) = style.panels(1)
    points = [(x, y, f"method {x} {y}") for x in range(4) for y in range(4)]
    axis.scatter([x for x, _, _ in points], [y for _, y, _ in points], **style.DOT)
    points += [(1 + 0.01 * k, 1, f"too close to be named {k}") for k in range(8)]
    style.label_points(axis, points)
    boxes = [label.get_window_extent() for label in axis.texts]
    assert 4 < len(boxes) < len(points)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    places = [axis.transData.transform((x, y)) for x, y, _ in points]
    assert not any(box.contains(*place) for box in boxes for place in places)


def test_labels_at_points_lie_on_no_line():
    figure, (axis,) = style.panels(1)
    places = range(4)
    axis.scatter(places, places, **style.DOT)
    axis.step(places, places, where="post")
    axis.axhline(1.5)
    style.label_points(axis, [(place, place, f"method {place}") for place in places])
    assert len(axis.texts) == 4
    for label in axis.texts:
        box = label.get_window_extent()
        assert not box.y0 < axis.transData.transform((0, 1.5))[1] < box.y1
        for (left, bottom), (right, top) in itertools.pairwise(((1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3))):
            ends = axis.transData.transform([(left, bottom), (right, top)])
            assert not box.overlaps(Bbox(ends))


def test_a_legend_is_no_wider_than_its_figure():
    figure, axes = style.panels(1)
    for number in range(9):
        axes[0].plot([0, 1], [0, number], label=f"a method with a rather long title {number}")
    style.legend(figure, axes)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_names_lose_the_beginning_that_several_share():
    assert style.short_names(["A, one", "A, two", "B", "B, three", "C, four"]) == {
        "A, one": "one", "A, two": "two", "B": "B", "B, three": "B, three", "C, four": "C, four"}
    assert style.short_names(["A, one", "A, two", "B, one", "B, two"]) == {
        name: name for name in ("A, one", "A, two", "B, one", "B, two")}


def test_the_headline_shows_every_method_of_every_dataset(study):
    (axis,) = headline.figure(study).axes
    assert [text.get_text() for text in axis.texts] == ["decoder", "DA-VL"]
    assert {points.get_label() for points in axis.collections} == {"decoder", "DA-VL"}


def test_the_front_holds_what_no_other_point_dominates():
    points = [(3, 80), (1, 70), (2, 70), (3, 75), (5, 80), (6, 90), (1, 60)]
    assert headline.front(points) == [(1, 70), (3, 80), (6, 90)]
    assert headline.front([(2, 70), (2, 70), (1, 90)]) == [(1, 90)]
    assert headline.front([]) == []


def front_of(axis) -> list[tuple[float, float]]:
    (line,) = (line for line in axis.lines if line.get_label() == "Pareto front")
    return [(x, round(y, 6)) for x, y in line.get_xydata()]


def test_the_front_leaves_out_what_a_training_does_not_gain_and_ends_at_the_highest_cost():
    _, axes = style.panels(3)
    headline.draw_front(axes[0], [(0, 50), (1, 60), (2, 40), (3, 80), (4, 70)])
    assert front_of(axes[0]) == [(1, 60), (3, 80), (4, 80)]
    headline.draw_front(axes[1], [(0, 65), (1, 60), (3, 80)])
    assert front_of(axes[1]) == [(3, 80), (3, 80)]
    headline.draw_front(axes[2], [(0, 50), (1, 60)])
    assert not axes[2].lines


def with_memory(process: dict[str, float], accelerator: dict[str, float] | None = None) -> Study:
    """The study with peak memory by recipe."""
    path = Path("reports/study/runs.csv")
    runs = pd.read_csv(path)
    runs["peak_memory_mib.process"] = runs.recipe.map(process)
    runs["peak_memory_mib.accelerator"] = runs.recipe.map(accelerator or {})
    runs.to_csv(path, index=False)
    return Study("study")


def test_memory_says_whose_it_is_and_is_not_mixed(study):
    process = {"clipseg-decoder": 900, "clipseg-vlsm_dense-vl": 1200}
    own = {"clipseg-decoder": 3000, "clipseg-vlsm_dense-vl": 5000}
    for accelerator, whose, drawn in (({}, "process", process), (own, "accelerator", own),
                                      ({"clipseg-decoder": 3000}, "process", process)):
        (axis,) = headline.memory_figure(with_memory(process, accelerator)).axes
        assert axis.get_xlabel() == f"peak memory of the {whose} in training (MiB)"
        assert {float(points.get_offsets()[0, 0]) for points in axis.collections} == set(drawn.values())
        assert {line.get_label() for line in axis.lines} == {"zero-shot", "Pareto front"}


def test_a_training_without_a_record_of_its_memory_is_left_out(study):
    (axis,) = headline.memory_figure(with_memory({"clipseg-decoder": 900})).axes
    assert {points.get_label() for points in axis.collections} == {"decoder"}
    assert "No training of this study recorded its memory." in headline.memory_figure(with_memory({})).data
