"""Which code decides a run, and what changes its digest."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from featherseg import run_code
from featherseg.config import ModelConfig, Run
from featherseg.core import sources
from featherseg.core.files import read_json, write_json
from featherseg.core.sources import PACKAGE, closure, digest
from featherseg.models.clipseg.model import CLIPSeg
from featherseg.recipes import recipe_names
from featherseg.resume import run_key
from featherseg.run_code import notebook_code, stage_code, write_code

ROOT = Path(__file__).parents[2]
SOURCE = '''"""What it is."""

def twice(x):
    """Twice x."""
    return 2 * x  # a remark
'''


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """A copy of the package."""
    copy = tmp_path_factory.mktemp("copy") / "featherseg"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def package(copied, monkeypatch) -> Iterator[Path]:
    """A copy of the package to change, whose code is digested in place of the real one's."""
    monkeypatch.setattr(sources, "PACKAGE", copied)
    monkeypatch.setattr(run_code, "PACKAGE", copied)
    kept = {file: file.read_text() for file in copied.rglob("*.py")}
    yield copied
    for file in copied.rglob("*.py"):
        if file not in kept:
            file.unlink()
        elif file.read_text() != kept[file]:
            file.write_text(kept[file])


RUNS = {"dense": ("clipseg", "vlsm_dense"), "bridger": ("etris_vit", "bridger"), "unet": ("unet", "full")}


def codes() -> dict[tuple[str, str], dict[str, str]]:
    """The code of both stages of some runs."""
    return {(stage, run): stage_code(stage, "segmentation", *pair)
            for stage in ("train", "evaluate") for run, pair in RUNS.items()}


def reached(before: dict, after: dict) -> set[str]:
    """The stages whose code differs, as `<stage> <run>`."""
    return {" ".join(key) for key in before if before[key] != after[key]}


def append(file: Path, text: str = "\nCHANGED = True\n") -> None:
    file.write_text(file.read_text() + text)


@pytest.mark.parametrize("same", [
    SOURCE.replace("a remark", "another"), SOURCE.replace("Twice x", "Two times x"), SOURCE.replace("What", "Who"),
    SOURCE.replace("2 * x", "(2 *\n            x)"), SOURCE.replace('    """Twice x."""\n', "")])
def test_comments_docstrings_and_layout_do_not_count(same):
    assert same != SOURCE and digest(same) == digest(SOURCE)


@pytest.mark.parametrize("other", [
    SOURCE.replace("2 *", "3 *"), SOURCE.replace("twice", "double"), SOURCE + "twice(1)\n",
    SOURCE.replace("return", '"""Not a docstring."""\n    return')])
def test_what_the_code_does_counts(other):
    assert digest(other) != digest(SOURCE)


def test_how_a_method_is_drawn_does_not_count_but_what_it_requires_does():
    plain = "class A:\n    requires = 1\n"
    drawn = 'class A:\n    requires = 1\n    colours = {}\n    colours: dict = {}\n'
    assert digest(drawn) == digest(plain) != digest(drawn.replace("requires = 1", "requires = 2"))
    assert digest("colours = 1\n") != digest("colours = 2\n")


def test_a_function_of_nothing_but_a_docstring_is_not_lost():
    assert digest('def f():\n    """A."""\n') == digest('def f():\n    """B."""\n') != digest('"""A."""\n')


ALL = {f"{stage} {run}" for stage in ("train", "evaluate") for run in RUNS}
TRAININGS, SCORES = ({key for key in ALL if key.startswith(stage)} for stage in ("train", "evaluate"))


@pytest.mark.parametrize(("module", "expected"), [
    ("adapters/vlsm_dense.py", {"train dense", "evaluate dense"}),
    ("adapters/base.py", ALL), ("models/base.py", ALL), ("core/seeds.py", ALL), ("core/caches.py", ALL),
    ("data/transforms.py", ALL), ("checkpoint.py", ALL),
    ("models/etris/head.py", {"train bridger", "evaluate bridger"}),
    ("models/clipseg/decoder.py", {"train dense", "evaluate dense"}),
    ("models/cnn/config.py", {"train unet", "evaluate unet"}),
    ("tasks/segmentation/losses.py", TRAININGS), ("tasks/segmentation/objective.py", TRAININGS),
    ("engine.py", TRAININGS), ("tasks/segmentation/metrics.py", ALL), ("tasks/segmentation/features.py", ALL),
    ("tasks/segmentation/predict.py", SCORES), ("tasks/segmentation/referring.py", SCORES),
    ("reliance/verdict.py", SCORES), ("data/prompts/wording.py", SCORES), ("data/facts.py", SCORES),
    ("config.py", set()), ("core/files.py", set()), ("plan.py", set()), ("data/raw/fetch.py", set()),
    ("data/synthetic/lesions.py", set()), ("reporting/style.py", set()), ("papers/etris/table.py", set()),
    ("tasks/segmentation/lost_prompts.py", set()), ("adapters/lora.py", set()), ("models/detris/model.py", set())])
def test_a_change_reaches_the_stages_that_use_it_and_no_others(package, module, expected):
    before = codes()
    append(package / module, "\n# a remark\n")
    assert reached(before, codes()) == set()
    append(package / module)
    assert reached(before, codes()) == expected


def test_whatever_is_new_reaches_no_run(package):
    before = codes()
    for name in ("adapters/mine.py", "models/mine/config.py", "models/mine/model.py", "papers/mine/table.py",
                 "tasks/mine/__init__.py", "data/official/mine.py"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("x = 1\n")
    assert reached(before, codes()) == set()


def test_imports_are_followed_wherever_they_stand_but_for_those_of_type_checkers(package):
    (package / "mine.py").write_text("""
from typing import TYPE_CHECKING
import featherseg.data.splits
if TYPE_CHECKING:
    from featherseg.data.images import read_image
else:
    from featherseg.data import mask_classes
def late():
    try:
        from featherseg.reliance import statistics
    except ImportError:
        pass
""")
    assert set(closure("mine.py")) == {"__init__.py", "mine.py", "data/__init__.py", "data/splits.py",
                                       "data/mask_classes.py", "reliance/__init__.py", "reliance/statistics.py"}


def test_a_tasks_methods_lead_to_what_their_stage_calls(package):
    (package / "tasks/mine").mkdir(exist_ok=True)
    (package / "tasks/mine/__init__.py").write_text("""
from featherseg.tasks.base import Task
class Mine(Task):
    def objective(self):
        from featherseg.tasks.mine import loss
    def evaluate(self):
        return self._scores()
    def _scores(self):
        from featherseg.tasks.mine import score
""")
    for name in ("loss", "score"):
        (package / f"tasks/mine/{name}.py").write_text("x = 1\n")
    train, evaluate = (set(stage_code(stage, "mine", "clipseg", "decoder")) for stage in ("train", "evaluate"))
    assert {"tasks/mine/loss.py", "tasks/mine/score.py"} <= train  # a helper may be called by any method
    assert "tasks/mine/score.py" in evaluate and "tasks/mine/loss.py" not in evaluate


def test_the_code_of_a_class_is_what_its_module_imports_and_no_other_model():
    code = set(sources.code_of(CLIPSeg))
    assert {"models/clipseg/model.py", "models/clipseg/decoder.py", "models/base.py"} < code
    assert not [name for name in code if name.startswith(("models/etris", "adapters", "tasks"))]


@pytest.mark.parametrize(("module", "is_reached"), [
    ("adapters/vlsm_dense.py", True), ("resume.py", True), ("tasks/segmentation/losses.py", True),
    ("adapters/lora.py", False), ("tasks/segmentation/referring.py", False)])
def test_what_a_resumed_training_depends_on_is_in_its_key(package, module, is_reached):
    run = Run(study="study", recipe="r", dataset="d", model=ModelConfig(name="clipseg"), train={},
              adapter={"name": "vlsm_dense"})
    before = run_key(run, "data")
    append(package / module)
    assert (run_key(run, "data") != before) == is_reached


def test_a_class_from_outside_is_its_own_file(package):
    assert sources.code_of(type("Mine", (), {"__module__": __name__})).keys() == {__name__}


def test_a_folder_means_every_module_below_it(package):
    (package / "models/deep").mkdir()
    (package / "models/deep/new.py").write_text("x = 1\n")
    assert {"models/deep/new.py", "models/clipseg/model.py"} < set(closure("models"))


def test_each_recipe_has_a_file_for_each_stage_and_a_faulty_one_is_named(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    good = recipe_names()
    Path("recipes/broken.yaml").write_text("title: x\n")
    (fault,) = write_code(Path("code"))
    assert "recipes/broken.yaml" in fault
    for stage in ("train", "evaluate"):
        assert sorted(path.stem for path in Path("code", stage).iterdir()) == good
    assert "adapters/lora.py" in read_json("code/train/clipseg-lora.json")
    assert read_json("code/train/clipseg-zero_shot.json") == {}
    assert "adapters/zero_shot.py" in read_json("code/evaluate/clipseg-zero_shot.json")
    assert {"plan.py", "config.py", "tasks/segmentation/config.py"} < set(read_json("code/plan.json"))
    assert {"check.py", "plan.py", "adapters/lora.py"} < set(read_json("code/check.json"))
    assert {"reporting/collect.py", "reporting/records.py", "core/markup.py"} < set(read_json("code/collect.json"))
    assert {"reporting/index.py", "reporting/index.html"} < set(read_json("code/index.json"))
    assert "adapters/lora.py" not in read_json("code/collect.json").keys() | read_json("code/index.json").keys()


def test_a_notebook_depends_on_what_it_imports_and_on_the_templates_beside(package, tmp_path):
    cells = [{"cell_type": "markdown", "source": "from featherseg.papers.medvlsm import table"},
             {"cell_type": "code", "source": ["from featherseg.reporting import style\n", "style.note()"]}]
    write_json(tmp_path / "mine.ipynb", {"cells": cells})
    (package / "reporting/mine.html").write_text("<p></p>")
    code = notebook_code(tmp_path / "mine.ipynb")
    assert {"reporting/style.py", "reporting/mine.html", "core/markup.py"} < set(code)
    assert not [name for name in code if name.startswith("papers")]
    (package / "reporting/mine.html").write_text("<b></b>")
    append(package / "reporting/style.py")
    after = notebook_code(tmp_path / "mine.ipynb")
    assert {name for name in code if code[name] != after[name]} == {"reporting/style.py", "reporting/mine.html"}
