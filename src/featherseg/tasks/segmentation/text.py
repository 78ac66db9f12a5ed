"""Text interventions: what becomes of a sample's prompt while its image stays as it is.

Each is a function `(case, rng) -> list of prompts`. The list is empty where the intervention cannot be made on this
sample (no second structure, no colour in its prompt, a change behind the last token that the model reads), which is
counted and never scored as something else. Prompts are compared as the model reads them (`featherseg.models.readings`).
"""

import bisect
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import cast

from featherseg.core.seeds import rng_of
from featherseg.data.prepared import LEVELS, SENTENCES, Sample
from featherseg.data.prompts.wording import ATTRIBUTES, LOCATIONS, NUMBERS, SHAPES, SIZES
from featherseg.models.readings import Readings
from featherseg.tasks.segmentation.interventions import Interventions

OWN, NONE, OTHER, CLASS_ONLY = "own", "none", "other", "class_only"
PERMUTED, OTHER_STRUCTURE = "permuted", "other_structure"
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
        own: the own prompts by sample id; others get the first.
        seed: decides the permutation of the prompts.
        readings: of the own prompts.

    Attributes:
        own: the first own prompt by sample id.
        readings: the same.
        words: attribute -> the values that these samples have, sorted.
        next_prompt: sample id -> the own prompt of the sample whose prompt it gets when all are permuted.
    """

    def __init__(self, samples: Sequence[Sample], own: dict[str, list[str]], seed: int, readings: Readings) -> None:
        self.own = {sample_id: prompts[0] for sample_id, prompts in own.items()}
        self.readings, self._all_own = readings, own
        self._samples = sorted(samples, key=lambda sample: sample.sample_id)
        self._structures: dict[str, list[Sample]] = defaultdict(list)
        for sample in self._samples:
            self._structures[sample.image].append(sample)
        self.words = {name: _values(name, samples) for name in ATTRIBUTES}
        order = [sample.sample_id for sample in self._samples]
        rng_of(seed, PERMUTED).shuffle(order)
        self.next_prompt = {this: self.own[after] for this, after in zip(order, order[1:] + order[:1], strict=True)}

    def structures(self, sample: Sample) -> list[Sample]:
        """All structures of the sample's image, itself among them, by sample id."""
        return self._structures[sample.image]

    def elsewhere(self, sample: Sample) -> list[Sample]:
        """The samples of other images whose prompt is another one."""
        same = self.readings.same
        own = same(self.own[sample.sample_id])
        return [other for other in self._samples
                if other.image != sample.image and same(self.own[other.sample_id]) != own]

    def other(self, sample: Sample, rng: random.Random) -> str:
        """Id of a sample whose prompt is another one than each of this one's: of another structure of the same image
        where there is one, else of any other sample; its own id where all share one prompt."""
        return self._others.draw(sample, rng)

    @cached_property
    def _others(self) -> "_Others":
        same = self.readings.same
        read_as = {sample_id: list(map(same, prompts)) for sample_id, prompts in self._all_own.items()}
        return _Others(self._samples, read_as)


def _values(attribute: str, samples: Iterable[Sample]) -> list[str]:
    """The values of an attribute that some samples have, sorted."""
    values = (sample.attributes.get(attribute) for sample in samples)
    return sorted({value for value in values if isinstance(value, str) and value.strip()})


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


Make = Callable[[Case, random.Random], list[str]]
TEXT: Interventions[Make] = Interventions("text intervention")


@TEXT.add(OWN, "own prompt", condition=True)
def own(case: Case, rng: random.Random) -> list[str]:
    """The sample's own prompt: no intervention."""
    return [case.own]


@TEXT.add(NONE, "no prompt", condition=True)
def none(case: Case, rng: random.Random) -> list[str]:
    """The empty prompt (P0): the absent text."""
    return [""]


@TEXT.add(PERMUTED, "prompts permuted")
def permuted(case: Case, rng: random.Random) -> list[str]:
    """The prompt that falls to this sample when the prompts of all samples are permuted; it may equal its own."""
    return [case.peers.next_prompt[case.sample.sample_id]]


@TEXT.add("other_sample", "another sample's prompt")
def other_sample(case: Case, rng: random.Random) -> list[str]:
    """The prompt of a sample of another image, one that differs from the own prompt."""
    others = case.peers.elsewhere(case.sample)
    return [case.peers.own[rng.choice(others).sample_id]] if others else []


@TEXT.add(OTHER_STRUCTURE, "another structure's prompt")
def other_structure(case: Case, rng: random.Random) -> list[str]:
    """The prompts of the other structures of the same image, those that differ from the own prompt."""
    different: dict[str, str] = {}
    for other in case.peers.structures(case.sample):
        prompt = case.peers.own[other.sample_id]
        different.setdefault(case.peers.readings.same(prompt), prompt)
    return [prompt for prompt in different.values() if case.changed(prompt)]


@TEXT.add(OTHER, "another's prompt", condition=True, on_request=True)
def other(case: Case, rng: random.Random) -> list[str]:
    """The prompt of another structure of the same image, or else of any other sample, that the model reads as another
    one; its own where all share one prompt. What an evaluation asks for beside the own prompt."""
    return [case.peers.own[case.peers.other(case.sample, rng)]]


@TEXT.add(CLASS_ONLY, "the class only", condition=True)
def class_only(case: Case, rng: random.Random) -> list[str]:
    """The class and nothing else (P1)."""
    return case.sample.prompts.get("p1", [])[:1]


def level(name: str, case: Case, rng: random.Random) -> list[str]:
    """The first prompt of a level that the sample has."""
    return case.sample.prompts.get(name, [])[:1]


for name in LEVELS:
    if name != SENTENCES:
        TEXT.add(f"level_{name}", f"level {name.upper()}")(partial(level, name))


def flip(attribute: str, case: Case, rng: random.Random) -> list[str]:
    """The own prompt with another value of one attribute, of those that the peers have; no word is shared with it."""
    value = other_value(attribute, case, rng)
    return [] if value is None else case.changed(_replaced(case, attribute, value))


for name in ATTRIBUTES:
    TEXT.add(f"flip_{name}", f"{name} changed")(partial(flip, name))


@TEXT.add("contradictory", "contradictory prompt")
def contradictory(case: Case, rng: random.Random) -> list[str]:
    """The own prompt, followed by another value of each attribute that it names."""
    values = [other_value(attribute, case, rng) for attribute in ATTRIBUTES]
    words = " ".join(value for value in values if value)
    return case.changed(f"{case.own}, but {words}") if words else []


@TEXT.add("under", "under-descriptive prompt")
def under(case: Case, rng: random.Random) -> list[str]:
    """Less than the class: that something is to be found."""
    return ["region of interest"]


@TEXT.add("over", "over-descriptive prompt")
def over(case: Case, rng: random.Random) -> list[str]:
    """The own prompt, and then many words that are true of any picture."""
    return case.changed(case.own + _MANY_WORDS) if case.own else []


@TEXT.add("shuffled_words", "words shuffled")
def shuffled_words(case: Case, rng: random.Random) -> list[str]:
    """The own prompt's words in another order."""
    words = case.own.split()
    if len(set(words)) < 2:
        return []
    shuffled = list(words)
    while shuffled == words:
        rng.shuffle(shuffled)
    return case.changed(" ".join(shuffled))


@TEXT.add("random_words", "random words")
def random_words(case: Case, rng: random.Random) -> list[str]:
    """As many words as the own prompt has, all of them unrelated to it."""
    count = len(case.own.split())
    return case.changed(" ".join(rng.choices(_UNRELATED, k=count))) if count else []


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
    place = _place(case.own, attribute, case.sample.attributes[attribute])
    first, last = cast(tuple[int, int], place)  # `other_value` has found it
    return case.own[:first] + value + case.own[last:]


def _place(prompt: str, attribute: str, value: str) -> tuple[int, int] | None:
    """Where a prompt names an attribute's value as whole words: a location at the end, the others at the start.

    "Right kidney, located in left of the image" is at the left because the last of such words says so.
    """
    spans = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", prompt, re.IGNORECASE)]
    if not spans:
        return None
    return spans[-1] if attribute == "location" else spans[0]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


class _Others:
    """Draws samples with another prompt, without looking at all samples each time.

    Args:
        samples: those to draw from.
        own: by sample id its prompts, each as `Readings.same` gives it; the first one is what another sample gets.
    """

    def __init__(self, samples: list[Sample], own: dict[str, list[str]]) -> None:
        self._own = own
        self._by_image: dict[str, list[str]] = defaultdict(list)
        for sample_id, image in sorted((sample.sample_id, sample.image) for sample in samples):
            self._by_image[image].append(sample_id)
        # equal prompts stand side by side, so the samples with another prompt are all but one stretch a prompt
        self._ids = sorted(own, key=lambda sample_id: (own[sample_id][0], sample_id))
        self._prompts = [own[sample_id][0] for sample_id in self._ids]

    def draw(self, sample: Sample, rng: random.Random) -> str:
        """Id of a sample with another prompt, of the same image if possible; its own id if there is none."""
        prompts = sorted(set(self._own[sample.sample_id]))
        nearby = [other for other in self._by_image[sample.image] if self._own[other][0] not in prompts]
        if nearby:
            return rng.choice(nearby)
        stretches = [(bisect.bisect_left(self._prompts, prompt), bisect.bisect_right(self._prompts, prompt))
                     for prompt in prompts]
        remaining = len(self._ids) - sum(last - first for first, last in stretches)
        if not remaining:
            return sample.sample_id
        place = rng.randrange(remaining)
        for first, last in stretches:
            place += last - first if place >= first else 0
        return self._ids[place]
