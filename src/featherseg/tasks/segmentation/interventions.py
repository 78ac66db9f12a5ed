"""Interventions: what a sample's prompt or image is exchanged for while all else stays as it is.

Texts (`text.py`) and images (`image.py`) have one registry each, which is the only list of their names: those that an
evaluation tries as its conditions, those that the reliance suite tries, their titles, and the names that settings take.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from featherseg.core.registry import Registry
from featherseg.core.seeds import rng_of

Make = TypeVar("Make", bound=Callable[..., Any])


@dataclass(frozen=True)
class Intervention(Generic[Make]):
    """One intervention.

    Attributes:
        name: in settings, tables and records.
        title: in figures and on pages.
        make: what computes it.
        condition: whether an evaluation scores every sample under it.
        on_request: whether the reliance suite tries it only where the settings name it.
    """

    name: str
    title: str
    make: Make
    condition: bool = False
    on_request: bool = False

    def rng(self, seed: int, sample_id: str) -> random.Random:
        """The generator of whatever a text draws for one sample, the same in an evaluation and in the suite.

        Conditions of an evaluation put their name first, the others the seed: the published scores were drawn so.
        """
        names = (self.name, seed) if self.condition else (seed, self.name)
        return rng_of(*names, sample_id)


class Interventions(Registry[Intervention[Make]]):
    """Interventions of one kind in the order in which they are written down, which is that of tables.

    Example:
        >>> prompts: Interventions = Interventions("prompt")
        >>> @prompts.add("loud", "in capitals")
        ... def loud(prompt): return prompt.upper()
        >>> prompts["loud"].make("lung")
        'LUNG'
    """

    def add(self, name: str, title: str, *, condition: bool = False,
            on_request: bool = False) -> Callable[[Make], Make]:
        """Decorator that enters a function as an intervention; the arguments are those of `Intervention`."""

        def enter(make: Make) -> Make:
            self.register(name)(Intervention(name, title, make, condition, on_request))
            return make

        return enter

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
