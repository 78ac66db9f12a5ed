"""The evidence on the medical code's traps, and that it would say so were a fault repaired or made here."""

import json
from pathlib import Path

import numpy as np
import pytest

from featherseg.data.folder.list_faults import KINDS, Kind
from featherseg.models.biomedclipseg.model import BiomedCLIPSeg
from featherseg.papers.medvlsm import audit
from featherseg.papers.medvlsm import audit_lists as lists
from featherseg.papers.medvlsm import audit_scores as scores


def test_the_released_list_reads_one_block_later():
    frame = audit.tap_depths()
    read = {name: list(rows["block read"]) for name, rows in frame.groupby("read by")}
    assert read == {audit.LIBRARY: [3, 6, 9], audit.RELEASED: [4, 7, 10], audit.OURS: [3, 6, 9],
                    audit.OURS_AS_RELEASED: [4, 7, 10]}
    assert "reads blocks 4, 7, 10, each one later" in audit.tap_verdict(frame)


def test_a_tap_of_ours_at_another_depth_would_be_found_out(monkeypatch):
    encode = BiomedCLIPSeg.encode_image
    monkeypatch.setattr(BiomedCLIPSeg, "encode_image", lambda model, pixels: encode(model, pixels).map(lambda t: 2 * t))
    frame = audit.tap_depths()
    assert set(frame[frame["read by"] == audit.OURS]["block read"]) == {-1}
    assert audit.tap_verdict(frame).startswith("NOT SHOWN: blocks later than asked for are CLIPSeg, transformers' own")


def test_padding_with_the_end_token_masks_nothing():
    frame = audit.padding().set_index(["text_padding", "prompt"])
    released, ours = frame.loc[audit.UNMASKED], frame.loc[audit.MASKED]
    assert (released["token 0"] == 0).all() and (ours["token 0"] == ours["filled up"]).all()
    assert (released.masked == 0).all() and (ours.masked == ours["filled up"]).all() and (ours.masked > 0).all()
    assert ours.tokens["(empty)"] == 2 and ours.tokens["polyp"] == 4
    assert (released["change of a logit"] > 1e-3).all() and (ours["change of a logit"] < 1e-5).all()
    said = audit.padding_verdict(frame.reset_index())
    assert "`published_unmasked`: 0 of 51 tokens of padding are masked, another length moves a logit by" in said
    assert "`masked`: 51 of 51 tokens of padding are masked, another length moves no logit" in said


def test_a_mask_of_ours_that_masks_nothing_would_be_found_out(monkeypatch):
    small = audit._cris
    monkeypatch.setattr(audit, "_cris", lambda length, how: small(length, audit.UNMASKED))
    said = audit.padding_verdict(audit.padding())
    assert "`masked`: 0 of 51 tokens of padding are masked, another length moves a logit" in said


def test_drawing_one_prompt_after_another_moves_the_score_of_one_model():
    frame = scores.prompt_draws(evaluations=12, images=5).set_index("prompts")
    assert frame.range[scores.DRAWN] > 0.05 and frame.lowest[scores.DRAWN] > 1
    assert frame.range[scores.SEEDED] == 0 and frame.range[scores.FULLEST] == 0
    assert frame.lowest[scores.SEEDED] != frame.lowest[scores.FULLEST], "the policies choose alike, so nothing is shown"
    said = scores.draws_verdict(frame.reset_index())
    assert "moves by" in said and "here it moves by 0.00" in said


def test_scores_of_ours_that_move_would_be_found_out(monkeypatch):
    import random

    from featherseg.tasks.segmentation import trials

    drawn = random.Random(0)
    monkeypatch.setattr(trials, "prompt_of", lambda sample, level, rng=None: drawn.choice(
        list(sample.prompts.values()))[0])
    assert scores.draws_verdict(scores.prompt_draws(evaluations=12, images=5)).startswith("NOT SHOWN")


def write_lists(folder: Path, **rows: list[str]) -> Path:
    folder.mkdir(parents=True)
    for split, names in rows.items():
        (folder / f"{split}.json").write_text(json.dumps([
            {"img_name": name, "mask_name": name, "prompts": {"p0": "", "p1": "polyp"}} for name in names]))
    return folder


def test_faults_of_lists_are_read_off_the_lists(tmp_path):
    sound = write_lists(tmp_path / "sound", train=["a.jpg"], val=["b.jpg"], test=["c.jpg"])
    leaking = write_lists(tmp_path / "leaking", train=["a.jpg", "d.jpg"], val=["b.jpg"], test=["c.jpg", "a.jpg"])
    frame = lists.faults_of_lists({"kvasir_seg": sound, "bkai": leaking})
    published = frame[frame.lists == lists.PUBLISHED_LISTS]
    assert list(published.dataset) == ["bkai"] and published["rows"].item() == 1 and "a.jpg" in published.fault.item()
    assert "1 faults in the published lists of 1 sets: bkai." in lists.lists_verdict(frame)
    assert "No published list is here" in lists.lists_verdict(lists.faults_of_lists({"kvasir_seg": sound}))


def test_every_kind_of_fault_is_drawn_and_found_once():
    frame = lists.faults_of_lists({})
    assert sorted(frame.kind) == sorted(KINDS) and set(frame.lists) == {lists.DRAWN_LISTS}
    assert "byte for byte that of colondb" in frame.set_index("dataset").fault["cvc300"]
    assert lists.lists_verdict(frame).startswith("Each of the 7 kinds of fault is found where it was drawn")


def test_a_fault_that_is_passed_over_or_made_up_would_be_found_out(monkeypatch):
    monkeypatch.setitem(KINDS._entries, "row_listed_twice", Kind(lambda lists, here: iter(()), ""))
    said = lists.lists_verdict(lists.faults_of_lists({}))
    assert said.startswith("NOT SHOWN: in drawn lists 6 faults") and "not found: row_listed_twice;" in said
    monkeypatch.setitem(KINDS._entries, "row_listed_twice", Kind(lambda lists, here: iter([(1, "a fault")]), ""))
    assert "sound lists with a fault: isic2016" in lists.lists_verdict(lists.faults_of_lists({}))


def test_lists_are_those_downloaded_or_of_the_mirror(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("study: {datasets: [], recipes: [], seeds: [0]}\ndata: {mirror: shelf}\n")
    write_lists(Path("shelf/medvlsm/bkai_polyp"), train=["a.jpg", "a.jpg"])
    write_lists(Path("data/raw/isic2016/anns"), train=["b.jpg"], test=["b.jpg"])
    frame = lists.faults_of_lists()
    assert set(frame[frame.lists == lists.PUBLISHED_LISTS].dataset) == {"bkai", "isic2016"}


def test_every_convention_on_every_case_of_empty_masks():
    frame = scores.empty_masks().set_index("case")
    dsc = {name: frame[f"DSC, {name}"] for name in (scores.LEFT_OUT, scores.COUNTED, scores.HERE)}
    both, found, missed = scores.CASES[1:]
    assert np.isnan(dsc[scores.LEFT_OUT][[both, found]]).all() and dsc[scores.LEFT_OUT][missed] == 0
    for name in (scores.COUNTED, scores.HERE):
        assert list(dsc[name][[both, found, missed]]) == [1, 0, 0]
    assert frame["HD95, MONAI"][[both, found, missed]].isna().all()
    assert list(frame["HD95, featherseg"][[both, found, missed]]) == [0, 50, 50]
    overlap = frame.loc[scores.CASES[0]]
    assert overlap["DSC, featherseg"] == pytest.approx(0.8) == overlap[f"DSC, {scores.COUNTED}"]
    assert overlap["HD95, MONAI"] == overlap["HD95, featherseg"] == 2
    mean = frame.iloc[-1]
    assert mean[f"DSC, {scores.LEFT_OUT}"] == pytest.approx(0.8)
    assert mean[f"DSC, {scores.HERE}"] == pytest.approx((0.8 * 647 + 67) / 780)
    said = scores.empty_verdict(frame.reset_index())
    assert "a mean DSC of 80.0 %, with the flag 74.9 %, here 74.9 %" in said and "each case is the same" in said


def test_another_rule_of_ours_would_be_told(monkeypatch):
    monkeypatch.setattr(scores, "dice", lambda prediction, truth: 0.0)
    assert "each case is NOT the same" in scores.empty_verdict(scores.empty_masks())


def test_every_trap_has_a_heading_a_table_and_a_verdict(monkeypatch):
    monkeypatch.setattr(lists, "_lists_here", dict)
    heads = [part.data.partition("\n")[0] for part in (*audit.models(), *scores.scores())
             if getattr(part, "data", None) is not None and str(part.data).startswith("#")]
    assert [head.partition(":")[0] for head in heads] == [
        "## MedVLSM", "### Trap 4", "### Trap 13", "### Frozen, and dropping out", "### Trap 8", "### Trap 11",
        "### Trap 12"]


def test_a_frozen_text_tower_that_drops_out_says_something_else_each_time():
    frame = audit.text_dropout().set_index("text_dropout")
    assert frame.loc[0.1, "change in training"] > 0.01 and frame.loc[0.1, "change in evaluation"] == 0
    assert (frame.loc[0.0] == 0).all()
    assert "`text_dropout: 0` moves a prompt's vector by 0.0 %" in audit.dropout_verdict(frame.reset_index())
