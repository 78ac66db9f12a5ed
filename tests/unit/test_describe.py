"""Counts of a recipe's full-size model."""

import json
from pathlib import Path

import pytest

from featherseg import cli
from featherseg.describe import describe, describe_with
from featherseg.errors import UserError


def test_groups_add_up_and_no_weights_are_allocated():
    described = describe("clipseg-vlsm_dense-vl")
    assert described["trainable"] == described["groups"]["adapter"]["trainable"] == 2_974_464
    assert described["total"] == 150_747_746 + 2_974_464
    assert described["image_size"] == 352


def test_multiply_adds_are_those_of_the_layers():
    plain, dense = describe("clipseg-zero_shot")["multiply_adds"], describe("clipseg-vlsm_dense-vl")["multiply_adds"]
    vision = 9 * 2 * 485 * 2 * 768 * 64  # blocks x places x tokens x two layers
    text = 9 * 2 * 77 * 2 * 512 * 64
    assert dense - plain == vision + text


def test_the_model_of_a_params_file_can_be_described(capsys):
    cli.main(["describe", "clipseg-vlsm_dense-vl", "--params", "params.yaml", "--json"])
    described = json.loads(capsys.readouterr().out)
    assert described["image_size"] < 352 and described["trainable"] < 100_000


def test_an_image_size_that_does_not_fit_is_one_sentence(tmp_path):
    text = Path("params.yaml").read_text().replace("image_size: 64", "image_size: 65")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match="image_size 65 is not a multiple of the patch size"):
        describe_with("clipseg-decoder", str(tmp_path / "params.yaml"))


def test_the_table_names_the_published_count(capsys):
    cli.main(["describe", "clipseg-vlsm_dense-vl"])
    printed = capsys.readouterr().out
    assert "2,974,464" in printed and "3 M (VLSM-Adapter, Table 1" in printed


def test_an_unknown_recipe_names_the_closest():
    with pytest.raises(UserError, match="did you mean 'clipseg-vlsm_dense-vl'"):
        describe("clipseg-vlsm_dens-vl")
