"""Recipes that extend a shared file or each other: what they resolve to, and what is refused."""

import shutil
from pathlib import Path

import pytest

from featherseg.cli import main
from featherseg.config import read_yaml, write_yaml
from featherseg.core.errors import UserError
from featherseg.plan import read_recipe
from featherseg.recipes import declared, merged, recipe_names, resolved

ROOT = Path(__file__).parents[2]
ROW = {"title": "Mine", "model": "clipseg", "adapter": {"name": "decoder"}}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with the real recipes, as the working directory."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_rows_own_keys_come_first_and_sections_are_merged_key_by_key(project):
    write_yaml("recipes/shared/mine.yaml", {
        "image_size": {"default": 64, "organs": 96}, "evaluate": {"batch_size": 2},
        "train": {"lr": 0.1, "epochs": 3, "milestones": [1], "loss": {"lambda_ce": 0.5, "grid": "head"}}})
    write_yaml("recipes/mine.yaml", ROW | {"extends": "shared/mine", "image_size": {"default": 32},
                                           "train": {"lr": 0.2, "milestones": None, "loss": {"grid": "input"}}})
    assert resolved("mine") == ROW | {
        "image_size": {"default": 32}, "evaluate": {"batch_size": 2},
        "train": {"lr": 0.2, "epochs": 3, "milestones": None, "loss": {"lambda_ce": 0.5, "grid": "input"}}}


def test_a_section_that_is_null_leaves_nothing_of_the_shared_one():
    assert merged({"train": {"lr": 1}}, {"train": None}) == {"train": None}


def test_a_recipe_may_extend_another_recipe_that_extends_a_file(project):
    write_yaml("recipes/mine.yaml", {"title": "Mine", "extends": "etris_r50-bridger-published", "adapter": {"dim": 8}})
    base, mine = read_recipe("etris_r50-bridger-published"), read_recipe("mine")
    assert mine.adapter == base.adapter | {"dim": 8}
    assert (mine.train, mine.knobs, mine.published) == (base.train, base.knobs, base.published)


def test_shared_files_are_no_recipes(project):
    assert (project / "recipes/shared/referring.yaml").is_file()
    assert not [name for name in recipe_names() if "referring" in name and "cris" not in name]
    with pytest.raises(UserError, match="a name consists of letters"):
        declared("shared/referring")


@pytest.mark.parametrize(("files", "said"), [
    ({"mine": ROW | {"extends": "shared/referrin"}}, "recipes/mine.yaml: unknown file to extend 'shared/referrin': "
                                                     "did you mean 'shared/referring'"),
    ({"mine": ROW | {"extends": 3}}, "recipes/mine.yaml: unknown file to extend '3'"),
    ({"mine": ROW | {"extends": ["shared/referring"]}}, "recipes/mine.yaml: unknown file to extend"),
    ({"mine": ROW | {"extends": "mine"}}, "recipes/mine.yaml: key 'extends' leads in a circle: recipes/mine.yaml -> "
                                          "recipes/mine.yaml"),
    ({"mine": {"extends": "other"}, "other": {"extends": "mine"}},
     "recipes/mine.yaml -> recipes/other.yaml -> recipes/mine.yaml"),
    ({"mine": ROW | {"extends": "shared/broken"}, "shared/broken": ["a"]}, "recipes/shared/broken.yaml should hold"),
    ({"mine": {"extends": "shared/short"}, "shared/short": {"model": "clipseg"}}, "recipes/mine.yaml: key 'title'")])
def test_what_cannot_be_extended_is_one_sentence(project, files, said):
    for name, values in files.items():
        write_yaml(f"recipes/{name}.yaml", values)
    with pytest.raises(UserError) as refused:
        read_recipe("mine")
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("command", [["describe", "etris_vit-bridger", "--resolved"],
                                     ["check", "--recipe", "etris_vit-bridger"]])
def test_the_resolved_recipe_is_printed_as_yaml_with_its_files(project, capsys, command):
    main(command)
    printed = capsys.readouterr().out
    assert printed.startswith("# recipes/etris_vit-bridger.yaml\n#   extends recipes/shared/referring.yaml\n")
    assert "clip_norm: null" in printed
    Path("printed.yaml").write_text(printed)
    assert read_yaml("printed.yaml") == resolved("etris_vit-bridger")


def test_a_faulty_recipe_is_refused_in_place_of_being_printed(project, capsys):
    write_yaml("recipes/mine.yaml", ROW | {"train": {"epochz": 3}})
    with pytest.raises(SystemExit, match="epochz"):
        main(["check", "--recipe", "mine"])
    assert capsys.readouterr().out == ""
