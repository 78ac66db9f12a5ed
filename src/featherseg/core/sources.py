"""Which code decides a run's numbers: the modules that its own modules import, as digests that no comment changes.

Imports are read from the source, those inside functions too, so that whatever a module uses is in its closure. Modules
that a run finds by name (its task, its model, its method) are roots of their own: see `featherseg.run_code`.
"""

import ast
import fnmatch
import functools
import hashlib
import inspect
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

PACKAGE = Path(__file__).parents[1]
# they write, name, look up, time, refuse or resume, and decide no number; what config.py reads, the plan resolves
WITHOUT_NUMBERS = ("config.py", "resume.py", *(f"core/{name}.py" for name in (
    "__init__", "errors", "files", "glyphs", "locks", "markup", "paths", "progress", "provenance", "registry",
    "sources", "terminal")))

# of `tasks.base.Task`, each called by some stages only, so that a task imports within them what they need
TASK_METHODS = ("build", "objective", "evaluate", "plan_notes")
LOOK = "colours"  # of a method: how it is drawn decides no number


def closure(*roots: str, calling: Collection[str] = (), numbers_only: bool = True) -> dict[str, str]:
    """The digest of each module that these import, directly or not, themselves included.

    Args:
        roots: modules by path within the package, or folders, which mean every module below.
        calling: which of `TASK_METHODS` are called; what the others import is not followed.
        numbers_only: leave out modules that decide no number.

    Returns:
        Digests by path within the package, in the order of the paths.
    """
    modules = {name for root in roots for name in _modules(root)}
    left = list(modules)
    while left:
        source = _read(PACKAGE / left.pop())
        new = {name for name in source.imported(calling) if _decides(name) or not numbers_only} - modules
        modules |= new
        left += new
    return {name: _read(PACKAGE / name).digest for name in sorted(modules)}


def imported_by(text: str) -> set[str]:
    """The package's modules that a text of Python imports, by path."""
    return {path for _, path in _imports(ast.parse(text))}


def code_of(kind: type) -> dict[str, str]:
    """The closure of the module that defines a class; of one from outside this package, its file alone."""
    file = Path(inspect.getfile(kind))
    if file.is_relative_to(PACKAGE):
        return closure(file.relative_to(PACKAGE).as_posix())
    return {kind.__module__: _read(file).digest}


def _decides(name: str) -> bool:
    """Whether a module can decide a number; the settings of a task are resolved by the plan, as those of config.py."""
    return name not in WITHOUT_NUMBERS and not fnmatch.fnmatch(name, "tasks/*/config.py")


def _modules(root: str) -> list[str]:
    """A module, or every module below a folder."""
    if root.endswith(".py"):
        return [root]
    return [file.relative_to(PACKAGE).as_posix() for file in (PACKAGE / root).rglob("*.py")]


@dataclass(frozen=True)
class Source:
    """What matters here of a module.

    Attributes:
        digest: see `digest`.
        imports: the package's modules that it imports, by path, each with the task's method in which it does, ""
            outside of any.
    """

    digest: str
    imports: tuple[tuple[str, str], ...]

    def imported(self, calling: Collection[str]) -> set[str]:
        """Paths of what it imports where these methods of a task are called."""
        return {path for method, path in self.imports if method in calling or method not in TASK_METHODS}


def _read(file: Path) -> Source:
    """A module, read again where its file has changed."""
    status = file.stat()
    return _parsed(file, status.st_mtime_ns, status.st_size)


@functools.cache
def _parsed(file: Path, changed: int, size: int) -> Source:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports = tuple(_imports(tree))
    return Source(_digest(tree), imports)


def _imports(node: ast.AST, method: str = "") -> Iterator[tuple[str, str]]:
    """What a syntax tree imports, as `Source` has it; imports for type checkers alone are none."""
    for name in _named(node):
        yield from ((method, path) for path in _paths(name))
    is_task = isinstance(node, ast.ClassDef) and any(map(_is_task, node.bases))
    children: Iterable[ast.AST] = node.orelse if _is_for_type_checkers(node) else ast.iter_child_nodes(node)
    for child in children:
        inside = child.name if is_task and isinstance(child, ast.FunctionDef) else method
        yield from _imports(child, inside)


def _is_for_type_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_task(base: ast.expr) -> bool:
    """Whether a base class is a task, such as `Task` or `Task[Model]`."""
    return ast.unparse(base).partition("[")[0].endswith("Task")


def _named(node: ast.AST) -> list[str]:
    """Full names that a node may import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _paths(name: str) -> Iterator[str]:
    """The package's modules that the import of a full name runs: its own, and each package around it."""
    package, *parts = name.split(".")
    if package != PACKAGE.name:
        return
    for count in range(len(parts) + 1):
        inner = "/".join(parts[:count])
        for path in (f"{inner}.py", f"{inner}/__init__.py".lstrip("/")):
            if (PACKAGE / path).is_file():
                yield path


def digest(source: str) -> str:
    """SHA-256 of what a module does: of its syntax tree without docstrings and without how a class is drawn, so that
    layout does not count either."""
    return _digest(ast.parse(source))


def _digest(tree: ast.Module) -> str:
    """`digest` of a syntax tree, from which it takes what does not count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
                ast.get_docstring(node, clean=False) is not None):
            node.body = node.body[1:]
        if isinstance(node, ast.ClassDef):
            node.body = [statement for statement in node.body if not _is_look(statement)]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _is_look(statement: ast.stmt) -> bool:
    """Whether a statement of a class only sets its `LOOK`."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return all(isinstance(target, ast.Name) and target.id == LOOK for target in targets)
