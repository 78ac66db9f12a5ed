"""Which images and prompts are put together: planned image by image, the same for the same seed.

The own prompt meets every image intervention, the own image every text intervention, and the absent image the absent
text, which two-player Shapley shares need.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from featherseg.core.errors import UserError
from featherseg.core.registry import unknown
from featherseg.core.seeds import rng_of
from featherseg.data.prepared import Sample
from featherseg.models.readings import Reader, Readings, as_text
from featherseg.tasks.segmentation import image as images
from featherseg.tasks.segmentation import text as texts
from featherseg.tasks.segmentation.image import BLUR, IMAGE, MEAN_COLOUR, OTHER_IMAGE, OWN
from featherseg.tasks.segmentation.interventions import Interventions
from featherseg.tasks.segmentation.text import NONE, OTHER_STRUCTURE, PERMUTED, TEXT, Case, Peers
from featherseg.tasks.segmentation.trials import Trial, own_prompt

# without these there is no verdict, so they are always made
TEXT_BASIS, IMAGE_BASIS = (OWN, NONE, PERMUTED, OTHER_STRUCTURE), (OWN, MEAN_COLOUR, OTHER_IMAGE, BLUR)


@dataclass(frozen=True)
class ImageTrials:
    """The trials on one image; `other` is a sample of the image that replaces it under `other_image`."""

    image: str
    trials: list[Trial]
    other: Sample | None

    @property
    def sample(self) -> Sample:
        """Any sample of the image."""
        return self.trials[0].sample


def plan(samples: Sequence[Sample], policy: str, seed: int, *, text: Sequence[str] | None = None,
         image: Sequence[str] | None = None, limit: int | None = None, reader: Reader = as_text) -> list[ImageTrials]:
    """The trials of some samples, image by image, in an order that the seed decides.

    Args:
        samples: those of one split.
        policy: level of the own prompt (`prepared.prompt_of`).
        seed: decides, with each sample's id and the intervention's name, whatever is drawn.
        text, image: interventions beside those that the verdict needs; None for all but those on request.
        limit: at most so many images, of as many patients (groups) as can be; a higher limit adds images and takes none
            away.
        reader: what the model reads of prompts.

    Raises:
        UserError: there is no sample, or an intervention is unknown.
    """
    if not samples:
        raise UserError("there is no sample to try; choose a split that has some.")
    text_names, image_names = interventions(text, image)
    by_image: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.sample_id):
        by_image[sample.image].append(sample)
    shuffled = sorted(by_image, key=lambda name: rng_of(seed, "order", name).random())
    groups = {name: of_image[0].group for name, of_image in by_image.items()}
    order = _limited(shuffled, groups, limit)
    taken = [sample for name in order for sample in by_image[name]]
    own = {sample.sample_id: [own_prompt(sample, policy, seed)] for sample in taken}
    peers = Peers(taken, own, seed, Readings(reader, itertools.chain(*own.values())))
    planned = []
    for name, after in zip(order, order[1:] + order[:1], strict=True):
        trials: list[Trial] = []
        for sample in by_image[name]:
            trials += _trials(sample, peers, seed, text_names, image_names)
        planned.append(ImageTrials(name, trials, by_image[after][0] if after != name else None))
    return planned


def interventions(text: Sequence[str] | None = None,
                  image: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """Names of the text and of the image interventions that a plan tries, the own prompt and image among them.

    Raises:
        UserError: an intervention is unknown.
    """
    return _chosen(text, TEXT, TEXT_BASIS), _chosen(image, IMAGE, IMAGE_BASIS)


def _trials(sample: Sample, peers: Peers, seed: int, text_names: list[str], image_names: list[str]) -> list[Trial]:
    case, readings = Case(sample, peers.own[sample.sample_id], peers), peers.readings
    read_as = {other.target: readings.same(peers.own[other.sample_id]) for other in peers.structures(sample)}
    readers = Counter(read_as.values())
    owner = {same: target for target, same in read_as.items() if readers[same] == 1}

    def trial(text: str, image: str, prompt: str) -> Trial:
        same = readings.same(prompt)
        owner_of = owner.get(same, "") if text in (texts.OWN, OTHER_STRUCTURE) else ""
        return Trial(sample, text, prompt, owner_of, image=image, read_as=same, cut=readings.is_cut(prompt))

    trials = []
    for name in text_names:
        prompts = TEXT[name].make(case, TEXT[name].rng(seed, sample.sample_id))
        trials += [trial(name, images.OWN, prompt) for prompt in prompts]
    trials += [trial(texts.OWN, name, case.own) for name in image_names if name != images.OWN]
    return [*trials, trial(NONE, MEAN_COLOUR, "")]


def _limited(order: list[str], groups: dict[str, str], limit: int | None) -> list[str]:
    """The first images in an order: one of each group before the second of any."""
    if limit is None:
        return order
    seen: Counter[str] = Counter()
    turn = {}
    for name in order:
        turn[name] = seen[groups[name]]
        seen[groups[name]] += 1
    taken = set(sorted(order, key=turn.__getitem__)[:limit])
    return [name for name in order if name in taken]


def _chosen(wanted: Sequence[str] | None, known: Interventions, basis: tuple[str, ...]) -> list[str]:
    if wanted is None:
        return [name for name in known if not known[name].on_request]
    for name in wanted:
        if name not in known:
            raise unknown(known.kind, name, list(known))
    return [name for name in known if name in wanted or name in basis]
