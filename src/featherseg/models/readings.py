"""What a model reads of prompts: which of them are cut, and which are the same prompt to it."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from featherseg.models.towers.padding import cut


@dataclass(frozen=True)
class Reading:
    """What a model reads of one prompt.

    Attributes:
        key: equal for prompts that the model cannot tell apart, such as their tokens.
        tokens: how many it has, start and end included; 0 where nothing is known of them.
        lost: how many of them are cut off.
    """

    key: Hashable
    tokens: int = 0
    lost: int = 0


Reader = Callable[[Sequence[str]], Sequence[Reading]]


def as_text(prompts: Sequence[str]) -> list[Reading]:
    """Readings for a model whose tokens are not known: prompts differ by more than case and white space."""
    return [Reading(" ".join(prompt.split()).casefold()) for prompt in prompts]


@dataclass(frozen=True)
class PromptReader:
    """How a model reads prompts; it needs no weights and no torch.

    Attributes:
        ids_of: token ids of each prompt in full, start and end included; None where the model reads no text.
        most_tokens: tokens after which a prompt is cut, its end token among them.
    """

    ids_of: Callable[[Sequence[str]], list[list[int]]] | None = None
    most_tokens: int = 0

    @property
    def reads_text(self) -> bool:
        """Whether the prompt reaches the mask."""
        return self.ids_of is not None

    def token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt in full, start and end included; none where the model reads no text."""
        return [[] for _ in prompts] if self.ids_of is None else self.ids_of(prompts)

    def kept_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, cut after `most_tokens`."""
        return [cut(ids, self.most_tokens) for ids in self.token_ids(prompts)]

    def read(self, prompts: Sequence[str]) -> list[Reading]:
        """What the model reads of each prompt; where it reads none, prompts are compared as text."""
        if not self.reads_text:
            return as_text(prompts)
        return list(map(self._reading, self.token_ids(prompts)))

    def _reading(self, ids: list[int]) -> Reading:
        lost = max(0, len(ids) - self.most_tokens)
        return Reading(tuple(cut(ids, self.most_tokens)), len(ids), lost)


class Lost(TypedDict):
    """What is lost of some prompts, as records hold it.

    Attributes:
        n: number of different prompts.
        cut: those of which the model reads a part only.
        limit: tokens after which they are cut; None where none is.
        alike: those that are the same to the model as another one.
        first_cut, first_alike: examples.
    """

    n: int
    cut: int
    limit: int | None
    alike: int
    first_cut: list[str]
    first_alike: list[str]


class Readings:
    """The readings of a set's prompts, and of what is asked beside them.

    Args:
        reader: the model's `read`, or `as_text`.
        prompts: those of the set.
    """

    def __init__(self, reader: Reader, prompts: Iterable[str] = ()) -> None:
        self._reader = reader
        self._of: dict[str, Reading] = {}
        self._first: dict[Hashable, str] = {}
        # in a fixed order, so that the prompt that stands for all of its kind does not depend on the samples' order
        self._learn(sorted(set(prompts)))

    def same(self, prompt: str) -> str:
        """The prompt that stands for all that are the same to the model: itself where none is."""
        return self._first[self._reading(prompt).key]

    def is_among(self, prompt: str, others: Iterable[str]) -> bool:
        """Whether the model reads the prompt as one of some others."""
        return self.same(prompt) in {self.same(other) for other in others}

    def is_cut(self, prompt: str) -> bool:
        """Whether the model reads the prompt in part only."""
        return self._reading(prompt).lost > 0

    def count(self, prompts: Iterable[str]) -> Lost:
        """What is lost of prompts, each different text counted once."""
        texts = sorted(set(prompts))
        cut = [text for text in texts if self.is_cut(text)]
        kinds: dict[str, list[str]] = {}
        for text in texts:
            kinds.setdefault(self.same(text), []).append(text)
        alike = [text for kind in kinds.values() if len(kind) > 1 for text in kind]
        limit = self._of[cut[0]].tokens - self._of[cut[0]].lost if cut else None
        return {"n": len(texts), "cut": len(cut), "limit": limit, "alike": len(alike), "first_cut": cut[:1],
                "first_alike": alike[:2]}

    def _reading(self, prompt: str) -> Reading:
        if prompt not in self._of:
            self._learn([prompt])
        return self._of[prompt]

    def _learn(self, prompts: Sequence[str]) -> None:
        for prompt, reading in zip(prompts, self._reader(prompts), strict=True):
            self._of[prompt] = reading
            self._first.setdefault(reading.key, prompt)


def losses(counted: Lost) -> list[str]:
    """What `Readings.count` found to be lost, a sentence each; none where nothing is."""
    sentences, of_all = [], f"of {counted['n']} different prompts"
    if counted["cut"]:
        sentences.append(f"{counted['cut']} {of_all} are cut after {counted['limit']} tokens, such as "
                         f"{counted['first_cut'][0]!r}.")
    if counted["alike"]:
        first, second = counted["first_alike"]
        sentences.append(f"{counted['alike']} {of_all} are the same to the model as another one, such as {first!r} and "
                         f"{second!r}; such prompts count as one.")
    return sentences
