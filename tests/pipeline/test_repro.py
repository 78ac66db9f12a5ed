"""`dvc repro`: everything once, then exactly what a change reaches."""

from conftest import CHECK, DECODER, DENSE, ran

STUDY = {"plan", "code", "collect", "notebook@00_overview", "index",
         *(f"{stage}@{run}" for stage in ("train", "evaluate") for run in (DECODER, DENSE))}


def would_run(workspace) -> set[str]:
    """The stages that a `dvc repro` would run once the code's digests are taken, which it does first."""
    workspace.dvc("repro", "code")
    return ran(workspace.dvc("repro", "--dry"))


def test_a_fresh_clone_checks_first_and_runs_every_stage_once(reproduced):
    order = [line.split("'")[1] for line in reproduced.output.splitlines() if line.startswith("Running stage")]
    drawn = "pipelines/data/dvc.yaml:synthetic@lesions"
    assert order.index(CHECK) < order.index(drawn) < min(order.index(f"train@{run}") for run in (DECODER, DENSE))
    assert sorted(order) == sorted({*STUDY, CHECK, drawn})
    for name in ("index.html", "study/00_overview.html", "study/00_overview.ipynb", "study/results.csv"):
        assert (reproduced.path / "reports" / name).stat().st_size > 0


def test_a_second_repro_runs_nothing_and_changes_no_file(workspace):
    assert ran(workspace.dvc("repro")) == set()
    assert workspace.run("git", "status", "--porcelain") == ""


def test_what_git_ignores_is_what_dvc_keeps(reproduced):
    tracked = set(reproduced.run("git", "ls-files").splitlines())
    assert not [name for name in tracked if name.startswith(("runs/", "data/raw", "data/processed", ".cache"))]
    assert {"dvc.lock", "pipelines/data/dvc.lock", "reports/study/results.csv", "reports/index.html"} <= tracked


def test_changed_code_reaches_what_uses_it_and_nothing_else(workspace):
    workspace.append("README.md", "\nA remark.\n")
    workspace.append("src/featherseg/data/raw/fetch.py", "\n# a remark\n")
    (workspace.path / "src/featherseg/data/official/mine.py").write_text('"""Another set."""\n')
    assert would_run(workspace) == set()
    workspace.append("src/featherseg/reporting/figures.py", "\n# a remark\n")
    assert would_run(workspace) == {"notebook@00_overview"}
    for module in ("tasks/segmentation/predict", "tasks/segmentation/losses", "models/base"):
        workspace.append(f"src/featherseg/{module}.py", "\n# a remark\n")
    assert would_run(workspace) == {"notebook@00_overview"}
    workspace.append("src/featherseg/tasks/segmentation/predict.py", "\nCHANGED = True\n")
    scored = {f"evaluate@{DECODER}", f"evaluate@{DENSE}"}
    assert would_run(workspace) == scored | {"notebook@00_overview"}
    workspace.append("src/featherseg/tasks/segmentation/losses.py", "\nCHANGED = True\n")
    trained = {f"train@{DECODER}", f"train@{DENSE}"}
    assert would_run(workspace) == trained | scored | {"notebook@00_overview"}


def test_an_evaluation_setting_scores_again_and_trains_nothing(workspace):
    workspace.edit("params.yaml", lambda params: params["evaluate"].update(threshold=0.4))
    assert ran(workspace.dvc("repro", "plan")) == {"plan"}
    assert would_run(workspace) >= {f"evaluate@{DECODER}", f"evaluate@{DENSE}"}
    assert not [stage for stage in would_run(workspace) if stage.startswith("train@")]


def test_further_seeds_run_only_the_new_runs_and_one_target_only_that_run(workspace):
    new = [run.removesuffix("0") + "1" for run in (DECODER, DENSE)]
    workspace.edit("params.yaml", lambda params: params["study"].update(seeds=[0, 1]))
    assert ran(workspace.dvc("repro", f"train@{new[0]}")) == {CHECK, "plan", f"train@{new[0]}"}
    assert ran(workspace.dvc("repro", "collect")) == {
        f"train@{new[1]}", *(f"evaluate@{run}" for run in new), "collect"}
    results = (workspace.path / "reports/study/results.csv").read_text()
    assert all(f",{run}," in results for run in (DECODER, DENSE, *new))


def test_metrics_plots_and_experiments_answer_readably(workspace):
    shown = workspace.dvc("metrics", "show").splitlines()
    header = next(line for line in shown if line.startswith("Path"))
    assert header.split() == ["Path", "dsc.clipseg-decoder", "dsc.clipseg-vlsm_dense-v"]
    workspace.dvc("plots", "show", "--out", "curves")
    page = (workspace.path / "curves/index.html").read_text()
    assert "validation DSC" in page and "training loss" in page and DECODER in page
