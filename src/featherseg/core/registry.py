"""One small registry, used for models and adapters alike."""

import difflib
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
        >>> methods: Registry[type] = Registry("method")
        >>> @methods.register("full")
        ... class Full: ...
        >>> methods["full"].__name__
        'Full'
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
            raise unknown(self.kind, name, list(self._entries))
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries
