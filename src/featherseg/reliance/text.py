"""Text interventions: what becomes of a sample's prompt while its image stays as it is.

Each is a function `(case, rng) -> list of prompts`. The list is empty where the intervention cannot be made on this
sample (no second structure, no colour in its prompt, a change behind the last token that the model reads), which is
counted and never scored as something else. Prompts are compared as the model reads them (`featherseg.models.readings`).
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from featherseg.core.seeds import rng_of
from featherseg.data.prepared import LEVELS, Sample
from featherseg.data.prompts.wording import ATTRIBUTES, LOCATIONS, NUMBERS, SHAPES, SIZES
from featherseg.models.readings import Readings

OWN, NONE, PERMUTED, OTHER_STRUCTURE = "own", "none", "permuted", "other_structure"
_USUAL = {  # what an attribute is changed to where the split itself knows no other value
    "number": NUMBERS[:4], "size": SIZES, "location": tuple(place for row in LOCATIONS for place in row),
    "shape": SHAPES, "colour": ("red", "blue", "green", "white", "black"),
}
_UNRELATED = ("piano", "harbour", "Tuesday", "sandwich", "passport", "curtain", "engine", "violin", "umbrella", "taxi",
              "library", "candle", "mountain", "bicycle", "carpet", "lemon", "window", "letter", "garden", "hammer",
              "ticket", "river", "ladder", "button", "winter", "theatre", "cousin", "market", "pencil", "airport")
_MANY_WORDS = (". The picture was taken in the usual way with a common device, and whatever else may be seen in it, at "
               "its rim or anywhere else, is not what is asked for and needs no further attention at all")


class Peers:
    """The samples beside which an intervention is made: where other prompts and other words come from.

    Args:
        samples: those of the split that take part.
        own: the own prompt by sample id.
        seed: decides the permutation of the prompts.
        readings: of the own prompts.

    Attributes:
        own, readings: the same.
        words: attribute -> the values that these samples have, sorted.
        next_prompt: sample id -> the own prompt of the sample whose prompt it gets when all are permuted.
    """

    def __init__(self, samples: Sequence[Sample], own: dict[str, str], seed: int, readings: Readings) -> None:
        self.own, self.readings = own, readings
        self._samples = sorted(samples, key=lambda sample: sample.sample_id)
        self._structures: dict[str, list[Sample]] = defaultdict(list)
        for sample in self._samples:
            self._structures[sample.image].append(sample)
        self.words = {name: sorted({value for sample in samples
                                    if isinstance(value := sample.attributes.get(name), str) and value.strip()})
                      for name in ATTRIBUTES}
        order = [sample.sample_id for sample in self._samples]
        rng_of(seed, PERMUTED).shuffle(order)
        self.next_prompt = {this: own[after] for this, after in zip(order, order[1:] + order[:1], strict=True)}

    def structures(self, sample: Sample) -> list[Sample]:
        """All structures of the sample's image, itself among them, by sample id."""
        return self._structures[sample.image]

    def elsewhere(self, sample: Sample) -> list[Sample]:
        """The samples of other images whose prompt is another one."""
        same = self.readings.same
        own = same(self.own[sample.sample_id])
        return [other for other in self._samples
                if other.image != sample.image and same(self.own[other.sample_id]) != own]


@dataclass(frozen=True)
class Case:
    """One sample, its own prompt, and its peers."""

    sample: Sample
    own: str
    peers: Peers

    def changed(self, prompt: str) -> list[str]:
        """A prompt that was made by changing the own one; nothing where the model reads it as the own one."""
        same = self.peers.readings.same
        return [prompt] if same(prompt) != same(self.own) else []


TextIntervention = Callable[[Case, random.Random], list[str]]


def own(case: Case, rng: random.Random) -> list[str]:
    """The sample's own prompt: no intervention."""
    return [case.own]


def none(case: Case, rng: random.Random) -> list[str]:
    """The empty prompt (P0): the absent text."""
    return [""]


def class_only(case: Case, rng: random.Random) -> list[str]:
    """The class and nothing else (P1)."""
    return case.sample.prompts.get("p1", [])[:1]


def level(name: str, case: Case, rng: random.Random) -> list[str]:
    """The first prompt of a level that the sample has."""
    return case.sample.prompts.get(name, [])[:1]


def permuted(case: Case, rng: random.Random) -> list[str]:
    """The prompt that falls to this sample when the prompts of all samples are permuted; it may equal its own."""
    return [case.peers.next_prompt[case.sample.sample_id]]


def other_sample(case: Case, rng: random.Random) -> list[str]:
    """The prompt of a sample of another image, one that differs from the own prompt."""
    found = case.peers.elsewhere(case.sample)
    return [case.peers.own[rng.choice(found).sample_id]] if found else []


def other_structure(case: Case, rng: random.Random) -> list[str]:
    """The prompts of the other structures of the same image, those that differ from the own prompt."""
    different: dict[str, str] = {}
    for other in case.peers.structures(case.sample):
        prompt = case.peers.own[other.sample_id]
        different.setdefault(case.peers.readings.same(prompt), prompt)
    return [prompt for prompt in different.values() if case.changed(prompt)]


def flip(attribute: str, case: Case, rng: random.Random) -> list[str]:
    """The own prompt with another value of one attribute, of those that the peers have; no word is shared with it."""
    value = other_value(attribute, case, rng)
    return [] if value is None else case.changed(_replaced(case, attribute, value))


def contradictory(case: Case, rng: random.Random) -> list[str]:
    """The own prompt, followed by another value of each attribute that it names."""
    values = [other_value(attribute, case, rng) for attribute in ATTRIBUTES]
    said = " ".join(value for value in values if value)
    return case.changed(f"{case.own}, but {said}") if said else []


def under(case: Case, rng: random.Random) -> list[str]:
    """Less than the class: that something is to be found."""
    return ["region of interest"]


def over(case: Case, rng: random.Random) -> list[str]:
    """The own prompt, and then many words that are true of any picture."""
    return case.changed(case.own + _MANY_WORDS) if case.own else []


def shuffled_words(case: Case, rng: random.Random) -> list[str]:
    """The own prompt's words in another order."""
    words = case.own.split()
    if len(set(words)) < 2:
        return []
    shuffled = list(words)
    while shuffled == words:
        rng.shuffle(shuffled)
    return case.changed(" ".join(shuffled))


def random_words(case: Case, rng: random.Random) -> list[str]:
    """As many words as the own prompt has, of which none has to do with it."""
    count = len(case.own.split())
    return case.changed(" ".join(rng.choices(_UNRELATED, k=count))) if count else []


TEXT: dict[str, TextIntervention] = {
    OWN: own, NONE: none, PERMUTED: permuted, "other_sample": other_sample, OTHER_STRUCTURE: other_structure,
    "class_only": class_only, **{f"level_{name}": partial(level, name) for name in LEVELS if name.startswith("p")},
    **{f"flip_{attribute}": partial(flip, attribute) for attribute in ATTRIBUTES},
    "contradictory": contradictory, "under": under, "over": over,
    "shuffled_words": shuffled_words, "random_words": random_words,
}


def other_value(attribute: str, case: Case, rng: random.Random) -> str | None:
    """Another value of an attribute that the own prompt names; None where it names none, or there is no other."""
    value = case.sample.attributes.get(attribute)
    if not isinstance(value, str) or not value.strip() or _place(case.own, attribute, value) is None:
        return None
    for known in (case.peers.words[attribute], _USUAL[attribute]):
        others = [other for other in known if _words(other).isdisjoint(_words(value))]
        if others:
            return rng.choice(others)
    return None


def _replaced(case: Case, attribute: str, value: str) -> str:
    first, last = _place(case.own, attribute, case.sample.attributes[attribute])
    return case.own[:first] + value + case.own[last:]


def _place(prompt: str, attribute: str, value: str) -> tuple[int, int] | None:
    """Where a prompt names an attribute's value as whole words: a location at the end, the others at the start.

    "Right kidney, located in left of the image" is at the left because the last of such words says so.
    """
    found = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", prompt, re.IGNORECASE)]
    if not found:
        return None
    return found[-1] if attribute == "location" else found[0]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
