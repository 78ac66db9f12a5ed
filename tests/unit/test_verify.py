"""Results beside the committed ones: what counts as equal, within the spread, off, missing and new, and what is said
where one of the sides cannot be read."""

import csv
import subprocess
from pathlib import Path

import pytest
from live_markup import HOSTILE, live_markup, text_of

from featherseg.cli import main
from featherseg.core.errors import UserError
from featherseg.core.markup import csv_cell, one_line
from featherseg.reporting.index import write_index
from featherseg.verify.cells import EQUAL, MISSING, NEW, OFF, WITHIN, Verification
from featherseg.verify.page import write_verification
from featherseg.verify.sides import KEYS

ROOT = Path(__file__).parents[2]
REPORTS = Path("reports/study")
PAGE = REPORTS / "verify.html"
IDENTITY = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.org")


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def cell(value: str, run: str = "first", metric: str = "dsc", **other: str) -> dict[str, str]:
    """A row of results.csv; the name of a run says nothing about it."""
    row = dict.fromkeys(KEYS, "") | {"run": run, "split": "test", "condition": "own", "threshold": "0.5"}
    return row | {"metric": metric, "value": value, "std": "0.2", "n": "35", "unit": "1"} | other


def record(run: str = "first", **other: str) -> dict[str, str]:
    """A row of runs.csv."""
    row = {"run": run, "recipe": "decoder", "dataset": "lesions", "seed": "0", "status": "ok", "reason": ""}
    machine = {"started": "then", "hardware": "One, 2 cores", "threads": "2", "arithmetic.instructions": "AVX2"}
    return row | machine | other


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def commit(cells: list[dict[str, str]], records: list[dict[str, str]] | None = None) -> None:
    """A repository whose commit holds these results."""
    write(REPORTS / "results.csv", cells)
    write(REPORTS / "runs.csv", records or [record()])
    git("init", "--quiet")
    git("add", ".")
    git(*IDENTITY, "commit", "--quiet", "-m", "results")


def make(cells: list[dict[str, str]], records: list[dict[str, str]] | None = None) -> None:
    """What a run of the pipeline leaves here."""
    write(REPORTS / "results.csv", cells)
    write(REPORTS / "runs.csv", records or [record(started="now")])
    status = Path("runs/study/evaluate/first/status.json")
    status.parent.mkdir(parents=True, exist_ok=True)
    status.write_text("{}")


def state_spread(**deviations: str) -> None:
    """The deviations of metrics that the repository states for the recipe and dataset of `record`."""
    rows = [{"recipe": "decoder", "dataset": "lesions", "condition": "own", "metric": metric, "deviation": value}
            for metric, value in deviations.items()]
    write(Path("reports/spread.csv"), rows)


def verdicts(found: Verification) -> dict[tuple[str, ...], str]:
    """The verdict of each cell by run, condition and metric."""
    names = zip(found.cells.run, found.cells.condition, found.cells.metric, strict=True)
    return dict(zip(names, found.cells.verdict, strict=True))


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_equal_results_are_reproduced_to_the_digit(capsys):
    cells = [cell("0.7"), cell("0.5", condition="none"), cell("", metric="hd95", unit="px")]
    commit(cells)
    make(list(reversed(cells)))
    main(["verify"])
    shown = capsys.readouterr().out
    assert "Reproduced to the digit: all 3 cells of HEAD (" in shown and "see reports/study/verify.html" in shown
    assert "Of 1 runs, 1 were trained again here." in shown
    page = PAGE.read_text()
    assert "Reproduced to the digit: all 3 cells" in text_of(page) and "Cells that are not equal" not in page
    assert live_markup(page) == []


@pytest.mark.parametrize("value, deviation, verdict", [
    ("0.72", "0.02", WITHIN), ("0.68", "0.02", WITHIN), ("0.720001", "0.02", OFF), ("0.679999", "0.02", OFF),
    ("0.700001", None, OFF), ("0.700001", "0", OFF), ("", "0.02", OFF), ("nan", "0.02", OFF)])
def test_a_difference_is_measured_against_the_stated_spread(capsys, value, deviation, verdict):
    commit([cell("0.7"), cell("0.4", metric="iou")])
    make([cell(value), cell("0.4", metric="iou")])
    if deviation is not None:
        state_spread(dsc=deviation, iou="0.5")
    found = write_verification("study")
    assert verdicts(found) == {("first", "own", "dsc"): verdict, ("first", "own", "iou"): EQUAL}
    assert found.reproduced == (verdict == WITHIN)
    if verdict == OFF:
        with pytest.raises(SystemExit) as ended:
            main(["verify"])
        assert ended.value.code == 1
        assert "Not reproduced: of 2 cells of HEAD (" in capsys.readouterr().out
    else:
        main(["verify"])
        assert "1 are equal and 1 within the spread of seeds." in capsys.readouterr().out


def test_the_spread_of_another_recipe_is_not_taken():
    commit([cell("0.7")])
    make([cell("0.71")])
    state_spread(dsc="0.02")
    stated = Path("reports/spread.csv")
    stated.write_text(stated.read_text().replace("decoder", "full"))
    assert write_verification("study").count(OFF) == 1


SEEDS = [record("first"), record("second", seed="1"), record("third", seed="2")]


def test_several_seeds_are_their_own_spread():
    names = ("first", "second", "third")
    wide = [cell(value, run) for run, value in zip(names, ("0.70", "0.72", "0.74"), strict=True)]
    none = [cell("0.5", run, condition="none") for run in names]
    commit([*wide, *none], SEEDS)
    state_spread(dsc="0.5")  # the study has a spread of its own
    moved = [cell("0.72", "first"), cell("0.741", "second"), wide[2]]
    make([*moved, cell("0.51", "first", condition="none"), *none[1:]], SEEDS)
    found = verdicts(write_verification("study"))
    assert found["first", "own", "dsc"] == WITHIN  # the deviation of 0.70, 0.72 and 0.74 is 0.02
    assert found["second", "own", "dsc"] == OFF
    assert found["third", "own", "dsc"] == EQUAL
    assert found["first", "none", "dsc"] == OFF  # in this condition the seeds agree
    assert found["second", "none", "dsc"] == EQUAL


def test_seeds_of_another_dataset_are_no_spread():
    records = [record("first"), record("second", dataset="organs")]
    commit([cell("0.7"), cell("0.5", "second")], records)
    make([cell("0.71"), cell("0.5", "second")], records)
    assert verdicts(write_verification("study"))["first", "own", "dsc"] == OFF


@pytest.mark.parametrize("changed", [{"n": "34"}, {"unit": "%"}])
def test_other_samples_and_another_unit_are_off(changed):
    commit([cell("0.7")])
    make([cell("0.7", **changed)])
    state_spread(dsc="0.5")
    assert write_verification("study").count(OFF) == 1


def test_every_key_tells_cells_apart():
    cells = [cell("0.1"), *(cell("0.2", **{key: "other"}) for key in KEYS)]
    commit(cells)
    make(cells)
    found = write_verification("study")
    assert found.count(EQUAL) == len(cells) == len(found.cells) == 1 + len(KEYS)


def test_missing_cells_are_named_with_the_reason(capsys):
    records = [record("first"), record("second", dataset="organs")]
    commit([cell("0.7"), cell("0.5", "second")], records)
    make([cell("0.7")], [record(), record("second", status="not_run", reason="no archive of it")])
    with pytest.raises(SystemExit) as ended:
        main(["verify"])
    assert ended.value.code == 1
    assert "0 are off and 1 missing" in capsys.readouterr().out
    assert "second: 1 cells, not run: no archive of it" in text_of(PAGE.read_text())


def test_new_cells_alone_are_no_fault():
    commit([cell("0.7")])
    make([cell("0.7"), cell("0.1", "second"), cell("0.2", metric="iou")])
    found = write_verification("study")
    assert (found.count(NEW), found.count(MISSING), found.reproduced) == (2, 0, True)
    assert "all 1 cells" in PAGE.read_text()


def test_the_worst_cells_come_first_and_the_page_shows_both_machines():
    commit([cell("0.7"), cell("20.0", metric="hd95", unit="px"), cell("0.4", metric="iou")])
    other = record(started="now", hardware="Another, 4 cores", threads="4", **{"arithmetic.instructions": "AVX512"})
    make([cell("0.71"), cell("30.0", metric="hd95", unit="px"), cell("0.39", metric="iou")], [other])
    found = write_verification("study")
    assert list(found.unequal.metric) == ["hd95", "iou", "dsc"]
    text = " ".join(text_of(PAGE.read_text()).split())
    assert "hardware One, 2 cores; threads 2;" in text and "instructions AVX2." in text
    assert "here, 1 runs: hardware Another, 4 cores; threads 4;" in text and "instructions AVX512." in text
    assert "20.0 px (n = 35)" in text and "10.000000" in text


def test_an_earlier_commit_and_a_file_can_be_compared_with():
    commit([cell("0.7")])
    make([cell("0.8")])
    write(Path("elsewhere/results.csv"), [cell("0.8")])
    write(Path("elsewhere/runs.csv"), [record(hardware="A third")])
    assert write_verification("study", "elsewhere/results.csv").count(EQUAL) == 1
    assert "A third" in PAGE.read_text()
    git(*IDENTITY, "commit", "--quiet", "-am", "later")
    assert write_verification("study").count(EQUAL) == 1
    assert write_verification("study", "HEAD~1").count(OFF) == 1


def test_a_project_may_lie_within_a_repository(project, monkeypatch):
    git("init", "--quiet")
    (project / "inner").mkdir()
    monkeypatch.chdir(project / "inner")
    write(REPORTS / "results.csv", [cell("0.7")])
    git("add", ".")
    git(*IDENTITY, "commit", "--quiet", "-m", "results")
    make([cell("0.7")])
    assert write_verification("study").reproduced


def test_without_records_of_runs_no_spread_is_known():
    commit([cell("0.7")])
    make([cell("0.71")])
    state_spread(dsc="0.5")
    Path("reports/study/runs.csv").unlink()
    write(Path("elsewhere/results.csv"), [cell("0.7")])
    assert write_verification("study", "elsewhere/results.csv").count(OFF) == 1
    assert "Neither side records its machines." in PAGE.read_text()


def test_hostile_text_stays_text(capsys):
    cells = [cell("0.7", csv_cell(HOSTILE), target=csv_cell(HOSTILE)), cell("0.5", csv_cell(HOSTILE), metric="<b>iou")]
    commit(cells, [record(csv_cell(HOSTILE), hardware=csv_cell(HOSTILE))])
    make([cell("0.8", csv_cell(HOSTILE), target=csv_cell(HOSTILE), unit=csv_cell(HOSTILE))],
         [record(csv_cell(HOSTILE), reason=csv_cell(HOSTILE))])
    with pytest.raises(SystemExit):
        main(["verify"])
    page, shown = PAGE.read_text(), capsys.readouterr().out
    assert live_markup(page) == [] and one_line(HOSTILE) in text_of(page) and "<b>iou" in text_of(page)
    assert f"'{one_line(HOSTILE)}" not in text_of(page)  # the guard of the CSV file is none of the name
    assert "\x1b" not in shown + page and "\u202e" not in shown + page


def refused(*arguments: str) -> str:
    """What `featherseg verify` prints where it cannot compare."""
    with pytest.raises(SystemExit) as ended:
        main(["verify", *arguments])
    sentence = str(ended.value.code)
    assert sentence.startswith("featherseg: ") and "\n" not in sentence and "at fault" not in sentence
    return sentence


def test_outside_of_git_there_is_nothing_to_compare_with(monkeypatch, project):
    make([cell("0.7")])
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    assert "there is no git checkout here" in refused()
    monkeypatch.setenv("PATH", "")
    assert "or no git" in refused()


@pytest.mark.parametrize("revision", ["nowhere", "--help", "HEAD~7", "-x", "--all", "--since=now"])
def test_an_unknown_revision_is_named(revision):
    commit([cell("0.7")])
    make([cell("0.7")])
    assert f"git knows no commit '{revision}'" in refused(f"--against={revision}")


def test_a_commit_without_results_is_named():
    Path("README.md").write_text("none")
    git("init", "--quiet")
    git("add", ".")
    git(*IDENTITY, "commit", "--quiet", "-m", "none")
    make([cell("0.7")])
    assert "holds no reports/study/results.csv: there are no committed results" in refused()
    assert "elsewhere.csv does not exist" in refused("--against", "elsewhere.csv")


def test_results_without_a_score_are_nothing_to_compare_with():
    commit([cell("0.7")])
    results = (REPORTS / "results.csv").read_text()
    (REPORTS / "results.csv").write_text(results.splitlines()[0] + "\n")
    git(*IDENTITY, "commit", "--quiet", "-am", "none was made")
    make([cell("0.7")])
    assert "holds no score" in refused()


def test_a_clone_that_has_run_nothing_has_no_results_yet():
    commit([cell("0.7")])
    assert "there are no results of study 'study' yet" in refused() and "make repro" in refused()
    make([cell("0.7")], [record()])
    found = write_verification("study")
    assert found.reproduced and "0 were trained again here" in PAGE.read_text()


def test_no_results_and_an_unknown_study_are_told_apart():
    Path("pipelines/mine").mkdir(parents=True)
    Path("pipelines/mine/dvc.yaml").write_text("cmd: featherseg plan --study mine")
    sentence = refused("--study", "mine")
    assert "reports/mine/results.csv does not exist" in sentence and "dvc repro pipelines/mine/dvc.yaml" in sentence
    assert "unknown study 'mne': did you mean 'mine'?" in refused("--study", "mne")


def test_tables_that_are_none_are_one_sentence():
    commit([cell("0.7")])
    make([cell("0.7"), cell("0.7")])
    assert "holds a cell twice, of run 'first'" in refused()
    make([{"study": "old", "run": "first", "mean": "0.7"}])
    assert "results.csv here lacks the column" in refused()
    (REPORTS / "results.csv").write_text("")
    assert "cannot be read as a table" in refused()
    (REPORTS / "results.csv").write_bytes(b"\xff\xfe\x00")
    assert "is not text in UTF-8" in refused()


COLUMNS = "recipe,dataset,condition,metric"


@pytest.mark.parametrize("content, fault", [
    (f"{COLUMNS}\n", "is not a table with the columns"), ("", "is not a table with the columns"),
    (f"{COLUMNS},deviation\na,b,own,dsc,much\n", "line 2: the deviation 'much' is not a number"),
    (f"{COLUMNS},deviation\na,b,own,dsc,1\na,b,own,iou,-1\n", "line 3: the deviation '-1' is not a number"),
    (f"{COLUMNS},deviation\na,b,own,dsc,1\na,b,own,dsc,2\n",
     "line 3: this recipe, dataset, condition and metric have a deviation above")])
def test_a_spread_that_is_none_is_one_sentence(content, fault):
    commit([cell("0.7")])
    make([cell("0.7")])
    Path("reports/spread.csv").write_text(content)
    assert fault in refused()


def test_the_page_is_not_committed_and_not_linked():
    commit([cell("0.7")])
    make([cell("0.7")])
    write_verification("study")
    assert "verify.html" not in write_index().read_text()
    ignored = subprocess.run(["git", "check-ignore", "reports/study/verify.html"], cwd=ROOT, capture_output=True)
    assert ignored.returncode == 0


def test_a_committed_table_that_is_no_text_is_one_sentence():
    commit([cell("0.7")])
    (REPORTS / "results.csv").write_bytes(b"run\xff,split\n")
    git(*IDENTITY, "commit", "--quiet", "-am", "broken")
    make([cell("0.7")])
    with pytest.raises(UserError, match="is not text in UTF-8"):
        write_verification("study")


def seeds(values: dict[str, list[str]], recipe: str = "decoder", **other: str) -> tuple[list[dict], list[dict]]:
    """Cells of runs of a recipe that differ in their seed, by condition, and the runs' records."""
    runs = [f"{recipe}{seed}" for seed in range(max(map(len, values.values())))]
    cells = [cell(value, run, condition=condition, **other) for condition, of_seeds in values.items()
             for run, value in zip(runs, of_seeds, strict=False)]
    return cells, [record(run, recipe=recipe, seed=str(seed)) for seed, run in enumerate(runs)]


def stated() -> list[dict[str, str]]:
    with open("reports/spread.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_spread_is_the_largest_deviation_of_any_target(capsys):
    whole, records = seeds({"own": ["0.7", "0.8", "0.75"], "none": ["0.2", "0.6", "0.4"], "other": ["0.1"]})
    of_target, _ = seeds({"own": ["0.5", "0.7", "0.6"]}, target="lesion")
    make([*whole, *of_target], records)
    main(["spread"])
    known = {"recipe": "decoder", "dataset": "lesions", "metric": "dsc"}
    assert stated() == [known | {"condition": "none", "deviation": "0.2"},
                        known | {"condition": "own", "deviation": "0.1"}]
    assert "2 deviations over seeds, of 1 recipes on 1 datasets; see reports/spread.csv" in capsys.readouterr().out


def test_what_spread_states_is_what_verify_measures_against():
    make(*seeds({"own": ["0.70", "0.72"]}))
    main(["spread"])
    deviation = float(stated()[0]["deviation"])
    assert deviation == pytest.approx(0.02 / 2 ** 0.5, abs=1e-6)
    commit([cell("0.7", "decoder0")], [record("decoder0")])
    for difference, verdict in ((0.9 * deviation, WITHIN), (1.1 * deviation, OFF)):
        make([cell(f"{0.7 + difference:.6f}", "decoder0")], [record("decoder0")])
        assert verdicts(write_verification("study")) == {("decoder0", "own", "dsc"): verdict}


def test_a_spread_replaces_its_own_lines_and_leaves_others():
    write(Path("reports/spread.csv"), [
        {"recipe": recipe, "dataset": "lesions", "condition": "own", "metric": metric, "deviation": "0.5"}
        for recipe, metric in (("decoder", "dsc"), ("decoder", "iou"), ("adapter", "dsc"))])
    make(*seeds({"own": ["0.4", "0.4"]}))
    main(["spread"])
    assert {(line["recipe"], line["metric"]): float(line["deviation"]) for line in stated()} == {
        ("adapter", "dsc"): 0.5, ("decoder", "dsc"): 0, ("decoder", "iou"): 0.5}


def test_a_spread_comes_from_a_commit_or_a_file():
    several, records = seeds({"own": ["0.1", "0.3", "0.5"]})
    commit(several, records)
    make([cell("0.7")])
    main(["spread", "--from", "HEAD"])
    assert [line["deviation"] for line in stated()] == ["0.2"]
    write(Path("elsewhere/results.csv"), seeds({"own": ["0.1", "0.2", "0.3"]})[0])
    write(Path("elsewhere/runs.csv"), records)
    main(["spread", "--from", "elsewhere/results.csv"])
    assert [line["deviation"] for line in stated()] == ["0.1"]


def test_one_seed_has_no_spread():
    make([cell("0.7"), cell("0.5", "second")], [record(), record("second", recipe="adapter")])
    with pytest.raises(SystemExit, match=r"study 'study' \(here\) hold no recipe with several seeds .*study.seeds="):
        main(["spread"])
    assert not Path("reports/spread.csv").exists()
