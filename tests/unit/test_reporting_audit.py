"""The audit's evidence, and that it would say so were a fault repaired."""

import sys

import pytest

from featherseg import papers
from featherseg.papers.differences import differences
from featherseg.papers.modules import offering
from featherseg.papers.vlsm_adapter import audit


@pytest.fixture(scope="module")
def gradients():
    return audit.gradients()


def test_the_librarys_forward_leaves_both_towers_without_gradient(gradients):
    table = gradients.set_index(["method", "forward", "part"])
    for method in ("full", "lora"):
        for part in ("vision", "text"):
            assert table.loc[(method, audit.LIBRARY, part), "with gradient"] == 0
            ours = table.loc[(method, audit.OURS, part)]
            assert ours["with gradient"] == ours["tensors to train"] > 0
    assert table.loc[("full", audit.LIBRARY, "decoder"), "gradient norm"] == pytest.approx(
        table.loc[("full", audit.OURS, "decoder"), "gradient norm"], rel=1e-4)
    logits = gradients.groupby("method")["mean logit"]
    assert (logits.max() - logits.min()).max() < 1e-5
    assert "NO gradient, and no error: vision and text under full; vision and text under lora" in (
        audit.gradients_verdict(gradients))


def test_a_repaired_library_would_be_found_sound():
    repaired = audit.gradients({audit.LIBRARY: audit.FORWARDS[audit.OURS]})
    assert "NO gradient" not in audit.gradients_verdict(repaired)


def test_our_own_forward_would_be_found_out():
    broken = audit.gradients({audit.OURS: audit.FORWARDS[audit.LIBRARY]})
    assert f"forward of {audit.OURS} NO gradient" in audit.gradients_verdict(broken)


def test_a_perfect_mask_costs_what_the_formula_says():
    losses = audit.perfect_mask_losses((0.01, 0.15, 1.0))
    assert list(losses[audit.TWICE]) == pytest.approx([0.6893, 0.6361, 0.3133], abs=1e-4)
    assert list(losses[audit.MONAI]) == pytest.approx(list(losses[audit.TWICE]), abs=1e-4)
    assert losses[audit.CORRECT].max() < 1e-6
    assert "still costs 0.69 at 1%" in audit.losses_verdict(losses)


def test_a_loss_without_the_second_sigmoid_would_be_found_out():
    losses = audit.perfect_mask_losses((0.01, 1.0))
    assert "NOT REPRODUCED" in audit.losses_verdict(losses.assign(**{audit.TWICE: losses[audit.CORRECT]}))


def test_only_the_copied_loop_sees_the_future():
    said = audit.leakage_verdict(audit.leakage())
    assert "copied loop, no mask: mask LOST" in said
    assert "featherseg: mask kept" in said and "transformers' own forward: mask kept" in said


def test_a_tower_of_ours_without_its_mask_would_be_found_out():
    said = audit.leakage_verdict(audit.leakage({"featherseg": audit.WALKS["copied loop, no mask"]}))
    assert "featherseg: mask LOST" in said


def test_every_difference_of_a_published_recipe_is_listed(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    listed = differences()
    assert {"towers", "loss", "rate"} <= set(listed.field)
    assert listed[listed.field == "rate"].evidence.eq("trap 7, below").all()
    assert listed[listed.field == "loss"].evidence.eq("trap 2, below").all()
    assert listed.recipe.str.endswith("-published").all()
    assert not listed.evidence.str.startswith("named").any(), "each difference is measured"


def test_a_paper_is_found_by_its_folder(tmp_path, monkeypatch):
    for name, text in (("mine", "EVIDENCE = {'field': 'trap 99'}"), ("other", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "notes.py").write_text(text)
    monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(tmp_path)])
    (found,) = offering("notes", "EVIDENCE")
    assert found.EVIDENCE == {"field": "trap 99"}
    for name in ("mine", "mine.notes", "other", "other.notes"):
        del sys.modules[f"featherseg.papers.{name}"]
