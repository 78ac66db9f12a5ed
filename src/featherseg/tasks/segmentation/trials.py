"""Which prompts meet which images: the trials of an evaluation, and what every plan of trials draws by.

Whatever is drawn has a generator of its own (`seeds.rng_of`), named by the run's seed, the sample and a word for what
is drawn, the salt. Evaluation puts its salt first (`own/<seed>/<sample>`), the reliance suite second
(`<seed>/own/<sample>`), so that the two draw independently of one another.
"""

import bisect
import itertools
import random
from collections import defaultdict
from dataclasses import dataclass

from featherseg.core.seeds import rng_of
from featherseg.data.prepared import SENTENCES, Sample, prompt_of
from featherseg.models.readings import Readings, as_text

OWN, EMPTY, OTHER, CLASS_NAME = "own", "empty", "other", "class_name"


@dataclass(frozen=True)
class Trial:
    """One mask that is asked for and compared with a sample's truth.

    Attributes:
        sample: whose mask is the truth, and whose image is segmented, changed or not.
        condition: where the prompt comes from: `own`, `empty`, `other` or `class_name` in an evaluation, a text
            intervention by name in the reliance suite.
        prompt: the prompt.
        prompt_of: whose own prompt it is: a sample's id in an evaluation, a structure of the image in the suite; ""
            where it is that of none, or of several.
        sentence: an own prompt's place among the sample's sentences, 0 where there is one.
        image: what is done to the image: `own`, or an image intervention by name.
        read_as: the prompt that stands for all that the model reads as this one (`Readings.same`); suite only.
        cut: whether the model reads a part of the prompt only; suite only.
    """

    sample: Sample
    condition: str
    prompt: str
    prompt_of: str = ""
    sentence: int = 0
    image: str = OWN
    read_as: str = ""
    cut: bool = False


def plan_trials(samples: list[Sample], policy: str, seed: int, readings: Readings | None = None) -> list[Trial]:
    """The trials of some samples, image by image, those of one sample together: its own prompts (one, or each
    of its sentences under the policy `sentences`), the empty one, another sample's, and, where every sample has a
    class name (P1), that alone.

    The other prompt is one that the model reads as another one than the sample's own: that of another target of the
    same image where there is one, else that of any other sample. Where all samples share one prompt there is only
    that.

    Args:
        samples: those of the split, in any order.
        policy: level of the own prompt (`prompt_of`), or `sentences`.
        seed: decides, together with the sample's id, which other prompt, and which own one where the policy
            is `random`.
        readings: of the own prompts; None compares them as text.
    """
    own = {sample.sample_id: own_prompts(sample, policy, seed) for sample in samples}
    readings = readings or Readings(as_text, itertools.chain(*own.values()))
    others = _Others(samples, {sample_id: [readings.same(prompt) for prompt in prompts]
                               for sample_id, prompts in own.items()})
    named = all("p1" in sample.prompts for sample in samples)
    trials = []
    for sample in sorted(samples, key=lambda sample: (sample.image, sample.sample_id)):
        other = others.draw(sample, rng_of(OTHER, seed, sample.sample_id))
        trials += [Trial(sample, OWN, prompt, sample.sample_id, number)
                   for number, prompt in enumerate(own[sample.sample_id])]
        trials += [Trial(sample, EMPTY, ""), Trial(sample, OTHER, own[other][0], other)]
        if named:
            trials.append(Trial(sample, CLASS_NAME, sample.prompts["p1"][0], sample.sample_id))
    return trials


def own_prompts(sample: Sample, policy: str, seed: int) -> list[str]:
    """A sample's own prompts: each of its sentences where the policy is `sentences`, else one."""
    if policy == SENTENCES and SENTENCES in sample.prompts:
        return sample.prompts[SENTENCES]
    return [own_prompt(sample, policy, rng_of(OWN, seed, sample.sample_id))]


def own_prompt(sample: Sample, policy: str, rng: random.Random) -> str:
    """A sample's own prompt: the first one of its level; drawn by `rng` where the policy is `random`."""
    return prompt_of(sample, policy, rng if policy == "random" else None)


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
