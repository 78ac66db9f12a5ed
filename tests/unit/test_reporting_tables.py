"""What the tables show: every line says where it comes from, and no number takes another's place."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reporting_project
from reporting_project import (
    declare,
    make_project,
    make_run,
    measured,
    rescore,
    scored_run,
    write_project,
    write_scores,
)

from featherseg.core.errors import UserError
from featherseg.core.files import write_status
from featherseg.core.markup import html_text
from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.overview import language, runs, scores, structures
from featherseg.papers.vlsm_adapter import counts
from featherseg.papers.vlsm_adapter import published as vlsm_adapter
from featherseg.papers.vlsm_adapter import table as paper
from featherseg.reporting import published, tables
from featherseg.reporting.collect import collect
from featherseg.reporting.frames import read_scores
from featherseg.reporting.records import DATA_LABELS
from featherseg.reporting.study import Study
from featherseg.tasks.segmentation.trials import plan_trials

STAND_IN = DATA_LABELS["synthetic"]
NOT_COMPARABLE = "not comparable: stand-in"
RECIPES = ("clipseg-zero_shot", "clipseg-decoder", "clipseg-vlsm_dense-vl", "clipseg-vlsm_shallow-vlc")


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, RECIPES, collected=True)
    return Study("study")


@pytest.mark.parametrize("table", [
    runs.table, scores.table, language.table, paper.table_1, paper.gains, paper.positions])
def test_every_line_made_here_carries_its_label(study, table):
    frame = table(study)
    assert (frame["where from"] != "").all()
    here = frame[frame["where from"].str.contains(r"lesions|organs|stand-in") |
                 frame.get("dataset", pd.Series("", frame.index)).isin(["lesions", "organs"])]
    assert len(here) and here["where from"].str.contains(STAND_IN).all()


def test_a_stand_in_without_its_label_is_refused(study, monkeypatch):
    frame = pd.DataFrame([{"published": 89.1, "here": 71.2, "where from": "Table 1", "data": STAND_IN}])
    with pytest.raises(ValueError, match="lacks that label"):
        tables.honest(frame)
    with pytest.raises(ValueError, match="does not say where it comes from"):
        tables.honest(frame.assign(**{"where from": "", "data": ""}))
    monkeypatch.setattr(paper, "made_here", lambda row: f"weights {row.weights}")
    with pytest.raises(ValueError, match="lacks that label"):
        paper.table_1(study)


def test_rows_that_are_not_verified_stay_out_of_every_table(study):
    file = Path("data/published/vlsm_adapter.csv")
    rows = pd.read_csv(file, dtype=str)
    wrong = (rows.model == "CLIPSeg DA") & (rows.dataset == "Kvasir-SEG") & (rows.metric == "DSC")
    rows.loc[wrong, ["value", "verified"]] = ["12.34", "yes"]
    rows.to_csv(file, index=False)
    assert "12.34" in paper.table_1(study).to_string()
    rows.loc[wrong, "verified"] = "no"
    rows.to_csv(file, index=False)
    frames = [paper.table_1(study), paper.gains(study), paper.positions(study)]
    shown = " ".join(frame.to_string() for frame in frames)
    assert "12.34" not in shown
    for name in Path("data/published").glob("*.csv"):
        unverified = (pd.read_csv(name, dtype=str).verified != "yes").sum()
        assert len(published.read(name.stem)) + unverified == len(pd.read_csv(name))


def test_table_1_is_the_papers(study):
    table = vlsm_adapter.table_1("DSC")
    assert table.shape == (8, 5) and table.notna().all().all()
    assert table.loc["busi", "DA (dense, VL)"] == 65.02
    assert vlsm_adapter.table_1("HD95").loc["chexlocalize", "SAN"] == 724.55


def test_a_number_on_the_papers_data_stands_below_the_published_one_with_the_distance(study, tmp_path):
    shutil.rmtree("runs")
    make_project(tmp_path, RECIPES, ("kvasir_seg",), collected=True)
    study = Study("study")
    table = paper.table_1(study)
    theirs, ours = (line for _, line in table[table.dataset == "kvasir_seg"].iterrows())
    assert theirs["DA (dense, VL)"] == "89.10" and theirs["where from"].startswith("published")
    scored = tables.own_dsc(study.results)
    own = scored[scored.recipe == "clipseg-vlsm_dense-vl"].dsc.item()
    assert ours["DA (dense, VL)"] == f"{own:.2f} ({own - 89.10:+.2f})"
    assert ours["CRIS end-to-end"] == ours["SAN"] == "not run" and ours["where from"].startswith("official")
    rest = table[(table.dataset == "busi") & (table[""] == "here")]
    assert rest["where from"].item() == "not run: 'busi' is not in study 'study'"


def test_a_distance_in_millimetres_is_not_compared_with_one_in_pixels(study, tmp_path):
    shutil.rmtree("runs")
    make_project(tmp_path, RECIPES, ("kvasir_seg",), collected=True)
    pixels = paper.table_1(Study("study"), "HD95")
    path = Study("study").reports / "results.csv"
    rows = pd.read_csv(path)
    assert set(rows[rows.metric == "hd95"].unit) == {"px"} and set(rows[rows.metric == "dsc"].unit) == {"1"}
    rows.unit = rows.unit.replace("px", "mm")
    rows.to_csv(path, index=False)
    study = Study("study")
    assert tables.unit_of(study.results, "HD95") == "mm" and tables.unit_of(study.results, "DSC") == "%"
    before, after = (table[(table.dataset == "kvasir_seg") & (table[""] == "here")]["DA (dense, VL)"].item()
                     for table in (pixels, paper.table_1(study, "HD95")))
    assert "(" in before and after == f"{before.split(' ')[0]} mm"


@pytest.mark.parametrize("weights", ["pipelines/pretrain/weights/clipseg-small", "my/own", "random"])
def test_with_other_weights_no_distance_is_shown(study, tmp_path, weights):
    shutil.rmtree("runs")
    make_project(tmp_path, RECIPES, ("kvasir_seg",), collected=True)
    gains = paper.gains(Study("study")).set_index("method")
    own = tables.own_dsc(Study("study").results).set_index("recipe").dsc["clipseg-vlsm_dense-vl"]
    line = gains.loc["DA (dense, VL)"]
    assert line["here − published"] == f"{own - 89.10:+.2f}" and line["published DSC"] == 89.10
    assert "mean of 1 sets" in line["where from"]
    for recipe in RECIPES:
        declare("study", recipe, "kvasir_seg", weights=weights)
    collect("study")
    study = Study("study")
    assert paper.gains(study).set_index("method").loc["DA (dense, VL)", "here − published"] == NOT_COMPARABLE
    table = paper.table_1(study)
    assert table[(table.dataset == "kvasir_seg") & (table[""] == "here")]["DA (dense, VL)"].item() == f"{own:.2f}"


def test_on_drawn_data_no_distance_is_shown_and_the_weights_are_called_small(study):
    gains = paper.gains(study).set_index("method")
    assert gains.loc["DA (dense, VL)", "here − published"] == NOT_COMPARABLE
    assert gains.loc["DA (dense, VL)", "published DSC"] == pytest.approx(80.37, abs=0.01)
    for frame in (gains.reset_index(), scores.table(study), runs.table(study), language.table(study),
                  paper.positions(study)):
        made = frame["where from"][~frame["where from"].str.contains("^published: |not run")
                                   | frame["where from"].str.contains("here: ")]
        assert len(made) and made.str.contains(r"weights clipseg-small \(small stand-in, sha256 abab").all()
    assert "weights clipseg-small (small stand-in))" in scores.verdict(study)


def test_a_quoted_mean_that_differs_from_the_tables_says_so(study):
    quoted = paper.positions(study)
    quoted = quoted[quoted["where from"].str.contains("quoting")].set_index("adapter")["where from"]
    assert "average to 83.29, so the quoted figure is -0.12 off them" in quoted["vlsm_shallow"]
    assert "average to" not in quoted["vlsm_dense"]


def test_the_best_method_of_a_dataset_is_bold_and_wins(study):
    frame = scores.table(study)
    lesions = frame[frame.dataset == "lesions"]
    best = lesions[lesions.trainable > 0].sort_values("DSC").iloc[-1]
    bold = tables.show(frame, best=("DSC",)).ran
    styled = bold._compute().ctx
    assert len([cell for cell, looks in styled.items() if ("font-weight", "bold") in looks]) == 2
    said = scores.verdict(study)
    assert f"**{best.method}**: DSC {best.DSC:.1f} % at {best.trainable:,} trainable parameters" in said
    assert "one seed" in said and STAND_IN in said


def test_seeds_are_averaged_and_their_spread_shown(study):
    assert "seeds" not in scores.table(study)
    declare("study", "clipseg-decoder", "lesions", seed=1)
    scored_run("study", "clipseg-decoder", "lesions", seed=1)
    collect("study")
    frame = scores.table(Study("study")).set_index(["dataset", "recipe"])
    line = frame.loc[("lesions", "clipseg-decoder")]
    assert line.seeds == 2 and line["± of DSC over seeds"] == 0


def test_the_language_check_is_own_minus_other(study):
    line = language.table(study).iloc[0]
    assert line["lost with another's"] == pytest.approx(line["own prompt"] - line["another's prompt"])
    assert line["lost without prompt"] == pytest.approx(line["own prompt"] - line["empty prompt"]) != 0


def test_counts_that_differ_from_the_released_codes_are_shouted(study):
    counted = {"clipseg-vlsm_dense-vl": [2_974_464, 153_722_210],
               "clipseg-vlsm_shallow-vlc": [4_201_985, 154_949_731], "clipseg-lora": [884_736, 151_632_482]}
    counted = pd.DataFrame.from_dict(counted, orient="index", columns=["trainable", "total"])
    frame = paper.parameters(study, counted).set_index("method")
    assert list(frame.equal) == ["yes", "NO", "nothing to compare"]
    assert list(frame["Table 1"]) == ["3M", "4.2M", "not in Table 1"]
    assert frame.loc["DA-VL", "this study's model"] == 46_000


def test_a_table_shows_a_dash_and_never_a_zero_for_what_is_absent():
    frame = pd.DataFrame({"method": ["a", "b"], "DSC": [71.234, None], "trainable": [1234567, None]})
    shown = tables.show(frame.astype({"trainable": "Int64"})).to_html()
    assert "71.23" in shown and "1,234,567" in shown and shown.count("–") == 2


HERE = [f"{STAND_IN}; weights {name} (sha256 {digest * 12}); a CPU" for name, digest in (("one", "a"), ("two", "b"))]
PRINTED = "published: Table 1, page 7"


def lines_from(*origins: str) -> pd.DataFrame:
    return pd.DataFrame({"method": [f"method {k}" for k in range(len(origins))],
                         "DSC": [None if origin.startswith("not") else 50.0 + k for k, origin in enumerate(origins)],
                         "where from": origins})


def test_an_origin_that_all_lines_share_is_said_once_below_them():
    shown = tables.show(lines_from(HERE[0], HERE[0], HERE[0])).to_html()
    assert shown.count(HERE[0]) == 1 and f"Where from: {HERE[0]}" in shown and "<details" not in shown
    assert "where from" not in shown


@pytest.mark.parametrize("origins", [
    HERE, [*HERE, PRINTED], [PRINTED, f"{PRINTED}8"], [HERE[0], f"{HERE[0]}; not run: x"]])
def test_lines_of_several_origins_have_short_labels_and_the_whole_in_one_list(origins):
    shown = tables.show(lines_from(*origins, *origins)).to_html()
    below = shown.partition("</table>")[2]
    assert below.count("<details>") == 1 and "<details open" not in below
    labels = []
    for origin in origins:
        label, = re.findall(f"<li>([^<]*?): {re.escape(html_text(origin))}</li>", below)
        assert len(label) < 30 and shown.partition("</table>")[0].count(f">{label}<") == 2
        labels.append(label)
    assert len(set(labels)) == len(origins)


def test_what_all_lines_made_here_share_is_not_repeated_in_them():
    shown = tables.show(lines_from(*HERE, PRINTED)).to_html()
    assert f"Made here: {STAND_IN}; a CPU" in shown
    assert ">one<" in shown and ">two<" in shown and ">published<" in shown


@pytest.mark.parametrize("table", [runs.table, scores.table, language.table, paper.table_1, paper.gains,
                                   paper.positions])
def test_a_shown_table_holds_every_origin_of_its_lines(study, table):
    frame = table(study)
    shown = tables.show(frame).to_html()
    for origin in set(frame["where from"]):
        assert html_text(origin.removeprefix("not run: ")) in shown


def test_lines_that_were_not_run_are_in_one_closed_line_below_those_that_were():
    reasons = ["not run: no data", "not run: no data", "not run: no weights"]
    shown = tables.show(lines_from(reasons[0], HERE[0], *reasons[1:])).to_html()
    above, _, below = shown.partition("</table>")
    assert "method 1" in above and not any(f"method {k}" in above for k in (0, 2, 3))
    assert "<details><summary>3 rows not run: no data, and 1 more reason</summary>" in below
    assert all(f"method {k}" in below for k in (0, 2, 3)) and "no weights" in below
    nothing = tables.show(lines_from(reasons[0]), "Table 9").to_html()
    assert "Table 9" in nothing and "<summary>1 row not run: no data</summary>" in nothing
    assert nothing.count("<table") == 1


def test_datasets_that_ran_stand_above_those_that_did_not(study):
    table = paper.table_1(study)
    assert list(table.dataset[:2]) == ["lesions", "organs"] and set(table[""][2:10]) == {"published", "here"}
    html = tables.show(table).to_html()
    assert "8 rows not run: " in html and html.index("lesions") < html.index("kvasir_seg")


def test_methods_are_in_the_order_of_the_params(study):
    file = Path("params.yaml")
    order = [RECIPES[2], RECIPES[0], RECIPES[3], RECIPES[1]]
    assert list(dict.fromkeys(study.results.recipe)) != order
    file.write_text(file.read_text().replace("recipes: []", f"recipes: [{', '.join(order)}]"))
    again = Study("study")
    for table in (scores.table, runs.table):
        assert list(dict.fromkeys(table(again).recipe)) == order
    titles = [again.title(recipe) for recipe in order]
    assert list(dict.fromkeys(language.table(again).method)) == titles


def test_an_absent_table_names_the_command(study):
    shutil.rmtree("reports")
    with pytest.raises(UserError, match=r"runs.csv does not exist; .*featherseg collect"):
        scores.table(Study("study"))


def test_the_full_size_models_have_the_released_codes_counts(study):
    frame = paper.parameters(study, counts.full_size()).set_index("method")
    assert not (frame.equal == "NO").any() and (frame.equal == "yes").sum() == 6
    assert frame.loc["full fine-tuning", "counted at full size"] == 136_177_249
    assert frame.loc["decoder", "counted at full size"] == 1_127_009
    assert (frame["counted at full size"] == 1_127_009).sum() == 1, "prompts P0 to P9 change no count"


def test_a_line_says_why_each_of_its_cells_is_empty(study, tmp_path):
    shutil.rmtree("runs")
    make_project(tmp_path, ("clipseg-decoder",), ("lesions",))
    declare("study", "clipseg-vlsm_dense-vl", "lesions")
    write_status("runs/study/evaluate/clipseg-vlsm_dense-vl-lesions-0", "no weights")
    collect("study")
    table = paper.table_1(Study("study"))
    line = table[table.dataset == "lesions"].iloc[0]
    assert line["DA (dense, VL)"] == line["SA (shallow, VLC)"] == "not run" != line["CLIPSeg end-to-end"]
    assert "not run: no weights" in line["where from"]
    assert "not run: clipseg-vlsm_shallow-vlc is not in this study" in line["where from"]


def degenerate_run(recipe: str, dataset: str, answer, share_of_truths: float = 1.0) -> None:
    """What a collapsed model leaves behind: `answer` for every sample, whatever its image; some truths are empty."""
    run, data = make_run("study", recipe, dataset), PreparedDataset.read(f"data/processed/{dataset}")
    answers = []
    for trial in plan_trials(data.split("test"), run.evaluate.prompts, 0):
        k, truth = int(trial.sample.image_id.removeprefix("image")), data.mask(trial.sample)
        truth = truth & (k < share_of_truths * 9)
        answers.append((trial, np.full(truth.shape, answer, float), truth))
    write_scores(Path("runs/study/evaluate") / run.name, run, answers)


@pytest.mark.parametrize(("answer", "said"), [
    (0.0, "9 of 9 masks are empty (100%), where 9 have something to find"),
    (1.0, "9 of 9 cover nearly all of the image (100%)")])
def test_a_collapsed_model_is_marked_and_cannot_win(study, answer, said):
    degenerate_run("clipseg-decoder", "lesions", answer)
    collect("study")
    study = Study("study")
    frame = scores.table(study).set_index(["dataset", "recipe"])
    assert frame.loc[("lesions", "clipseg-decoder"), "method"].endswith(" †")
    assert not frame.loc["organs"].method.str.contains("†").any()
    assert f"decoder on lesions: {said}" in scores.collapses(study)
    verdict = scores.verdict(study).split("\n\n")[0]
    assert "is **decoder" not in verdict and "1 collapsed model is left out" in verdict


def test_the_best_mean_of_a_set_of_mostly_empty_truths_is_no_win_for_a_model_that_finds_nothing(study):
    for recipe in RECIPES:
        degenerate_run(recipe, "lesions", 0.0 if recipe == "clipseg-decoder" else 1.0, share_of_truths=0.3)
    collect("study")
    study = Study("study")
    first = scores.table(study).query("dataset == 'lesions'").sort_values("DSC").iloc[-1]
    assert first.recipe == "clipseg-decoder" and first.DSC > 60 and first["empty truth"] == 6
    verdict = scores.verdict(study)
    assert "On **lesions**" in verdict and "fewer than two tuned methods have given usable masks" in verdict


def test_where_there_is_nothing_to_find_no_method_wins(study):
    for recipe in RECIPES:
        degenerate_run(recipe, "lesions", 0.0, share_of_truths=0)
    collect("study")
    assert "every true mask is empty: there is nothing to find" in scores.verdict(Study("study"))
    assert scores.collapses(Study("study")) == ""


def test_the_unit_of_distances_stands_in_the_main_table(study):
    assert "HD95 (px)" in scores.table(study)
    rescore("clipseg-decoder-organs-0", "hd95", unit="mm")
    collect("study")
    units = scores.table(Study("study")).set_index(["dataset", "recipe"])["unit of HD95"]
    assert units["organs", "clipseg-decoder"] == "mm" and units["lesions", "clipseg-decoder"] == "px"


def test_a_sound_study_has_no_mark(study):
    assert scores.collapses(study) == "" and not scores.table(study).method.str.contains("†").any()


def test_the_class_name_alone_stands_beside_the_own_prompt(study):
    frame = scores.table(study).set_index(["dataset", "recipe"])
    dsc = measured("clipseg-decoder-organs-0", "dsc", condition="class_only").value
    line = frame.loc[("organs", "clipseg-decoder")]
    assert line["DSC, class name only"] == pytest.approx(100 * dsc, abs=1e-3) != line.DSC
    lost = language.table(study)
    assert (lost["own prompt"] > lost["class name only"]).all()
    assert "With the class name alone it scores" in scores.verdict(study)


def test_a_set_of_sentences_has_no_column_of_class_names(study, tmp_path):
    shutil.rmtree("runs")
    make_project(tmp_path, ("etris_vit-bridger", "etris_vit-decoder"), ("scenes_ref",), collected=True)
    assert "DSC, class name only" not in scores.table(Study("study"))
    assert "class name only" not in language.table(Study("study"))


def test_a_structure_that_is_never_found_is_named_beside_the_mean_that_hides_it(study, tmp_path, monkeypatch):
    def two_structures(name: str) -> None:
        with PreparedWriter(Path("data/processed") / name, dataset=name) as writer:
            for k in range(4):
                writer.add_image(f"image{k + 1}", np.zeros((60, 60, 3), np.uint8))
                for target, height in (("rib", 1), ("lung", 40)):  # a rib moved down is missed entirely
                    mask = np.zeros((60, 60), bool)
                    mask[5 : 5 + height, 5:50] = True
                    writer.add_sample(image_id=f"image{k + 1}", target=target, mask=mask, split="test",
                                      prompts={"p1": target, "p2": f"{target} {k}"})

    shutil.rmtree("runs")
    monkeypatch.setattr(reporting_project, "make_dataset", two_structures)
    write_project(tmp_path, ("clipseg-decoder", "clipseg-vlsm_dense-vl"), ("organs",))
    collect("study")
    study = Study("study")
    own = structures.table(study.by_target, "own").set_index("structure")
    assert list(own["samples"]) == [4, 4] and own.loc["rib", "decoder"] < 1 < 50 < own.loc["lung", "decoder"]
    lung = measured("clipseg-decoder-organs-0", "dsc", target="lung").value
    assert own.loc["lung", "decoder"] == pytest.approx(100 * lung, abs=1e-3)
    heading, first, second, source, remark = structures.tables(study)
    assert "organs" in heading.data and "own prompt" in first.to_html() and "class name only" in second.to_html()
    assert f"{STAND_IN}; weights clipseg-small" in source.data
    assert "1 of 2 structures" in remark.data and "- rib: by every method" in remark.data
    assert set(study.results.target) == {""} and len(scores.table(study)) == 2


def test_one_structure_needs_no_table(study):
    (note,) = structures.tables(study)
    assert "No dataset of this study" in note.data


def test_runs_that_the_study_no_longer_lists_are_named_once(study):
    assert runs.unlisted(study) == ""
    Path("runs/study/plan/clipseg-decoder-lesions-0.yaml").unlink()
    collect("study")
    study = Study("study")
    assert "one run on disk" in runs.unlisted(study) and "clipseg-decoder-lesions-0" in runs.unlisted(study)
    assert "clipseg-decoder-lesions-0" not in set(study.results.run)


@pytest.mark.parametrize("name", ["NA", "nan", "null", "None"])
def test_a_set_may_be_called_like_nothing(name):
    head = "run,split,member,target,condition,scope,threshold,metric,value,std,n,unit"
    rows = f"r,{name},,,own,,0.5,dsc,0.5,,9,1\ns,test,{name},,own,,0.5,dsc,,,9,1\n"
    table = read_scores(io.StringIO(f"{head}\n{rows}"))
    assert table.split.tolist() == [name, "test"]
    assert table.member.tolist() == ["", name]
    assert table["mean"].isna().tolist() == [False, True]
