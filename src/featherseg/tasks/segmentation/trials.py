"""Which prompts meet which images: the trials of an evaluation, and what every plan of trials shares.

The prompts of all plans are made by the interventions of `text.py`; an evaluation's conditions are four of them.
Whatever is drawn has a generator of its own (`seeds.rng_of`), named by the run's seed, the sample and a word for what
is drawn, the salt. Evaluation puts its salt first (`own/<seed>/<sample>`), the reliance suite second
(`<seed>/own/<sample>`), so that the two draw independently of one another.
"""

import itertools
import random
from dataclasses import dataclass

from featherseg.core.seeds import rng_of
from featherseg.data.prepared import SENTENCES, Sample, prompt_of
from featherseg.models.readings import Readings, as_text
from featherseg.tasks.segmentation import text
from featherseg.tasks.segmentation.text import Case, Peers, TextIntervention

OWN, EMPTY, OTHER, CLASS_NAME = "own", "empty", "other", "class_name"
CONDITIONS: dict[str, TextIntervention] = {
    OWN: text.own, EMPTY: text.none, OTHER: text.other, CLASS_NAME: text.class_only}


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

    Args:
        samples: those of the split, in any order.
        policy: level of the own prompt (`prompt_of`), or `sentences`.
        seed: decides, together with the sample's id, which other prompt (`text.other`), and which own one where the
            policy is `random`.
        readings: of the own prompts; None compares them as text.
    """
    own = {sample.sample_id: own_prompts(sample, policy, seed) for sample in samples}
    peers = Peers(samples, own, seed, readings or Readings(as_text, itertools.chain(*own.values())))
    named = all("p1" in sample.prompts for sample in samples)
    conditions = [condition for condition in CONDITIONS if named or condition != CLASS_NAME]
    trials = []
    for sample in sorted(samples, key=lambda sample: (sample.image, sample.sample_id)):
        case = Case(sample, peers.own[sample.sample_id], peers)
        for condition in conditions:
            prompts = own[sample.sample_id] if condition == OWN else _asked(condition, case, seed)
            owner = _owner(condition, case, seed)
            trials += [Trial(sample, condition, prompt, owner, place) for place, prompt in enumerate(prompts)]
    return trials


def _asked(condition: str, case: Case, seed: int) -> list[str]:
    return CONDITIONS[condition](case, rng_of(condition, seed, case.sample.sample_id))


def _owner(condition: str, case: Case, seed: int) -> str:
    """Id of the sample whose prompt a condition asks for, "" where it is that of none."""
    if condition == OTHER:
        return case.peers.other(case.sample, rng_of(condition, seed, case.sample.sample_id))
    return "" if condition == EMPTY else case.sample.sample_id


def own_prompts(sample: Sample, policy: str, seed: int) -> list[str]:
    """A sample's own prompts: each of its sentences where the policy is `sentences`, else one."""
    if policy == SENTENCES and SENTENCES in sample.prompts:
        return sample.prompts[SENTENCES]
    return [own_prompt(sample, policy, rng_of(OWN, seed, sample.sample_id))]


def own_prompt(sample: Sample, policy: str, rng: random.Random) -> str:
    """A sample's own prompt: the first one of its level; drawn by `rng` where the policy is `random`."""
    return prompt_of(sample, policy, rng if policy == "random" else None)
