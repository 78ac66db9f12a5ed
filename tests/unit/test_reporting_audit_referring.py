"""The evidence on the referring code's traps, and that it would say so were a fault repaired or made here."""

import numpy as np
import pytest

from featherseg import adapters
from featherseg.papers.etris import audit
from featherseg.papers.etris import audit_training as training


def test_choosing_on_the_reported_split_adds_where_nothing_improved():
    frame = audit.selection(trainings=100)
    assert (frame["gained by choosing"] > 0.3).all() and (frame["chosen on another split"] - 50).abs().max() < 0.3
    assert frame["gained by choosing"].is_monotonic_increasing, "fewer expressions, more noise, more gained"
    assert "adds +0." in audit.selection_verdict(frame)
    # the largest of 15 independent normal values lies 1.736 deviations above their mean
    assert frame["gained by choosing"].iloc[0] == pytest.approx(1.736 * 15 / np.sqrt(1798), rel=0.1)


def test_one_epoch_leaves_nothing_to_choose():
    assert "NOT SHOWN" in audit.selection_verdict(audit.selection(epochs=1))


def test_the_two_measures_rank_the_same_predictions_differently():
    frame = audit.measures_apart()
    table = frame.set_index(["model", "threshold"])
    small, large = dict.fromkeys(frame.model)
    assert table.mIoU[small, 0.35] > table.mIoU[large, 0.35] and table.oIoU[small, 0.5] < table.oIoU[large, 0.5]
    said = audit.measures_verdict(frame)
    assert f"mIoU@0.35 ranks the one {small} first, oIoU@0.5 the one {large}" in said
    assert "both rank the same" in audit.measures_verdict(frame.assign(oIoU=frame.mIoU))


def test_the_first_epoch_runs_at_ten_times_the_rate_without_lr():
    frame = training.learning_rates().set_index(["groups", "part"])
    released = frame.loc["released code: initial_lr only"]
    assert released.loc["backbone", training.FIRST] == pytest.approx(1e-4)
    assert released.loc["backbone", training.LAST_OF] == pytest.approx(1e-5)
    ours = frame.loc["featherseg, tower_lr_from 1"]
    assert ours.loc["backbone", training.FIRST] == ours.loc["backbone", training.LAST_OF] == pytest.approx(1e-5)
    assert ours.loc["head", "from epoch 36"] == pytest.approx(1e-5)
    epochs = [training.FIRST, training.LAST_OF, "from epoch 36"]
    published = frame.loc["featherseg, tower_lr_from 2 (as released)", epochs]
    assert published.to_numpy() == pytest.approx(released[epochs].to_numpy()), "our twin does what was released"
    said = training.rates_verdict(training.learning_rates())
    assert "initial_lr only: the backbone trains at 10 x the intended rate in the first epoch and at 1 x" in said
    assert "tower_lr_from 1: the backbone trains at 1 x the intended rate in the first epoch and at 1 x" in said


def test_an_optimiser_of_ours_that_forgets_the_towers_would_be_found_out(monkeypatch):
    from featherseg import engine

    plain = engine.make_optimizer
    monkeypatch.setattr(engine, "make_optimizer", lambda config, parameters, towers: plain(config, parameters))
    said = training.rates_verdict(training.learning_rates())
    assert "tower_lr_from 1: the backbone trains at 10 x the intended rate in the first epoch and at 10 x" in said


def test_equal_rates_hide_the_fault_as_in_etris():
    frame = training.learning_rates(factor=1.0)
    assert (frame[training.FIRST] == frame.intended).all()


def test_frozen_statistics_move_as_published_and_stay_by_default():
    frame = training.batchnorm_statistics().set_index("frozen_batchnorm")
    moving, fixed = frame.loc["published_moving"], frame.loc["fixed"]
    assert moving["layers moved"] == moving["layers in the towers"] == 23 and moving["change of a logit"] > 0
    assert fixed["layers moved"] == 0 and fixed["change of a logit"] == 0
    said = training.batchnorm_verdict(frame.reset_index())
    assert "`published_moving`: 23 of 23 frozen layers MOVED" in said and "`fixed`: 0 of 23 frozen layers moved" in said


def test_statistics_of_ours_that_move_would_be_found_out(monkeypatch):
    from torch import nn

    from featherseg.models.base import SegmentationModel

    monkeypatch.setattr(SegmentationModel, "train", nn.Module.train)
    assert "`fixed`: 23 of 23 frozen layers MOVED" in training.batchnorm_verdict(training.batchnorm_statistics())


def test_out_proj_gets_no_gradient_and_the_attention_does():
    frame = training.lora_targets().set_index("LoRA on")
    assert frame.loc["attn.out_proj", "tensors to train"] == 12
    assert frame.loc["attn.out_proj", ["with gradient", "gradient norm"]].eq(0).all()
    ours = frame.loc["attn, as featherseg does"]
    assert ours["with gradient"] == ours["tensors to train"] > 0
    assert "attn.out_proj: NONE of 12 tensors" in training.lora_verdict(frame.reset_index())


def test_lora_of_ours_on_out_proj_would_be_found_out(monkeypatch):
    monkeypatch.setitem(training.TARGETS, "attn, as featherseg does", training.TARGETS["attn.out_proj"])
    assert "featherseg does: NONE of 12" in training.lora_verdict(training.lora_targets())


def test_the_bridger_sees_padding_and_the_head_does_not():
    said = training.lengths_verdict(training.word_lengths())
    assert "ETRIS with the Bridger: logits move by up to" in said
    assert "ETRIS, head only: the padding changes nothing" in said


def test_equal_word_lengths_change_nothing():
    assert "logits move" not in training.lengths_verdict(training.word_lengths((17, 17)))


def test_the_abstracts_upper_share_follows_from_nothing_that_is_released():
    said = training.shares_verdict(training.bridger_shares())
    assert "1.61 % is Bridger of ETRIS RN101 over CLIP with connect" in said
    assert "3.38 % DOES NOT FOLLOW from any of them; the closest is 3.39 %" in said


def test_a_share_that_follows_would_be_found():
    frame = training.bridger_shares()
    frame.loc[3, "% of it"] = 3.378
    assert "DOES NOT FOLLOW" not in training.shares_verdict(frame)


def test_the_small_models_are_always_the_same():
    one, other = training.tiny_vit(), training.tiny_vit(22)
    for left, right in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert (left == right).all()
    assert adapters.trainable(training.tiny_resnet())
