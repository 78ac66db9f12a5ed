"""Counts of a recipe's full-size model."""

import functools
import json
from pathlib import Path

import pytest

from featherseg import cli
from featherseg.core.errors import UserError
from featherseg.describe import describe
from featherseg.papers.counts import describe_with


@pytest.fixture(autouse=True)
def described_once(monkeypatch):
    """The full-size model of a recipe is counted once for all tests that print its table."""
    monkeypatch.setattr("featherseg.papers.counts.describe",
                        lambda recipe, *chosen: describe(recipe, *chosen) if chosen else described(recipe))


described = functools.cache(describe)


def test_groups_add_up_and_no_weights_are_allocated():
    dense = described("clipseg-vlsm_dense-vl")
    assert dense["trainable"] == dense["groups"]["adapter"]["trainable"] == 2_974_464
    assert dense["total"] == 150_747_746 + 2_974_464
    assert dense["image_size"] == 352


def test_multiply_adds_are_those_of_the_layers():
    plain, dense = (described(f"clipseg-{name}")["multiply_adds"] for name in ("zero_shot", "vlsm_dense-vl"))
    vision = 9 * 2 * 485 * 2 * 768 * 64  # blocks x places x tokens x two layers
    text = 9 * 2 * 77 * 2 * 512 * 64
    assert dense - plain == vision + text


def test_the_model_of_a_params_file_can_be_described(capsys):
    cli.main(["describe", "unet_lite-full", "--params", "params.yaml", "--json"])
    assert json.loads(capsys.readouterr().out)["image_size"] == 84


def test_an_image_size_that_does_not_fit_is_one_sentence(tmp_path):
    text = Path("params.yaml").read_text().replace("image_size: 84", "image_size: 65")
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


@pytest.mark.parametrize(("recipe", "bridger", "positions", "head", "shares"), [
    ("etris_r50-bridger", 1_942_080, 141_824, 12_867_072 + 7_899_136 + 5_968_897, ("1.90%", "2.04%")),
    ("etris_r101-bridger", 1_942_080, 141_824, 11_556_352 + 7_899_136 + 4_788_737, ("1.62%", "1.74%")),
    ("etris_vit-bridger", 598_592, 559_360, 9_983_488 + 7_899_136 + 4_788_737, ("0.40%", "0.77%")),
])
def test_etriss_bridger_positions_and_head_are_counted_apart(recipe, bridger, positions, head, shares, capsys):
    counts = described(recipe)
    trained = {name: group["trainable"] for name, group in counts["groups"].items()}
    assert trained == {"vision": 0, "text": 0, "positions": positions, "decoder": head, "adapter": bridger, "unused": 0}
    assert counts["groups"]["unused"]["total"] == 1 and counts["image_size"] == 416
    cli.main(["describe", recipe])
    printed = capsys.readouterr().out
    assert "Bridger {}, with positional embeddings {}".format(*shares) in printed
    assert {"etris_r50-bridger": "1.68 M", "etris_r101-bridger": "1.94 M",
            "etris_vit-bridger": "1.39 M"}[recipe] in printed and "17 tokens" in printed


def test_only_a_bridger_has_a_share_of_the_backbone(capsys):
    counts = described("etris_vit-lora")
    assert counts["backbone_share"] is None
    assert counts["groups"]["adapter"]["trainable"] == 12 * (768 + 512) * 16 * (1 + 3 + 1 + 1)
    cli.main(["describe", "etris_vit-lora"])
    assert "share of the backbone" not in capsys.readouterr().out


def test_a_group_that_a_model_lacks_is_not_printed(capsys):
    cli.main(["describe", "clipseg-decoder"])
    assert "positions" not in capsys.readouterr().out


def test_etriss_head_is_counted_by_part_beside_the_released_code(capsys):
    cli.main(["describe", "etris_r50-bridger-published"])
    rows = {line[:10].rstrip(): line.split()[-3:] for line in capsys.readouterr().out.splitlines()}
    for name, count in {"decoder": "26,735,105", "  neck": "12,867,072", "  decoder": "7,899,136",
                        "  proj": "5,968,897", "adapter": "1,942,080"}.items():
        assert rows[name] == [count] * 3
    cli.main(["describe", "etris_vit-bridger-no_global"])
    printed = capsys.readouterr().out
    assert "released code" not in printed and "  decoder " not in printed and "  neck" in printed


@pytest.mark.parametrize(("recipe", "adapter", "decoder"), [
    ("etris_vit-bridger-stages1", None, 22_671_361), ("etris_vit-bridger-no_projector", 598_592, 17_883_137),
    ("etris_vit-bridger-no_global", 598_592, 14_772_225), ("etris_vit-bridger-dim128", None, 22_671_361)])
def test_ablations_differ_in_what_they_are_named_for(recipe, adapter, decoder):
    trained = {name: group["trainable"] for name, group in described(recipe)["groups"].items()}
    assert trained["decoder"] == decoder and trained["positions"] == 559_360
    assert trained["adapter"] == adapter or adapter is None and trained["adapter"] != 598_592
