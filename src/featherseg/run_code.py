"""The code that decides one run's training and one run's evaluation: the import closure of its stage, task, model and
method, and of nothing that only other runs use. Beside it that of the stages that no run belongs to, and of each
notebook.

`featherseg code` writes it for DVC, a small file for each recipe and stage, since DVC copies every dependency of every
run into dvc.lock and writes that file anew after each stage.
"""

import functools
from pathlib import Path

from featherseg.config import Run
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, read_object, sha256_file, write_json
from featherseg.core.paths import NOTEBOOKS
from featherseg.core.sources import PACKAGE, closure, imported_by
from featherseg.models import MODELS
from featherseg.recipes import declared, recipe_names

ENTRY = {"train": "engine.py", "evaluate": "evaluate.py"}
CALLED = {"train": ("build", "objective"), "evaluate": ("build", "evaluate")}  # of the task's methods
PLANNING = ("plan.py", "config.py", "models/*/config.py", "adapters/*.py", "tasks/*/__init__.py", "tasks/*/config.py")
# stages that no run belongs to, with the modules that decide what they write
STAGES = {"plan": PLANNING, "check": ("check.py", *PLANNING), "collect": ("reporting/collect.py",),
          "index": ("reporting/index.py",)}
REPORTS = ("collect", "index")  # of them, those whose files people read


def stage_code(stage: str, task: str, model: str, method: str) -> dict[str, str]:
    """Digests of the modules that decide a training (`train`) or its scores (`evaluate`), by path.

    Raises:
        UserError: an unknown model.
    """
    family = f"models/{MODELS[model].family}"
    return closure(ENTRY[stage], f"tasks/{task}/__init__.py", family, f"adapters/{method}.py", calling=CALLED[stage])


def training_code(run: Run) -> dict[str, str]:
    """`stage_code` of a run's training."""
    return stage_code("train", run.task, run.model.name, run.adapter["name"])


def write_code(folder: Path) -> list[str]:
    """Write `<stage>/<recipe>.json` for every recipe of the project, `<stage>.json` for every stage of `STAGES`, and
    `notebook/<name>.json` for every notebook.

    Returns:
        Why recipes are left out, one sentence each: what is not a recipe has no code.
    """
    faults, code_of = [], functools.cache(stage_code)
    with atomic_path(folder) as partial:
        for part in (*ENTRY, "notebook"):
            (partial / part).mkdir(parents=True)
        for stage in STAGES:
            write_json(partial / f"{stage}.json", shared_code(stage))
        for notebook in NOTEBOOKS.glob("*.ipynb"):
            write_json(partial / "notebook" / f"{notebook.stem}.json", notebook_code(notebook))
        for name in recipe_names():
            try:
                recipe = declared(name)
                for stage in ENTRY:
                    code = code_of(stage, recipe.task, recipe.model, recipe.adapter.get("name", ""))
                    if stage == "train" and recipe.train is None:  # no code decides what is not trained
                        code = {}
                    write_json(partial / stage / f"{name}.json", code)
            except UserError as error:
                faults.append(str(error))
    return faults


def shared_code(stage: str) -> dict[str, str]:
    """Digests of the modules that decide what a stage of `STAGES` writes, by path, and of its pages' templates."""
    modules = [path.relative_to(PACKAGE).as_posix() for pattern in STAGES[stage] for path in PACKAGE.glob(pattern)]
    return report_code(*modules) if stage in REPORTS else closure(*modules)


def notebook_code(notebook: Path) -> dict[str, str]:
    """`report_code` of the modules that a notebook imports.

    Raises:
        UserError: the file is no notebook.
    """
    cells = [cell for cell in read_object(notebook).get("cells", []) if cell.get("cell_type") == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    return report_code(*imported_by("\n".join(sources)))


def report_code(*modules: str) -> dict[str, str]:
    """Digests of some modules and of all that they import, directly or not, whether it decides a number or only how one
    is shown, and of the pages' templates beside them, by path."""
    code = closure(*modules, numbers_only=False)
    folders = {(PACKAGE / name).parent for name in code}
    templates = sorted(file for folder in folders for file in folder.glob("*.html"))
    return code | {file.relative_to(PACKAGE).as_posix(): sha256_file(file) for file in templates}
