"""`dvc repro`: everything once, then exactly what a change reaches."""

from conftest import BRIDGER, CHECK, DECODER, ran

STUDY = {"plan", "code", "collect", "notebook@00_overview", "index",
         *(f"{stage}@{run}" for stage in ("train", "evaluate") for run in (DECODER, BRIDGER))}


METHOD = """
from featherseg.adapters.base import METHODS, AdapterConfig, Method


@METHODS.register("mine")
class Mine(Method):
    def apply(self, model, config: AdapterConfig):
        pass
"""
FAMILY = """
from featherseg.models.knobs import ModelKnobs

MODELS = {"mine": {"text"}}


class Knobs(ModelKnobs):
    mine: int = 1
"""
TASK = """
from featherseg.tasks.base import TASKS, Metric, Task


@TASKS.register("mine")
class Mine(Task):
    metrics = (Metric("accuracy"),)

    def build(self, run): ...
    def objective(self, run, model, dataset): ...
    def evaluate(self, run, model, dataset, splits, out): ...
"""
NEW = {"src/featherseg/adapters/mine.py": METHOD, "src/featherseg/models/mine/config.py": FAMILY,
       "src/featherseg/models/mine/model.py": "def build(config, knobs): ...\n",
       "src/featherseg/tasks/mine/__init__.py": TASK, "src/featherseg/papers/mine/table.py": "ROWS = ()\n",
       "notebooks/99_mine.ipynb": "{}\n",
       "recipes/mine.yaml": "title: Mine\nmodel: mine\nadapter: {name: mine}\n"}


def would_run(workspace) -> set[str]:
    """The stages that a `dvc repro` would run beside its check, after the digests of code and the plan."""
    workspace.dvc("repro", "plan")
    return ran(workspace.dvc("repro", "--dry")) - {CHECK}


def test_a_fresh_clone_checks_first_and_runs_every_stage_once(reproduced):
    order = [line.split("'")[1] for line in reproduced.output.splitlines() if line.startswith("Running stage")]
    drawn = "pipelines/data/dvc.yaml:synthetic@lesions"
    assert order.index(CHECK) < order.index(drawn) < min(order.index(f"train@{run}") for run in (DECODER, BRIDGER))
    assert sorted(order) == sorted({*STUDY, CHECK, drawn})
    for name in ("index.html", "study/00_overview.html", "study/00_overview.ipynb", "study/runs.csv",
                 "study/results.csv"):
        assert (reproduced.path / "reports" / name).stat().st_size > 0


def test_a_second_repro_runs_nothing_and_changes_no_file(workspace):
    assert ran(workspace.dvc("repro")) == set()
    assert workspace.run("git", "status", "--porcelain") == ""


def test_what_git_ignores_is_what_dvc_keeps(reproduced):
    tracked = set(reproduced.run("git", "ls-files").splitlines())
    assert not [name for name in tracked if name.startswith(("runs/", "data/raw", "data/processed", ".cache"))]
    assert {"dvc.lock", "pipelines/data/dvc.lock", "reports/study/results.csv", "reports/index.html"} <= tracked


def test_changed_code_reaches_what_uses_it_and_nothing_else(workspace):
    """Of the pages, of scoring and of one method; unit/test_sources.py has what each module reaches alone."""
    for module in ("reporting/style", "tasks/segmentation/predict", "adapters/bridger"):
        workspace.append(f"src/featherseg/{module}.py", "\nCHANGED = True\n")
    assert would_run(workspace) == {
        "notebook@00_overview", "index", f"train@{BRIDGER}", f"evaluate@{DECODER}", f"evaluate@{BRIDGER}"}


def test_neither_a_remark_nor_what_is_new_reaches_a_stage_of_a_run(workspace):
    workspace.append("README.md", "\nA remark.\n")
    for module in ("data/raw/fetch", "reporting/style", "tasks/segmentation/predict", "tasks/segmentation/losses",
                   "models/base", "adapters/bridger"):
        workspace.append(f"src/featherseg/{module}.py", "\n# a remark\n")
    for name, text in NEW.items():
        (workspace.path / name).parent.mkdir(exist_ok=True)
        (workspace.path / name).write_text(text)
    assert would_run(workspace) == set()
    assert (workspace.path / "runs/code/train/mine.json").is_file()


def test_further_seeds_train_only_the_new_runs_and_an_evaluation_setting_trains_none(workspace):
    """The plan alone is made: DVC says what would run, and that it cannot score runs which are not trained yet."""
    new = [run.removesuffix("0") + "1" for run in (DECODER, BRIDGER)]
    workspace.edit("params.yaml", lambda params: params["study"].update(seeds=[0, 1]))
    workspace.edit("params.yaml", lambda params: params["evaluate"].update(threshold=0.4))
    assert ran(workspace.dvc("repro", "plan")) == {"plan"}
    assert ran(workspace.dvc("repro", "--dry", f"train@{new[1]}")) == {CHECK, f"train@{new[1]}"}
    output = workspace.dvc("repro", "--dry", "--keep-going", "collect", fails=True)
    scored_again = {f"evaluate@{run}" for run in (DECODER, BRIDGER)}
    assert ran(output) == {CHECK, *(f"train@{run}" for run in new)} | scored_again
    error, = (line for line in output.splitlines() if line.startswith("ERROR: failed to reproduce"))
    assert all(f"'evaluate@{run}'" in error for run in new)


def test_metrics_plots_and_experiments_answer_readably(workspace):
    shown = workspace.dvc("metrics", "show").splitlines()
    header = next(line for line in shown if line.startswith("Path"))
    assert header.split() == ["Path", "dsc.clipseg-decoder", "dsc.etris_vit-bridger"]
    workspace.dvc("plots", "show", "--out", "curves")
    page = (workspace.path / "curves/index.html").read_text()
    assert "validation DSC" in page and "training loss" in page and DECODER in page
