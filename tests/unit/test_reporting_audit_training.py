"""The evidence on how released code steers a training, and that it would say so were ours the same."""

import pytest

from featherseg.papers.medvlsm import audit_training as audit


def test_loss_and_dsc_lower_the_rate_at_other_epochs():
    frame = audit.plateaus()
    assert frame["rates differ in"].iloc[0] >= 19
    first = frame.set_index("waits for")["first fall after epoch"]
    assert first[audit.WATCHED["published_loss"]] < first[audit.WATCHED["dsc"]]
    assert "of 20 simulated trainings" in audit.plateau_verdict(frame)


def test_two_schedules_that_watch_one_quantity_do_not_differ(monkeypatch):
    rates = audit._rates
    monkeypatch.setattr(audit, "_rates", lambda watched, values: rates("dsc", range(len(values))))
    assert "The rates differ in 0 of 20" in audit.plateau_verdict(audit.plateaus())


def test_of_equal_epochs_the_released_code_keeps_a_later_one():
    frame = audit.kept_epochs(trainings=50).set_index("equal scores")
    assert frame.loc["none", "another epoch"] > 20 and abs(frame.loc["none", "epochs later"]) < 5
    assert frame.loc["rounded to 1 point", "epochs later"] > 5
    assert "epochs on average" in audit.kept_verdict(frame.reset_index())


def test_a_choice_of_the_first_of_equals_would_be_told(monkeypatch):
    monkeypatch.setattr(audit, "is_best", lambda score, former, config: all(score > other for other in former))
    assert audit.kept_epochs(trainings=50)["epochs later"].abs().max() < 5


def test_positional_embeddings_train_at_the_heads_rate_as_published():
    frame = audit.position_rates().set_index(["tower_positions", "part"])
    published = frame.loc["published_full_rate"]
    assert published.rate["positional embeddings"] == published.rate["head"] == pytest.approx(1e-4)
    assert published.tensors["positional embeddings"] == 2, "of the text tower and of the attention pool"
    assert frame.loc["tower_rate"].rate["positional embeddings"] == pytest.approx(1e-5)
    said = audit.positions_verdict(frame.reset_index())
    assert "`tower_rate`: positional embeddings train at 1 x" in said
    assert "`published_full_rate`: positional embeddings train at 10 x" in said


def test_logit_scale_is_counted_and_gets_no_gradient(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    frame = audit.counted_as_trained()
    assert (frame["released code's count"] - frame["trained here"]).item() == 1
    assert "`logit_scale` gets NO gradient, so that 146,849,121 of 146,849,122" in audit.count_verdict(frame)
    assert "a gradient of norm 0.5" in audit.count_verdict(frame.assign(**{"gradient of logit_scale": 0.5}))


def test_a_short_last_batch_is_left_out():
    frame = audit.last_batches().set_index(["dataset", "batch"])
    assert frame.loc[("refcoco", 64), "left out"] == 42404 % 64 and frame.loc[("refcocog_umd", 64), "left out"] == 50
    assert "up to 50 references (0.12 %" in audit.batches_verdict(frame.reset_index())


def test_a_loader_that_keeps_it_would_be_told(monkeypatch):
    monkeypatch.setattr(audit, "trained_per_epoch", lambda samples, config: samples)
    assert "leaves out up to 0 references" in audit.batches_verdict(audit.last_batches())


def test_levels_of_prompts_score_differently():
    frame = audit.prompt_levels().set_index("prompts").DSC
    assert list(frame.index) == ["p1", "p2", "p3", "p4", "p5", "p6", "random"] and frame.nunique() > 3
    assert "By the level alone the score of one model moves by" in audit.prompts_verdict(frame.reset_index())


def test_every_part_has_a_heading_a_table_and_a_verdict(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    parts = audit.steering()
    assert sum(str(getattr(part, "data", "")).startswith("###") for part in parts) == 6 and len(parts) == 18
