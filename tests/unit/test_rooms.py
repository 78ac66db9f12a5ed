"""Dependencies point one way: what papers share knows no paper, and the model's counts know no report."""

import ast
from pathlib import Path

import pytest

import featherseg

SOURCE = Path(featherseg.__file__).parent
FOREIGN = {"reporting": ("papers", "overview"), "overview": ("papers",), "reliance": ("papers", "overview"),
           "describe.py": ("papers", "overview", "reporting", "reliance")}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("room", FOREIGN)
def test_a_room_imports_nothing_that_stands_above_it(room):
    path = SOURCE / room
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    above = tuple(f"featherseg.{name}." for name in FOREIGN[room])
    found = {file.name: [name for name in imported(file) if f"{name}.".startswith(above)] for file in files}
    assert files and not any(found.values()), {name: names for name, names in found.items() if names}
