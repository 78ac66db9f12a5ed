"""Which code decides a training and an evaluation, and what changes its digest."""

import ast
import shutil

import pytest

from featherseg.core import sources
from featherseg.core.files import read_json
from featherseg.core.sources import CODE, PACKAGE, digest, digests, write_code

SOURCE = '''"""What it is."""

def twice(x):
    """Twice x."""
    return 2 * x  # a remark
'''
# imported by a training or an evaluation, but deciding no number: they write, name, look up, time, refuse or resume
OF_NO_EFFECT = {"__init__.py", "data/__init__.py", "data/raw/__init__.py", "data/prompts/__init__.py",
                "data/folder/__init__.py", "core/__init__.py", "tasks/__init__.py", "tasks/segmentation/__init__.py",
                "reliance/__init__.py", "core/errors.py", "core/files.py", "core/registry.py", "core/sources.py",
                "core/progress.py", "core/provenance.py", "resume.py", "core/locks.py", "core/terminal.py",
                "split_check.py", "data/raw/extract.py"}
NAMES_ITS_PARTS = "tasks/segmentation/task.py"  # training and evaluation, each imported where it is used
RESOLVED_BY_THE_PLAN = {"config.py", "tasks/segmentation/config.py"}


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


def test_a_function_of_nothing_but_a_docstring_is_not_lost():
    assert digest('def f():\n    """A."""\n') == digest('def f():\n    """B."""\n') != digest('"""A."""\n')


def test_a_folder_means_every_module_below_it(tmp_path, monkeypatch):
    shutil.copytree(PACKAGE, tmp_path / "featherseg")
    monkeypatch.setattr(sources, "PACKAGE", tmp_path / "featherseg")
    before = digests("models", "tasks/segmentation/losses.py")
    assert {"models/clipseg/model.py", "tasks/segmentation/losses.py"} < set(before)
    (tmp_path / "featherseg/models/deep").mkdir()
    (tmp_path / "featherseg/models/deep/new.py").write_text("x = 1\n")
    changed = tmp_path / "featherseg/tasks/segmentation/losses.py"
    changed.write_text(changed.read_text() + "x = 1\n")
    after = digests("models", "tasks/segmentation/losses.py")
    assert set(after) - set(before) == {"models/deep/new.py"}
    assert {name for name in before if before[name] != after[name]} == {"tasks/segmentation/losses.py"}


def test_a_stage_has_one_file(tmp_path):
    write_code(tmp_path / "code")
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == ["evaluate.json", "train.json"]
    train, evaluate = (read_json(tmp_path / f"code/{stage}.json") for stage in ("train", "evaluate"))
    assert "tasks/segmentation/losses.py" in train and "tasks/segmentation/referring.py" not in train
    assert "tasks/segmentation/metrics.py" in evaluate and "tasks/segmentation/losses.py" not in evaluate


def imported_by(path: str) -> set[str]:
    """Modules of the package that one of them imports, also within functions, by path."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "featherseg":
            base = "/".join(node.module.split(".")[1:])
            for module in (base, *(f"{base}/{name.name}".lstrip("/") for name in node.names)):
                found |= {f"{module}.py", f"{module}/__init__.py".lstrip("/")}
    return {name for name in found if (PACKAGE / name).is_file()}


@pytest.mark.parametrize("stage", list(CODE))
def test_every_module_that_a_stage_uses_is_listed_or_of_no_effect(stage):
    first = {"train": ["engine.py", "tasks/segmentation/objective.py"],
             "evaluate": ["evaluate.py", "tasks/segmentation/evaluate.py"]}
    listed, found, left = set(digests(*CODE[stage])), set(), list(first[stage])
    while left:
        name = left.pop()
        if name not in found | OF_NO_EFFECT:
            found.add(name)
            left += [] if name == NAMES_ITS_PARTS else imported_by(name)
    assert len(found) > 15
    unlisted = found - listed - (RESOLVED_BY_THE_PLAN if stage == "evaluate" else set())
    assert unlisted == set(), f"add them to CODE['{stage}'] in core/sources.py"
