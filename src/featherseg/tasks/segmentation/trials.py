"""Which prompts meet which images: the trials of an evaluation, and what every plan of trials shares.

The prompts of all plans are made by the interventions of `text.py`; an evaluation's conditions are four of them.
Whatever an intervention draws for a sample comes from a generator of its own (`Intervention.rng`), so that a run's own
prompt is the same in its evaluation and in the reliance suite.
"""

import itertools
from dataclasses import dataclass

from featherseg.data.prepared import SENTENCES, Sample, prompt_of
from featherseg.models.readings import Readings, as_text
from featherseg.tasks.segmentation.text import CLASS_ONLY, NONE, OTHER, OWN, TEXT, Case, Peers

CONDITIONS = tuple(name for name in TEXT if TEXT[name].condition)


@dataclass(frozen=True)
class Trial:
    """One mask that is asked for and compared with a sample's truth.

    Attributes:
        sample: whose mask is the truth, and whose image is segmented, changed or not.
        condition: where the prompt comes from: a text intervention by name, in an evaluation one of `CONDITIONS`.
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
    conditions = [condition for condition in CONDITIONS if named or condition != CLASS_ONLY]
    trials = []
    for sample in sorted(samples, key=lambda sample: (sample.image, sample.sample_id)):
        case = Case(sample, peers.own[sample.sample_id], peers)
        for condition in conditions:
            prompts = own[sample.sample_id] if condition == OWN else _asked(condition, case, seed)
            owner = _owner(condition, case, seed)
            trials += [Trial(sample, condition, prompt, owner, place) for place, prompt in enumerate(prompts)]
    return trials


def _asked(condition: str, case: Case, seed: int) -> list[str]:
    intervention = TEXT[condition]
    return intervention.make(case, intervention.rng(seed, case.sample.sample_id))


def _owner(condition: str, case: Case, seed: int) -> str:
    """Id of the sample whose prompt a condition asks for, "" where it is that of none."""
    if condition == OTHER:
        return case.peers.other(case.sample, TEXT[OTHER].rng(seed, case.sample.sample_id))
    return "" if condition == NONE else case.sample.sample_id


def own_prompts(sample: Sample, policy: str, seed: int) -> list[str]:
    """A sample's own prompts: each of its sentences where the policy is `sentences`, else one."""
    if policy == SENTENCES and SENTENCES in sample.prompts:
        return sample.prompts[SENTENCES]
    return [own_prompt(sample, policy, seed)]


def own_prompt(sample: Sample, policy: str, seed: int) -> str:
    """A sample's own prompt: the first one of its level; where the policy is `random` the seed decides."""
    return prompt_of(sample, policy, TEXT[OWN].rng(seed, sample.sample_id) if policy == "random" else None)
