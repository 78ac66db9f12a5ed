"""Named entries of one kind, known in one place or found in a package."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from featherseg.core.errors import UserError
from featherseg.core.terminal import shortened

T = TypeVar("T")


def unknown(kind: str, name: object, valid: list[str]) -> UserError:
    """The sentence for a name that is not known: names the closest valid one and lists them all."""
    name = shortened(str(name), 100)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return UserError(f"unknown {kind} '{name}': {hint}valid values are {', '.join(sorted(valid)) or '(none)'}.")


class Registry(Generic[T]):
    """Named entries of one kind; looking up an unknown name says which names there are.

    Example:
        >>> faults: Registry[type] = Registry("fault")
        >>> @faults.register("twice")
        ... class Twice: ...
        >>> faults["twice"].__name__
        'Twice'
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters its object under `name`; a name is taken once."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise unknown(self.kind, name, list(self))
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries


class PackageRegistry(Registry[T]):
    """The entries of a package: its module of a name registers one under that name, and is imported when it is asked
    for. Nothing else lists the names.

    Args:
        kind: what an entry is, for messages.
        package: the package's full name.
        beside: its modules that register nothing, as do those whose name begins with an underscore.
    """

    def __init__(self, kind: str, package: str, beside: tuple[str, ...] = ()) -> None:
        super().__init__(kind)
        self._package, self._beside = package, beside

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise unknown(self.kind, name, list(self))
        module = f"{self._package}.{name}"
        if name not in self._entries:
            importlib.import_module(module)
        if name not in self._entries:
            raise UserError(f"the module {module} registers no {self.kind} of its own name; register one there as "
                            f"'{name}'.")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        modules = pkgutil.iter_modules(importlib.import_module(self._package).__path__)
        names = {module.name for module in modules if not module.name.startswith("_")}
        return iter(sorted(names.difference(self._beside)))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._entries or name in set(self))
