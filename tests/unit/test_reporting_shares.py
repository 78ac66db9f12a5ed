"""Shares of the training images: what the study declares, and the table and figure of what methods make of them."""

import itertools
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from reporting_project import REPOSITORY, describe_recipe, make_project, make_run, rescore

from featherseg.config import Run, write_run
from featherseg.core.files import write_json
from featherseg.overview import shares
from featherseg.plan import resolve_study
from featherseg.reporting.collect import collect
from featherseg.reporting.study import Study
from featherseg.reporting.tables import Table

METHODS = ("decoder", "vlsm_shallow-vlc")
PERCENT = {10: 4, 100: 40}  # share in % -> training images
SPARE = "dino_clipseg-lora"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A study of three methods on two sets; runs of the third one alone say how many images they were trained on."""
    monkeypatch.chdir(tmp_path)
    recipes = (*(f"dino_clipseg-{method}" for method in METHODS), SPARE)
    make_project(tmp_path, recipes, ("lesions", "organs"))
    for dataset in ("lesions", "organs"):
        write_json(Path("runs/study/info") / f"{SPARE}-{dataset}-0.json", {"training_images": 40})
    return tmp_path


def scored(method: str, dataset: str, percent: int, dsc: float, prompts: str = "", seed: int = 0) -> None:
    """A run on a share of the images, with this DSC."""
    base = make_run("study", f"dino_clipseg-{method}", dataset, seed)
    recipe = f"dino_clipseg-{method}-share{percent}{prompts and '-'}{prompts}"
    settings = {"share": percent / 100, "epochs": 500 // percent} | ({"prompts": prompts} if prompts else {})
    run = base.model_copy(update={"recipe": recipe, "train": base.train.model_copy(update=settings)})
    write_run(Path("runs/study/plan"), run)
    describe_recipe("study", recipe)
    shutil.copytree(f"runs/study/evaluate/dino_clipseg-{method}-{dataset}-0", f"runs/study/evaluate/{run.name}")
    write_json(Path("runs/study/info") / f"{run.name}.json", {"training_images": PERCENT[percent]})
    rescore(run.name, "dsc", value=dsc)


def opened() -> Study:
    collect("study")
    return Study("study")


def test_without_shares_nothing_is_shown(project):
    assert shares.shown(opened()) == []


def test_runs_that_differ_in_their_share_are_lines_of_one_method(project):
    for method, dataset, percent in itertools.product(METHODS, ("lesions", "organs"), PERCENT):
        scored(method, dataset, percent, (percent + len(method)) / 200)
        scored(method, dataset, percent, (percent + len(method)) / 400, "p0")
    note, figure, table = shares.shown(opened())
    assert "Dashed" in note.data and isinstance(table, Table)
    lines = table.data
    assert list(lines.dataset) == ["lesions"] * 8 + ["organs"] * 8
    names = ["DINO-CLIPSeg, decoder", "DINO-CLIPSeg, decoder, P0", "DINO-CLIPSeg, SA-VLC", "DINO-CLIPSeg, SA-VLC, P0"]
    ours = lines[lines.dataset == "organs"]
    assert set(ours.method) == set(names) and len(ours) == 8
    by_place = ours.set_index(["method", "training images"])
    assert by_place.DSC[names[0], 4] == pytest.approx(100 * 17 / 200)
    assert by_place.DSC[names[1], 40] == pytest.approx(100 * 107 / 400)
    assert dict(by_place["% of images"][names[2]]) == {4: 10, 40: 100}

    assert isinstance(figure, Figure)
    for axis in figure.axes:
        assert axis.get_xscale() == "log" and [text.get_text() for text in axis.get_xticklabels()] == ["4", "40"]
        drawn = {line.get_label(): line for line in axis.lines}
        assert set(drawn) == set(names)
        for name, line in drawn.items():
            assert line.get_linestyle() == ("--" if name.endswith("P0") else "-")
            assert list(line.get_xdata()) == [4, 40]
            assert list(line.get_ydata()) == pytest.approx(list(by_place.DSC[name]))
        assert len({(line.get_color(), line.get_marker()) for line in drawn.values()}) == 4


def test_seeds_are_averaged_and_a_method_without_shares_is_left_out(project):
    for seed, dsc in ((0, 0.4), (1, 0.6)):
        scored("decoder", "lesions", 10, dsc, seed=seed)
        scored("decoder", "lesions", 100, dsc + 0.2, seed=seed)
    rows = shares.scored(opened())
    assert list(rows.dsc) == pytest.approx([50, 70])
    assert list(rows.training_images) == [4, 40]


def test_the_study_has_every_method_with_and_without_prompts_on_every_share(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    runs = resolve_study("real_shares")
    methods: dict[str, list[Run]] = {}
    for run in runs:
        if run.dataset == "polyp":
            methods.setdefault(shares._method(run), []).append(run)
    assert {run.dataset for run in runs} == {"chest", "polyp", "skin"}
    policies = [(run.adapter["name"], run.train.prompts, run.train.val_prompts, run.evaluate.prompts)
                for run, *_ in methods.values()]
    assert policies == [(name, *prompts) for name in ("decoder", "vlsm_shallow") for prompts in (
        ("random", "fullest", "fullest"), ("p0", "p0", "p0"))]
    for alike in methods.values():
        assert [run.train.share for run in alike] == [0.1, 0.25, 0.5, 1]
        assert {run.train.share * run.train.epochs for run in alike} == {20}
        assert {run.train.early_stop_patience for run in alike} == {None}
