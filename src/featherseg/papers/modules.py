"""The papers' modules, found by their folders, so that nothing lists the papers."""

import importlib.util
import pkgutil
from types import ModuleType

from featherseg import papers


def offering(name: str, attribute: str) -> list[ModuleType]:
    """The module of this name of each paper whose module has an attribute, by paper.

    Args:
        name: such as `published` or `audit`; a paper need not have it.
        attribute: what the module must define.
    """
    modules = []
    for paper in pkgutil.iter_modules(papers.__path__):
        folder = f"{papers.__name__}.{paper.name}"
        if paper.ispkg and importlib.util.find_spec(f"{folder}.{name}"):
            module = importlib.import_module(f"{folder}.{name}")
            if hasattr(module, attribute):
                modules.append(module)
    return modules
