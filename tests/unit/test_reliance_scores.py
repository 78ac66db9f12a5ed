"""Proof of the instruments: models whose reliance is known are scored as exactly that."""

import re

import numpy as np
import pandas as pd
import pytest
from reliance_data import control_scores, control_trials, drawn, found, halves

from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.reliance import scores, suite
from featherseg.reliance.controls import BOTH, IMAGE_ONLY, LANGUAGE_ONLY, MUST_BE, NEITHER, Controls
from featherseg.reliance.predictor import segment_with
from featherseg.reliance.scores import score
from featherseg.reliance.statistics import Groups
from featherseg.reliance.trials import interventions, plan
from featherseg.reliance.verdict import (
    CANNOT_TELL,
    MISLED,
    UNDECIDED,
    decides,
    gains,
    paragraph,
    title,
    verdict,
    wrong_controls,
)

SETS = ("lesions", "scenes", "organs")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("reliance")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("control", "answer"), [
    ("text-blind", IMAGE_ONLY), ("image-blind", LANGUAGE_ONLY), ("oracle", BOTH), ("random", NEITHER)])
def test_each_control_is_found_out(root, name, control, answer):
    """Where one structure is all there is to find, even a model that reads its prompt needs the image only."""
    if (name, control) == ("lesions", "oracle"):
        answer = IMAGE_ONLY
    result = control_scores(drawn(root, name), control)
    assert decides(result) == answer, paragraph(result, control, name)


@pytest.mark.parametrize("name", SETS)
def test_a_model_that_ignores_a_modality_loses_exactly_nothing_without_it(root, name):
    everything = {"text": None, "image": None}
    blind = control_scores(drawn(root, name), "text-blind", **everything)
    texts = [one for one in blind["conditions"] if one["modality"] == "text"]
    assert len(texts) > 15
    assert {(one["drop"], one["low"], one["high"], one["p"], one["changed"]["value"]) for one in texts} == {
        (0.0, 0.0, 0.0, 1.0, 0.0)}
    assert blind["perceptual"]["text"] == {"score": 0.0, "low": 0.0, "high": 0.0}
    assert blind["shapley"]["shares"]["text"]["value"] == 0 and blind["shapley"]["shares"]["image"]["value"] == 1
    seeing_nothing = control_scores(drawn(root, name), "image-blind", **everything)
    images = [one for one in seeing_nothing["conditions"] if one["modality"] == "image"]
    assert len(images) == 5 and {one["drop"] for one in images} == {0.0}
    assert seeing_nothing["shapley"]["shares"]["image"]["value"] == 0
    assert seeing_nothing["perceptual"]["image"]["score"] == 0


def test_following_tells_a_reader_from_a_model_that_does_not_listen(root):
    of = {control: control_scores(drawn(root, "organs"), control)["following"]
          for control in ("oracle", "text-blind", "random")}
    assert of["oracle"]["accuracy"]["value"] == of["oracle"]["moved"]["value"] == of["oracle"]["on_diagonal"] == 1
    assert of["oracle"]["off_diagonal"] == 0 and of["oracle"]["chance"] == pytest.approx(1 / 3)
    assert of["text-blind"]["moved"]["value"] == 0
    assert of["text-blind"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert of["random"]["accuracy"]["low"] < 1 / 3 < of["random"]["accuracy"]["high"]
    assert of["random"]["moved"]["value"] <= 0.25
    names, matrix = of["oracle"]["matrix"]["names"], np.array(of["oracle"]["matrix"]["iou"], dtype=float)
    assert names == sorted(names) and len(names) == 5
    assert np.array_equal(np.diag(matrix), np.ones(5)) and np.nansum(matrix) == 5
    assert control_scores(drawn(root, "lesions"), "oracle")["following"] is None


def fabricated(both=0.9, image=0.5, text=0.3, neither=0.1, samples=30, noise=0.0):
    """Trials whose mean DSC in each coalition is known."""
    rng, rows = np.random.default_rng(0), []
    cells = {("own", "own"): both, ("none", "own"): image, ("own", "mean_colour"): text,
             ("none", "mean_colour"): neither, ("permuted", "own"): image, ("own", "other_image"): text,
             ("own", "blur"): text}
    for k in range(samples):
        for (said, seen), value in cells.items():
            rows.append({"dataset": "d", "split": "test", "sample_id": f"s{k:02}", "image_id": f"i{k}",
                         "group": f"g{k // 2}", "target": "t", "text_condition": said, "image_condition": seen,
                         "prompt": f"{said}{k}", "read_as": f"{said}{k}", "cut": False, "prompt_of": "",
                         "dsc": value + noise * rng.normal(),
                         "iou": value, "iou_with_own": 1.0 if said == seen == "own" else 0.5, "empty_truth": False,
                         "empty_prediction": said == "none"})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("empty", "answer"), [(0.8, MISLED), (0.6, BOTH), (0.2, BOTH)])
def test_a_model_that_is_misled_by_foreign_prompts_but_needs_none_is_told_from_one_that_needs_its_own(empty, answer):
    trials = fabricated(image=empty)
    trials.loc[trials.text_condition == "permuted", "dsc"] = 0.4
    assert decides(score(trials, seed=0)) == answer
    assert ("misleads" in paragraph(score(trials, seed=0), "it", "data")) == (answer == MISLED)


@pytest.mark.parametrize(("surely_moved", "answer"), [(0.9, BOTH), (0.2, MISLED), (None, MISLED)])
def test_a_model_that_follows_its_prompt_is_not_misled_by_a_foreign_one(surely_moved, answer):
    """Of two structures an empty prompt may give both, which costs a third, and a foreign one the wrong one."""
    trials = fabricated(image=0.8)
    trials.loc[trials.text_condition == "permuted", "dsc"] = 0.4
    assert decides(score(trials, seed=0) | {"following": {"moved": {"low": surely_moved}}}) == answer


def test_shapley_values_by_hand_and_adding_up():
    found_shares = score(fabricated(), seed=0)["shapley"]
    assert found_shares["image"]["value"] == pytest.approx(0.5 * ((0.5 - 0.1) + (0.9 - 0.3)))
    assert found_shares["text"]["value"] == pytest.approx(0.5 * ((0.3 - 0.1) + (0.9 - 0.5)))
    assert found_shares["gain"]["value"] == pytest.approx(0.8)
    assert found_shares["shares"]["image"]["value"] == pytest.approx(0.625)
    assert "mean colour" in found_shares["absent"]["image"] and "empty prompt" in found_shares["absent"]["text"]
    for trial in range(20):
        values = np.random.default_rng(trial).random(4)
        gain, image, text = scores._players(*values)
        assert image + text == pytest.approx(gain)


def test_shares_of_noisy_trials_add_up_too():
    result = score(fabricated(noise=0.2), seed=0)["shapley"]
    assert sum(share["value"] for share in result["shares"].values()) == pytest.approx(1)
    assert result["image"]["value"] + result["text"]["value"] == pytest.approx(result["gain"]["value"])
    assert result["shares"]["image"]["low"] < 0.625 < result["shares"]["image"]["high"]


@pytest.mark.parametrize(("cells", "why"), [
    ({"both": 0.12, "neither": 0.1}, r"near zero \(0.020 DSC\)"),
    ({"both": 0.1, "neither": 0.3}, r"below zero \(-0.200 DSC\)"),
    ({"both": 0.2, "neither": 0.1, "noise": 2.0}, "is not significantly above zero"),
    ({"samples": 4}, r"\(0.800 DSC\) is not significantly above zero")])
def test_there_are_no_shares_where_nothing_is_gained_for_sure(cells, why):
    result = score(fabricated(**cells), seed=0)["shapley"]
    assert result["shares"] is None and re.search(why, result["why_no_shares"])


def test_the_paragraph_on_few_groups_has_no_interval_and_says_so():
    text = paragraph(score(fabricated(samples=4), seed=0), "it", "data")
    assert "-40.0 points when prompts are permuted" in text and "2 patients or images: too few for intervals" in text
    assert "nan" not in text and "None" not in text and "95 %" not in text


def test_an_interval_counts_the_groups_that_have_a_value():
    trials = fabricated()
    few = trials.sample_id.isin([f"s{k:02}" for k in range(4)])
    one = found(score(trials[few | (trials.text_condition != "permuted")], seed=0), "permuted")
    assert one["n"] == 4 and one["low"] is one["high"] is None


def test_a_loss_that_is_not_shown_is_not_said_to_be_none():
    trials = fabricated(noise=0.3, text=0.88)
    result = score(trials, seed=0)
    images = [found(result, name) for name in ("other_image", "mean_colour", "blur")]
    assert decides(result) == LANGUAGE_ONLY and all(one["high"] > 0 for one in images)
    largest = max(one["high"] for one in images)
    said = f"A loss of up to {100 * largest:.1f} points when images are exchanged is not excluded."
    assert said in paragraph(result, "it", "data")
    assert "not excluded" not in paragraph(score(fabricated(text=0.9), seed=0), "it", "data")


def test_the_paragraph_counts_empty_masks_and_says_what_an_absent_image_costs():
    trials = fabricated()
    trials.loc[trials.sample_id == "s03", "empty_truth"] = True
    text = paragraph(score(trials, seed=0), "it", "data")
    assert "(30 structures, 1 with an empty mask in 30 images)" in text
    assert "-60.0 points (-60.0 to -60.0) when nothing is left of the image but its mean colour" in text


def test_perceptual_scores_by_hand():
    result = score(fabricated(), seed=0)["perceptual"]
    assert result["text"]["score"] == pytest.approx(1 - 0.5 / 0.9)
    assert result["image"]["score"] == pytest.approx(1 - 0.3 / 0.9)
    assert score(fabricated(both=0.0), seed=0)["perceptual"] == {"text": None, "image": None}


def test_drops_are_paired_and_count_what_was_not_measured():
    trials = fabricated()
    some = trials.sample_id.isin([f"s{k:02}" for k in range(10)])
    trials = trials[~((trials.text_condition == "permuted") & some)]
    trials.loc[some & (trials.text_condition == "own") & (trials.image_condition == "own"), "dsc"] = 0.0
    record = found(score(trials, seed=0), "permuted")
    assert (record["n"], record["n_not_measured"]) == (20, 10)
    assert record["drop"] == pytest.approx(0.4) and record["dsc"] == pytest.approx(0.5)
    assert found(score(trials, seed=0), "none")["n_empty_prediction"] == 30
    assert record["changed"]["value"] == pytest.approx(0.5)


def test_prompts_that_stayed_the_own_ones_are_counted():
    trials = fabricated()
    first = (trials.text_condition == "permuted") & trials.sample_id.isin(["s00", "s01"])
    trials.loc[first, "read_as"] = ["own0", "own1"]
    assert found(score(trials, seed=0), "permuted")["n_own_prompt"] == 2


def test_tests_behind_the_verdict_are_corrected_among_themselves(root):
    result = control_scores(drawn(root, "organs"), "oracle", text=None, image=None)
    primary = [one for one in result["conditions"] if (one["modality"], one["condition"]) in scores.PRIMARY]
    smallest = min(one["p"] for one in primary)
    assert len(primary) == 5 and min(one["p_holm"] for one in primary) == pytest.approx(5 * smallest)
    others = [one for one in result["conditions"] if one not in primary]
    tested = [one for one in others if one["same_as"] is None]
    assert len(tested) < len(others)
    assert min(one["p_holm"] for one in tested) == pytest.approx(len(tested) * min(one["p"] for one in tested))


def test_prompts_that_two_interventions_share_are_tested_once(root):
    """In `halves` P0 is empty, P1 the class and P2 the own prompt: three tests fewer, so smaller corrected p-values."""
    data = halves(root / "shared")
    result = control_scores(data, "oracle", text=None, image=None)
    assert {one["condition"]: one["same_as"] for one in result["conditions"] if one["same_as"]} == {
        "level_p0": "none", "level_p1": "class_only", "level_p2": "own"}
    for name in ("level_p0", "level_p1"):
        again, first = found(result, name), found(result, found(result, name)["same_as"])
        assert all(again[key] == first[key] for key in ("dsc", "drop", "low", "high", "p", "p_holm"))
    assert (found(result, "level_p2")["drop"], found(result, "level_p2")["p_holm"]) == (0, 1)
    without_levels = [name for name in interventions()[0] if not name.startswith("level_")]
    only = control_scores(data, "oracle", text=without_levels, image=None)
    assert [one for one in result["conditions"] if one["same_as"] is None] == only["conditions"]


def test_prompts_of_an_exchange_behind_the_verdict_are_tested_there(root):
    """With the class alone as prompt, another sample's is another structure's; and a level that only some samples have
    is not tested where it is their own."""
    data = halves(root / "classes")
    plan_of = plan(data.samples, "p1", 0, text=("other_sample", "level_p1"), image=())
    segment = Controls(data, data.samples, "p1").oracle
    result = score(suite.run(segment, data, plan_of, seed=0), seed=0)
    assert {one["condition"]: one["same_as"] for one in result["conditions"] if one["same_as"]} == {
        "other_sample": "other_structure", "level_p1": "own"}
    assert found(result, "other_sample")["p_holm"] == found(result, "other_structure")["p_holm"]


def test_where_all_prompts_are_the_same_none_is_said_to_have_been_exchanged(root):
    data = drawn(root, "lesions")
    segment = Controls(data, data.samples, "p1").text_blind
    result = score(suite.run(segment, data, plan(data.samples, "p1", 0, text=(), image=()), seed=0), seed=0)
    images = found(result, "other_image")
    assert found(result, "permuted")["same_as"] == "own" and images["p_holm"] == pytest.approx(3 * images["p"])
    assert decides(result) == CANNOT_TELL
    text = paragraph(result, "it", "lesions")
    assert "All have the same prompt" in text and "permuted among" not in text
    assert "the same prompt" not in paragraph(control_scores(data, "text-blind"), "it", "lesions")


def test_patients_not_images_are_counted_and_empty_masks_beside_them(tmp_path):
    data = halves(tmp_path / "halves", images=8, group_of=lambda k: f"patient{k // 4}", empty=(0, 3))
    result = control_scores(data, "oracle")
    assert (result["n_images"], result["n_samples"], result["n_groups"]) == (8, 16, 2)
    assert result["n_empty_truth"] == 2 and "both masks empty" in result["empty_masks"]
    assert result["following"]["n_images"] == 6 and result["following"]["n_left_out"] == 4
    assert decides(result) == UNDECIDED and "too few" in UNDECIDED


def test_a_bootstrap_interval_of_the_own_dsc_is_that_of_its_groups():
    trials = fabricated(noise=0.1)
    result = score(trials, seed=3)
    own = trials[(trials.text_condition == "own") & (trials.image_condition == "own")].sort_values("sample_id")
    groups = Groups(own.group.tolist(), scores.DRAWS, 3)
    low, high = groups.interval(groups.bootstrap(own[["dsc"]].to_numpy())[:, 0])
    assert (result["own"]["low"], result["own"]["high"]) == (low, high)


def test_the_paragraph_says_the_numbers_and_the_answer(root):
    result = control_scores(drawn(root, "organs"), "oracle", text=None, image=None)
    text = paragraph(result, "the oracle", "organs (synthetic stand-in)")
    permuted = found(result, "permuted")
    assert "the oracle relies on both" in text and "organs (synthetic stand-in)" in text and "42 structures" in text
    assert f"{-100 * permuted['drop']:+.1f} points" in text and "Shapley" in text and "one that was asked for" in text
    assert "-0.0" not in text and "nan" not in text
    lonely = paragraph(control_scores(drawn(root, "lesions"), "random"), "it", "lesions")
    assert "neither modality" in lonely and "nothing about its reliance" in lonely.lower()
    assert title("flip_colour") == "colour changed" and title("level_p3") == "level P3"


@pytest.mark.parametrize("images", [None, 3, 1])
def test_every_number_can_be_stored(root, images):
    import json

    data = drawn(root, "scenes")
    stored = json.dumps(control_scores(data, "image-blind", text=None, image=None, limit=images), allow_nan=False)
    assert '"following"' in stored


def test_images_of_one_name_in_two_data_sets_are_two():
    trials = pd.concat([fabricated(samples=4).assign(dataset=name) for name in ("one", "two")])
    trials["sample_id"] = trials.dataset + trials.sample_id
    assert score(trials, seed=0)["n_images"] == 8


def test_structures_of_two_data_sets_whose_images_share_a_name_do_not_make_one_image(root):
    one = control_trials(halves(root / "one"), "oracle")
    both = pd.concat([one, one.assign(dataset="other", sample_id="other/" + one.sample_id, group="other/" + one.group,
                                      iou=0.0)])
    found_both = scores.following(both, seed=0)
    assert found_both["n_images"] == 16 and found_both["on_diagonal"] == 0.5


def test_the_trials_of_a_control_are_the_same_again(root):
    data = drawn(root, "organs")
    assert control_trials(data, "random").equals(control_trials(data, "random"))


def controls_of(data):
    return {name: control_scores(data, name) for name in MUST_BE}


def test_where_a_control_comes_out_wrong_there_is_no_verdict(root):
    controls = controls_of(drawn(root, "organs"))
    record = score(fabricated(), seed=0) | {"controls": controls}
    assert wrong_controls(controls) == {} and verdict(record) == decides(record) == BOTH
    for name, other, answer in (("random", "image-blind", LANGUAGE_ONLY), ("image-blind", "random", NEITHER),
                                ("text-blind", "random", NEITHER), ("oracle", "text-blind", IMAGE_ONLY)):
        spoiled = record | {"controls": controls | {name: controls[other]}}
        assert wrong_controls(spoiled["controls"]) == {name: (answer, MUST_BE[name])}
        assert (verdict(spoiled), decides(spoiled)) == (CANNOT_TELL, BOTH)
        text = paragraph(spoiled, "it", "data")
        assert "it cannot be told what decides for it." in text and "relies on both" not in text
        assert f"{name} comes out as “{answer}” instead of “{MUST_BE[name]}”: this set cannot tell." in text
    few = score(fabricated(samples=4), seed=0) | {"controls": controls | {"random": controls["image-blind"]}}
    assert verdict(few) == UNDECIDED


def test_of_single_structures_the_oracle_needs_the_image_alone(root):
    assert wrong_controls(controls_of(drawn(root, "lesions"))) == {}


def aligned(folder, images=16):
    """Pictures as chest X-rays are: a dark block left and one right, at nearly the same places in all of them."""
    rng = np.random.default_rng(0)
    with PreparedWriter(folder, dataset="aligned") as writer:
        for k in range(images):
            pixels = rng.integers(150, 256, (40, 60, 3), dtype=np.uint8)
            masks = {}
            for side, left in (("left", 8), ("right", 38)):
                top, first = rng.integers(8, 10), left + rng.integers(-1, 1)
                masks[side] = np.zeros((40, 60), bool)
                masks[side][top : top + 22, first : first + 14] = True
                pixels[masks[side]] = 40
            writer.add_image(f"im{k}", pixels)
            for side, mask in masks.items():
                writer.add_sample(image_id=f"im{k}", target=f"{side} lung", mask=mask, split="test",
                                  prompts={"p1": f"{side} lung"})
    return PreparedDataset.read(folder)


def darkness(image, prompt):
    """What is dark; it reads no prompt."""
    return image.mean(axis=2) < 100


def darkness_of_a_half(image, prompt):
    """What is dark in the half that the prompt names."""
    mask = darkness(image, prompt)
    mask[:, : 30 * ("right" in prompt)] = False
    mask[:, 30 if "left" in prompt else 60 :] = False
    return mask


@pytest.mark.parametrize(("predictor", "answer"), [(darkness, IMAGE_ONLY), (darkness_of_a_half, BOTH)])
def test_on_aligned_pictures_a_threshold_of_darkness_is_seen_to_use_the_image(tmp_path, predictor, answer):
    """Another one's image costs it little there: less than counts, or no more than chance."""
    data = aligned(tmp_path / "aligned")
    trials = suite.run(segment_with(predictor), data, plan(data.samples, "p1", 0, text=(), image=()), seed=0)
    result = score(trials, seed=0)
    assert found(result, "other_image")["drop"] < 0.1 < found(result, "mean_colour")["drop"]
    assert decides(result) == answer


def test_a_gain_from_less_prompt_is_named_as_a_loss_is():
    trials = fabricated()
    shorter = trials[trials.text_condition == "none"].assign(text_condition="class_only", prompt="class",
                                                             read_as="class", dsc=0.95)
    result = score(pd.concat([trials, shorter]), seed=0)
    assert [one["condition"] for one in gains(result)] == ["class_only"]
    assert "Its own prompt is not its best: it gains +5.0 points (+5.0 to +5.0) with the class only." in paragraph(
        result, "it", "data")
    assert "not its best" not in paragraph(score(trials, seed=0), "it", "data") and gains(score(trials, seed=0)) == []
    little = score(pd.concat([trials, shorter.assign(dsc=0.91)]), seed=0)
    assert gains(little) == []
