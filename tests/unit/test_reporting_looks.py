"""How rows are drawn: the colour says the method, the marker the model, and no two rows of a study look alike."""

import itertools
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from reporting_project import ADAPTERS, REPOSITORY, ROOT_STUDY, make_project

from featherseg.adapters import METHODS
from featherseg.recipes import declared
from featherseg.reporting.looks import UNDECLARED, Look, Row, colour, looks
from featherseg.reporting.study import Study

STUDIES = ["study", *sorted(path.parent.name for path in REPOSITORY.glob("pipelines/*/params.yaml")
                            if "study:" in path.read_text())]
CLEAR = 0.12  # distance of two colours in RGB


def rows(recipes) -> list[Row]:
    found = []
    for name in recipes:
        recipe = declared(name)
        variant = recipe.adapter.get("direction") or recipe.adapter.get("positions") or ""
        found.append(Row(name, recipe.model, recipe.adapter["name"], variant))
    return found


@pytest.fixture
def repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("study", STUDIES)
def test_no_two_rows_of_a_study_share_colour_and_marker(repository, study):
    recipes = Study(study).declared
    drawn = looks(rows(recipes))
    assert set(drawn) == set(recipes) and len(set(drawn.values())) == len(recipes)


@pytest.mark.parametrize("study", ["real_images", "medvlsm"])
def test_rows_with_one_marker_have_colours_that_can_be_told_apart(repository, study):
    drawn = looks(rows(Study(study).declared))
    assert len(drawn) > 8
    for one, other in itertools.combinations(drawn.values(), 2):
        if one.marker == other.marker:
            apart = sum((a - b) ** 2 for a, b in zip(to_rgb(one.colour), to_rgb(other.colour), strict=True)) ** 0.5
            assert apart > CLEAR, (one, other)


def test_one_method_has_one_colour_and_another_marker_on_another_model(repository):
    drawn = looks(rows(["dino_clipseg-decoder", "detris_s-decoder", "clipseg-full", "unet_lite-full"]))
    for one, other in (("dino_clipseg-decoder", "detris_s-decoder"), ("clipseg-full", "unet_lite-full")):
        assert drawn[one].colour == drawn[other].colour and drawn[one].marker != drawn[other].marker
    assert [drawn[name].marker for name in drawn] == ["o", "s", "^", "D"]


def test_rows_that_differ_in_neither_get_shades_and_the_first_keeps_the_colour():
    drawn = looks([Row(f"{count}", "clipseg", "decoder") for count in range(11)])
    assert drawn["0"] == Look(colour("decoder"), "o")
    assert len(set(drawn.values())) == 11 and {look.marker for look in drawn.values()} == {"o"}
    light = [sum(to_rgb(drawn[str(count)].colour)) for count in range(1, 11)]
    assert light == sorted(light)


def test_more_models_than_markers_are_still_told_apart():
    drawn = looks([Row(f"{count}", f"model{count}", "full") for count in range(40)])
    assert len(set(drawn.values())) == 40


def test_every_method_declares_colours_of_its_own():
    declared_colours = []
    for name in METHODS:
        assert METHODS[name].colours, name
        declared_colours += set(METHODS[name].colours.values())
    assert len(declared_colours) == len(set(declared_colours))
    assert [colour("lora", positions) for positions in ("VL", "V", "L")] == ["#CC79A7", "#E3B1CC", "#EFD3E2"]
    assert colour("bridger", "text_to_vision") != colour("bridger", "both") == colour("bridger")
    assert colour("not_a_method") == UNDECLARED


def test_a_study_has_one_look_for_each_recipe_in_the_order_of_its_params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, ROOT_STUDY, ("lesions",), collected=True)
    assert set(ROOT_STUDY) <= set(ADAPTERS)
    file = Path("params.yaml")
    file.write_text(file.read_text().replace("recipes: []", f"recipes: [{', '.join(ROOT_STUDY)}]"))
    drawn = Study("study").looks
    assert list(drawn) == list(ROOT_STUDY)
    assert drawn["dino_clipseg-decoder"] == Look("#E69F00", "o") and drawn["detris_s-decoder"] == Look("#E69F00", "s")
