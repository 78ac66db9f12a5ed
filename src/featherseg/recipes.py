"""Recipes: one file a table row. A row states what is its own, and may extend another file that holds the rest.

`extends: shared/etris` (a file below `recipes/`, without its ending) takes that file's keys; those of the row itself
come before them, in sections key by key. Files in folders of `recipes/` are shared, and no rows themselves.
"""

import io
import itertools
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from featherseg.config import DEFAULT_TASK, Recipe, parse, read_yaml, sections_of, task_settings
from featherseg.core.errors import UserError
from featherseg.core.files import check_name
from featherseg.core.registry import unknown
from featherseg.tasks.base import TASKS

RECIPES = Path("recipes")
EXTENDS = "extends"
NULL_TAG = "tag:yaml.org,2002:null"
SECTIONS = ("adapter", "train", "evaluate", "published")  # whose keys are taken over one by one


def recipe_names() -> list[str]:
    """Names of all recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UserError: an unknown recipe, or a name that no recipe may have.
    """
    path = RECIPES / f"{check_name('recipe', name)}.yaml"
    if not path.is_file():
        raise unknown("recipe", name, recipe_names())
    return path


def resolved(name: str) -> dict[str, Any]:
    """A recipe's keys and values, with those of the file that it extends.

    Raises:
        UserError: an unknown or unreadable file, one that extends itself, or an unknown task.
    """
    path = recipe_path(name)
    files = _chain(path)
    sections = _sections(path, files.values())
    values: dict[str, Any] = {}
    for own in files.values():
        values = merged(own, values, sections)
    return {key: value for key, value in values.items() if key != EXTENDS}


def as_text(name: str) -> str:
    """A resolved recipe as YAML, its own keys first, under the names of the files that it is made of."""
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style, yaml.width = None, 120
    yaml.representer.add_representer(type(None), lambda made, _: made.represent_scalar(NULL_TAG, "null"))
    yaml.dump(resolved(name), text)
    files = "\n#   extends ".join(map(str, _chain(recipe_path(name))))
    return f"# {files}\n{text.getvalue()}"


def declared(name: str) -> Recipe:
    """A recipe whose knobs and settings are not checked yet (`plan.read_recipe` checks them).

    Raises:
        UserError: as `resolved`, or a key that is missing or of another type.
    """
    return parse(Recipe, resolved(name), str(recipe_path(name)))


def _chain(path: Path) -> dict[Path, Any]:
    """A file, the one that it extends, and so on: their contents."""
    contents: dict[Path, Any] = {}
    following: Path | None = path
    while following is not None:
        path = following
        if path in contents:
            files = " -> ".join(map(str, [*contents, path]))
            raise UserError(f"{next(iter(contents))}: key '{EXTENDS}' leads in a circle: {files}.")
        contents[path] = read_yaml(path)
        if not isinstance(contents[path], dict):
            raise UserError(f"{path} should hold keys and values, but holds {type(contents[path]).__name__}.")
        following = _base_of(path, contents[path][EXTENDS]) if EXTENDS in contents[path] else None
    return contents


def _base_of(path: Path, name: Any) -> Path:
    """The file that another one extends."""
    file = RECIPES / f"{name}.yaml"
    if ".." in file.parts or not file.is_relative_to(RECIPES) or not file.is_file():
        names = [other.relative_to(RECIPES).with_suffix("").as_posix() for other in RECIPES.rglob("*.yaml")]
        raise UserError(f"{path}: {unknown('file to extend', name, names)}")
    return file


def _sections(path: Path, files: Iterable[dict[str, Any]]) -> set[str]:
    """The keys of a recipe, and of its task's settings, that hold keys of their own."""
    task = next((values["task"] for values in files if "task" in values), DEFAULT_TASK)
    if task not in TASKS:
        raise unknown(f"task in {path}", task, list(TASKS))
    settings = (task_settings(task, section) for section in ("train", "evaluate"))
    return {*SECTIONS, *itertools.chain.from_iterable(map(sections_of, settings))}


def merged(base: dict[str, Any], own: dict[str, Any], sections: Collection[str] = SECTIONS) -> dict[str, Any]:
    """A file's own keys, then those of the one that it extends; sections are merged, other values replaced."""
    values = dict(own)
    for key, value in base.items():
        if key in sections and isinstance(value, dict) and isinstance(own.get(key), dict):
            values[key] = merged(value, own[key], sections)
        elif key not in own:
            values[key] = value
    return values
