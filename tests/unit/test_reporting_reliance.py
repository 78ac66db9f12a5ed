"""Reliance for people: tables and figures say what the records say, and where they come from."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from reliance_data import control_trials, drawn, found
from reporting_project import declare, make_project

from featherseg.core.files import write_json
from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.reliance import figures, tables
from featherseg.reliance import page as reliance
from featherseg.reliance import study as reliance_study
from featherseg.reliance.controls import Controls
from featherseg.reliance.measure import Settings, measure
from featherseg.reliance.scores import score
from featherseg.reliance.verdict import CANNOT_TELL, title
from featherseg.reporting.study import Study

DECODER, DENSE = "clipseg-decoder", "clipseg-vlsm_dense-vl"


@pytest.fixture(scope="module")
def organs(tmp_path_factory):
    data = drawn(tmp_path_factory.mktemp("reliance"), "organs")
    return data, {name: measure(segment, data, data.samples, Settings(draws=200), model=name, data="organs")
                  for name, segment in Controls(data, data.samples, "fullest").segments().items()
                  if name in ("oracle", "image-blind")}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of two methods on lesions and organs: on organs the one is an oracle, the other text-blind."""
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, (DECODER, DENSE))
    return Study("study")


def measured(study, recipe, control, dataset="lesions", seed=0):
    run, data = declare("study", recipe, dataset, seed), PreparedDataset.read(f"data/processed/{dataset}")
    segment = Controls(data, data.samples, "fullest").segments()[control]
    trials, record = measure(segment, data, data.samples, Settings(draws=100), model=run.name, data=dataset)
    study.evaluate(run.name).mkdir(parents=True, exist_ok=True)
    trials.to_parquet(study.evaluate(run.name) / "reliance.parquet")
    write_json(study.evaluate(run.name) / "reliance.json", {"test": record})
    return record


def test_the_table_says_what_the_record_says(organs):
    record = organs[1]["oracle"][1]
    table = tables.effects(record).set_index("intervention")
    permuted = found(record, "permuted")
    row = table.loc["prompts permuted"]
    assert row["change"] == f"{-100 * permuted['drop']:+.1f}" and row["significant"] == "loss"
    low, high = (float(end) for end in row["95 % interval"].split(" to "))
    assert low < float(row["change"]) < high < 0
    assert row["DSC %"] == pytest.approx(100 * permuted["dsc"]) and float(row["p (Holm)"].strip("< ")) <= 0.002
    assert table.loc["own image, own prompt", "DSC %"] == 100
    assert table["95 % interval"]["own image, own prompt"] == "100.0 to 100.0"
    tested_elsewhere = {title(one["condition"]) for one in record["conditions"] if one["same_as"]}
    assert "level P1" in tested_elsewhere and tested_elsewhere.isdisjoint(table.index)  # the class only
    assert len(table) == 1 + len(record["conditions"]) - len(tested_elsewhere)


def test_effects_have_the_sign_of_the_change_and_no_negative_zero(organs):
    record = organs[1]["image-blind"][1]
    permuted = found(record, "permuted")
    row = tables.effects(record).set_index("intervention").loc["prompts permuted"]
    assert permuted["drop"] > 0 and row["change"].startswith("-")
    assert row["effect d"] == pytest.approx(-permuted["effect"], abs=0.05)
    assert row["rank-biserial"] == pytest.approx(-permuted["rank_biserial"], abs=0.05)
    assert str(tables._of_change(0.01)) == "0.0" and tables._of_change(None) is None


def test_the_comparison_has_a_line_for_each_model_and_dashes_for_what_it_has_not(organs):
    record = organs[1]["oracle"][1]
    table = tables.comparison(tables.with_controls(record)).set_index("model")
    assert table["what decides"].to_dict() == {
        "oracle": "image and language", "control: text-blind": "image only",
        "control: image-blind": "language only", "control: oracle": "image and language",
        "control: random": "neither"}
    assert table.loc["control: text-blind", "prompts permuted"] == "+0.0"
    permuted = found(record, "permuted")
    assert table.loc["oracle", "prompts permuted"] == f"{-100 * permuted['drop']:+.1f} *" and permuted["p_holm"] < 0.05
    shares = record["shapley"]["shares"]
    assert table.loc["control: random", "image / text share %"] == "none"
    assert table.loc["oracle", "image / text share %"] == " / ".join(
        f"{100 * shares[player]['value']:.0f}" for player in ("image", "text"))
    assert table.loc["oracle", "hit / moved %"] == "100 / 100"
    assert "hit / moved %" not in tables.comparison({"it": record | {"following": None}})


def test_the_chart_of_changes_draws_every_intervention_where_the_record_has_it(organs):
    record = organs[1]["image-blind"][1]
    axis = figures.changes({"it": record}).axes[0]
    drawn_at = {round(line.get_xdata()[0], 6) for line in axis.lines
                if line.get_marker() == "o" and len(line.get_xdata())}
    assert {round(-100 * one["drop"], 6) for one in record["conditions"]} <= drawn_at
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert "images permuted" in labels and "the class only" in labels and "level P1" not in labels


def test_the_chart_of_exchanges_draws_every_interval_that_the_table_leaves_out(organs):
    records = tables.with_controls(organs[1]["image-blind"][1])
    table = tables.comparison(records)
    panels = {axis.get_title(): axis for axis in figures.exchanges(records).axes}
    assert set(panels) == set(table.columns) & set(tables.COMPARED)
    permuted = found(records["image-blind"], "permuted")
    ends = [sorted(line.get_xdata()) for line in panels["prompts permuted"].lines
            if len(line.get_xdata()) == 2 and list(line.get_ydata()) == [0, 0]]
    assert ends == [pytest.approx([-100 * permuted["high"], -100 * permuted["low"]])]


@pytest.mark.parametrize(("answers", "said"), [
    (["image and language", "language only", "image only"], "**The prompt decides, alone or together with the image, "
     "in 2 of 3 runs.** What decides in the others: image only in 1."),
    (["image and language", "this set cannot tell", "too few to tell"], "**The prompt decides, alone or together with "
     "the image, in 1 of 1 runs.** For 2 more it cannot be told."),
    (["neither", "neither", "this set cannot tell"], "**The prompt decides, alone or together with the image, in 0 of "
     "2 runs.** What decides in the others: neither in 2; for 1 more it cannot be told."),
    (3 * ["this set cannot tell"], "**What decides cannot be told for any of 3 runs.**")])
def test_the_answer_counts_the_runs_whose_prompt_decides(study, monkeypatch, answers, said):
    measured(study, DENSE, "oracle")
    measured(study, DECODER, "random")
    measured(study, DECODER, "random", dataset="organs")
    given = itertools.cycle(answers)
    monkeypatch.setattr(reliance_study, "verdict", lambda record: next(given))
    assert reliance_study.answer(study).split("\n")[0] == said


def test_bars_of_shares_end_at_the_gain(organs):
    records = tables.with_controls(organs[1]["oracle"][1])
    axis = figures.shares(records).axes[0]
    ends = {}
    for bar in axis.patches:
        ends.setdefault(round(bar.get_y() + bar.get_height() / 2), []).append(bar.get_x() + bar.get_width())
    assert max(ends[0]) == pytest.approx(100 * records["oracle"]["shapley"]["gain"]["value"])
    assert "100 %" in [text.get_text() for text in axis.texts]


def test_the_matrix_is_drawn_where_there_is_one(organs):
    record = organs[1]["oracle"][1]
    figure = figures.following({"it": record, "none": {"following": None}})
    names, values = record["following"]["matrix"]["names"], record["following"]["matrix"]["iou"]
    assert len(figure.axes) == 1 and [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == names
    assert len(figure.axes[0].texts) == sum(value is not None for row in values for value in row)
    assert figures.following({"none": {"following": None}}) is None


def test_one_image_is_shown_under_different_prompts_with_the_masks_that_they_gave(organs, monkeypatch):
    data, measured_ones = organs
    trials = measured_ones["oracle"][0]
    shown = []
    monkeypatch.setattr("featherseg.reliance.figures.draw_outlines",
                        lambda axis, image, truth, mask: shown.append((truth, mask)))
    panels = figures.same_image(trials, data)
    assert len(panels) == 2
    titles = [axis.get_title("left") for axis in panels[0].axes]
    assert titles[0] == "own prompt\nDSC 100 %" and len(titles) == len(set(titles)) or len(titles) == 8
    truth, mask = shown[0]
    assert np.array_equal(truth, mask) and not np.array_equal(truth, shown[1][1])
    assert figures.same_image(trials.assign(mask=None), data) == []


def test_captions_tell_prompts_apart_that_begin_alike():
    polite = "in this picture that shows several small things please find for me the one that is "
    prompts = [f"{polite}left", f"{polite}right and red", "left lung", "left kidney", "", f"{polite}left but blue"]
    assert figures.told_apart(prompts) == ["… left", "… is right and red", "left lung", "left kidney", "",
                                            "… left but blue"]
    assert figures.told_apart([polite]) == [polite]


def test_prompts_and_structures_may_be_written_with_dollars(tmp_path):
    """What stands between two dollars is mathematics to matplotlib, and mostly an error."""
    with PreparedWriter(tmp_path / "odd", dataset="odd") as writer:
        for k in range(2):
            writer.add_image(f"im{k}", np.full((16, 16, 3), 50 * k, np.uint8))
            for target in ("$_$ <b>", "$^{$"):
                mask = np.zeros((16, 16), bool)
                mask[:8, :8] = True
                writer.add_sample(image_id=f"im{k}", target=target, mask=mask, split="test",
                                  prompts={"p1": f"find ${target}_$ for 5 $"})
    data = PreparedDataset.read(tmp_path / "odd")
    segment = Controls(data, data.samples, "fullest").oracle
    trials, record = measure(segment, data, data.samples, Settings(draws=50), model="it", data="odd")
    assert record["following"]["matrix"]["names"] == ["$^{$", "$_$ <b>"]
    assert "data:image/jpeg" in reliance.report(record, trials, data)


def test_a_study_without_measurements_says_how_to_make_them_and_shows_the_controls(study):
    assert reliance_study.measured(study) == []
    assert "evaluate.reliance" in reliance_study.answer(study)
    assert [list(records) for records in reliance_study.compared(study).values()] == 2 * [
        [f"control: {name}" for name in ("text-blind", "image-blind", "oracle", "random")]]
    shown = reliance_study.decisions(study)
    assert [shown[0].data, shown[4].data] == [f"### {name} (synthetic stand-in)" for name in ("lesions", "organs")]
    assert reliance_study.attributes(study).empty
    assert "evaluate.reliance" in reliance_study.gallery(study)[0].data
    assert "evaluate.reliance" in reliance_study.attribute_changes(study).data


def test_runs_stand_beside_the_controls_of_their_dataset(study):
    measured(study, DENSE, "oracle", seed=1)
    record = measured(study, DENSE, "text-blind")
    other = measured(study, DECODER, "random")
    assert [(one.run.recipe, one.run.seed) for one in reliance_study.measured(study)] == [(DECODER, 0), (DENSE, 0)]
    heading, exchanged, table, figure, quotable = reliance_study.decisions(study)
    table = table.data.set_index("model")
    assert heading.data == "### lesions (synthetic stand-in)" and len(table) == 6 and len(figure.axes) == 1
    assert [label.get_text() for label in exchanged.axes[0].get_yticklabels()] == list(table.index)
    assert quotable.data.startswith("<details><summary>") and "95 % bootstrap intervals" in quotable.data
    dense = next(name for name in table.index if "VL" in name)
    assert table.loc[dense, "what decides"] == record["decides"]
    said = reliance_study.answer(study)
    assert {record["decides"], other["decides"]} == {CANNOT_TELL} and "cannot be told for any of 2 runs" in said
    lines = [line for line in said.split("\n") if line.startswith("- ")]
    assert len(lines) == 1 and dense in lines[0] and "since controls are not recognised as what they are" in lines[0]
    assert lines[0].startswith("- lesions (synthetic stand-in), 10 structures in 10 images: ")
    assert not re.search(r"\d to [-+]?\d", said), "an interval is drawn, not written"
    assert len(reliance_study.gallery(study)) == 2


def test_controls_are_those_of_the_most_accurate_run_since_others_may_have_had_no_prompt(study):
    best = measured(study, DENSE, "text-blind")
    worse = measured(study, DECODER, "random")
    run = declare("study", DECODER, "lesions")
    emptied = {name: control | {"decides": "neither"} for name, control in worse["controls"].items()}
    write_json(study.evaluate(run.name) / "reliance.json", {"test": worse | {"controls": emptied}})
    records, = reliance_study.compared(study).values()
    assert {name.removeprefix("control: "): one["decides"] for name, one in records.items() if "control" in name} == {
        name: control["decides"] for name, control in best["controls"].items()}


def test_attributes_that_no_prompt_names_are_not_measured(study):
    measured(study, DENSE, "oracle")
    assert set(reliance_study.attributes(study).iloc[0, 2:]) == {"not measured"}


def test_attributes_are_read_from_the_flips_of_the_record(study, organs):
    measured(study, DENSE, "oracle")
    record = organs[1]["image-blind"][1]
    run = declare("study", DENSE, "lesions")
    write_json(study.evaluate(run.name) / "reliance.json", {"test": record})
    row = reliance_study.attributes(study).iloc[0]
    location = found(record, "flip_location")
    assert row.location.removesuffix(" *") == f"{-100 * location['drop']:+.1f}"
    assert row.location.endswith("*") == (location["drop"] >= 0.02 and location["p_holm"] < 0.05)
    axis = reliance_study.attribute_changes(study).axes[0]
    assert round(-100 * location["drop"], 6) in {round(line.get_xdata()[0], 6) for line in axis.lines
                                                 if len(line.get_xdata()) == 1}


def test_scores_of_a_table_read_back_are_the_same(organs, tmp_path):
    trials, record = organs[1]["oracle"]
    trials.to_parquet(tmp_path / "trials.parquet")
    again = score(pd.read_parquet(tmp_path / "trials.parquet"), 0, 200)
    assert again["conditions"] == record["conditions"] and again["following"] == record["following"]
    assert control_trials(organs[0], "oracle")["mask"].isna().all()
