"""How far the prompt engine's words agree with the published ones, attribute by attribute."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featherseg.core.errors import UserError
from featherseg.data.prepared import PreparedDataset
from featherseg.data.prompts.fields import FIELDS, Field
from featherseg.data.prompts.prompt_engine import measure, parts_of
from featherseg.data.prompts.wording import ATTRIBUTES, location_word
from featherseg.data.raw.specs import SPECS

SHAPE_OF = {"round": "round", "circle": "round", "circular": "round", "oval": "oval", "ovoid": "oval",
            "triangle": "triangular", "triangular": "triangular", "square": "square",
            "rectangle": "rectangular", "rectangular": "rectangular", "irregular": "irregular"}
RELEASED = "location, placed as released"
NONE = "(none)"
DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class Agreement:
    """The words of one attribute in one dataset, sample by sample, in the same order.

    Attributes:
        dataset, split, attribute: what was compared; `RELEASED` is the location by the released code's own rule.
        published: words of the published prompts, a synonym as the engine's word where there is one.
        measured: the engine's words, `NONE` where it could measure nothing.
        note: what else the page should say.
    """

    dataset: str
    split: str
    attribute: str
    published: tuple[str, ...]
    measured: tuple[str, ...]
    note: str = ""

    @property
    def share(self) -> float:
        """Share of samples with the same word."""
        return float(np.mean([a == b for a, b in zip(self.published, self.measured, strict=True)]))

    @property
    def chance(self) -> float:
        """Share that always saying the most frequent published word would reach."""
        return Counter(self.published).most_common(1)[0][1] / len(self.published)

    @property
    def kappa(self) -> float:
        """Cohen's kappa."""
        return cohens_kappa(self.published, self.measured)

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """95 % interval of kappa, by drawing samples with replacement; draws in which it is undefined are left out."""
        rng = np.random.default_rng(seed)
        published, measured = np.array(self.published), np.array(self.measured)
        kappas = []
        for _ in range(DRAWS):
            drawn = rng.integers(len(published), size=len(published))
            kappas.append(cohens_kappa(published[drawn].tolist(), measured[drawn].tolist()))
        defined = np.array(kappas)[~np.isnan(kappas)]
        if not len(defined):
            return float("nan"), float("nan")
        low, high = np.percentile(defined, [2.5, 97.5])
        return float(low), float(high)


def agreements(dataset: PreparedDataset, split: str = "test") -> list[Agreement]:
    """The comparison of every attribute, and of the location as the released code places it.

    Samples without published attributes are left out; the engine's words are those of the dataset's field.

    Raises:
        UserError: no sample of the split has published attributes.
    """
    samples = [sample for sample in dataset.split(split) if all(map(sample.attributes.get, ATTRIBUTES))]
    if not samples:
        raise UserError(f"{dataset.path} has no sample of the split {split!r} with published attributes; give a "
                        "dataset whose lists have cumulative prompts P1 to P6.")
    name = samples[0].dataset
    field = FIELDS[getattr(SPECS.get(name), "field", "general")]
    measured = [measure(dataset.image(sample), dataset.mask(sample), field, sample.target) for sample in samples]
    results = []
    for attribute in ATTRIBUTES:
        published = tuple(canonical(attribute, sample.attributes[attribute], field) for sample in samples)
        words = tuple(of_sample[attribute] or NONE for of_sample in measured)
        results.append(Agreement(name, split, attribute, published, words))
    stretch = _released_stretch(dataset)
    placed = tuple(", ".join(_released_places(dataset.mask(sample), stretch)) or NONE for sample in samples)
    location = next(result for result in results if result.attribute == "location")
    note = f"width taken as {stretch:.2f} times that of the images compared, the best fit to their training split"
    if stretch > 1.05:
        note += "; so these are narrower than the published ones, and outlines with them"
    return [*results, Agreement(name, split, RELEASED, location.published, placed, note)]


def canonical(attribute: str, word: str, field: Field) -> str:
    """A published word in the engine's vocabulary where it is a synonym, else as it was published."""
    if attribute == "shape" and word in SHAPE_OF:
        return field.shapes[SHAPE_OF[word]]
    return {"gray": "grey"}.get(word, word) if attribute == "colour" else word


def cohens_kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Agreement of two raters beyond chance (Cohen, 1960): 1 perfect, 0 as by chance; NaN where chance alone is 1."""
    total = len(first)
    seen = sum(a == b for a, b in zip(first, second, strict=True)) / total
    shares, others = Counter(first), Counter(second)
    chance = sum(count * others[word] for word, count in shares.items()) / total ** 2
    return (seen - chance) / (1 - chance) if chance < 1 else float("nan")


def _released_stretch(dataset: PreparedDataset) -> float:
    """How many times wider than stored the images were when the released code placed words, by the training split.

    1 for images of original resolution, width / height for images that are stored as squares.
    """
    samples = [sample for sample in dataset.split("train") if sample.attributes.get("number") == "one"]
    masks = [dataset.mask(sample) for sample in samples]
    stretches = np.arange(0.8, 1.81, 0.05)
    hits = np.zeros(len(stretches), int)
    for place, stretch in enumerate(stretches):
        for mask, sample in zip(masks, samples, strict=True):
            hits[place] += _released_places(mask, stretch) == [sample.attributes["location"]]
    return float(np.median(stretches[hits == hits.max()]))


def _released_places(mask: np.ndarray, stretch: float) -> list[str]:
    """Places of a mask's parts where the middle of the width, too, is compared with thirds of the height.

    medvlsm's `utils/annotations/features_from_img.py` at 3e8a80b does so.
    """
    if not mask.any():
        return []
    height = mask.shape[0]
    places = []
    for part in parts_of(mask):
        across = min(stretch * (part.left + part.right) / 2 / height, 0.999)
        places.append(location_word(across, (part.top + part.bottom) / 2 / height))
    return places
