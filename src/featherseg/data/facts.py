"""What a score of a prepared dataset does not show by itself: leaks between splits, prompts that ask for two targets at
once, and targets that vanish at the model's input size. `facts.json` holds the numbers, beside `card.md`."""

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featherseg.core.files import read_object, write_json
from featherseg.data.images import read_image, read_mask
from featherseg.data.prepared import UNIQUE, UNNAMED, Sample, read_samples
from featherseg.data.splits import USUAL

FACTS = "facts.json"
INPUT_SIZES = (64, 224, 352, 416)  # sides in pixels: the embedded weights', CLIP's, CLIPSeg's, ETRIS's and CRIS's


@dataclass(frozen=True)
class Facts:
    """Counts over the samples of a prepared dataset.

    Attributes:
        pictures: splits, such as "train and test", -> how many different pictures, by their pixels, are in all of them.
        groups: the same of groups (patients) with several images.
        alike: samples with a prompt of their fullest level that another target of their image has too (`folded`).
        masks: samples whose mask is not empty.
        vanishing: side of the input in pixels -> how many of these masks have no pixel there.
    """

    pictures: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    alike: int = 0
    masks: int = 0
    vanishing: dict[int, int] = field(default_factory=dict)

    def leaks(self) -> list[str]:
        """What lies in several splits, one sentence each; empty where nothing does."""
        kinds = (("picture", "pictures", self.pictures), ("group (patient)", "groups (patients)", self.groups))
        sentences = []
        for one, several, counts in kinds:
            if counts:
                number = sum(counts.values())
                kind = one if number == 1 else several
                sentences.append(f"{number} {kind} in several splits ({_listed(counts)}), which makes scores too high.")
        return sentences

    def sentences(self) -> list[str]:
        """Every fact as a sentence."""
        alike = (f"{self.alike} samples share their fullest prompt with another target of their image, so that no "
                 "model can tell them apart by it.")
        vanishing = ", ".join(f"{count} at {size} px" for size, count in self.vanishing.items() if count)
        return [*(self.leaks() or ["No picture and no group (patient) is in several splits."]),
                *([alike] if self.alike else []),
                *([f"Of {self.masks} masks that are not empty, resized to the model's input, {vanishing} have no pixel "
                   "left."] if vanishing else [])]


class Leaks:
    """Finds pictures and groups that are in several splits, sample by sample."""

    def __init__(self) -> None:
        self._pictures: dict[bytes, set[str]] = defaultdict(set)
        self._groups: dict[str, set[str]] = defaultdict(set)
        self._images: dict[str, set[str]] = defaultdict(set)

    def add_picture(self, pixels: np.ndarray, splits: Iterable[str]) -> None:
        """Count in one image, uint8 (H, W, 3), with the splits of its samples."""
        digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(pixels).data)
        self._pictures[digest.digest()].update(splits)

    def add_group(self, group: str, image: str, split: str) -> None:
        """Count in one sample's group."""
        self._groups[group].add(split)
        self._images[group].add(image)

    @property
    def pictures(self) -> dict[str, int]:
        """Splits -> how many different pictures are in all of them."""
        return _counts(self._pictures.values())

    @property
    def groups(self) -> dict[str, int]:
        """Splits -> how many groups of several images are in all of them."""
        return _counts(splits for group, splits in self._groups.items() if len(self._images[group]) > 1)


def write_facts(dataset_dir: Path | str) -> Facts:
    """Read every sample, image and mask of a prepared dataset and write `facts.json` into it.

    Raises:
        UserError: the dataset cannot be read.
    """
    dataset_dir = Path(dataset_dir)
    leaks = Leaks()
    splits: dict[str, set[str]] = defaultdict(set)
    asked = []
    masks, vanishing = 0, Counter(dict.fromkeys(INPUT_SIZES, 0))
    for sample in read_samples(dataset_dir):
        splits[sample.image].add(sample.split)
        leaks.add_group(sample.group, sample.image, sample.split)
        asked.append(prompt_keys(sample.image, fullest_prompts(sample)))
        if sample.area_fraction:
            masks += 1
            mask = read_mask(dataset_dir / sample.mask, threshold=128, unite=True)
            vanishing.update(size for size in INPUT_SIZES if not resized(mask, size).any())
    for image, names in splits.items():
        leaks.add_picture(read_image(dataset_dir / image), names)
    facts = Facts(leaks.pictures, leaks.groups, count_alike(asked), masks, dict(vanishing))
    write_json(dataset_dir / FACTS, {
        "pictures_in_several_splits": facts.pictures, "groups_in_several_splits": facts.groups,
        "prompts_alike": facts.alike, "masks": facts.masks,
        "vanishing": {str(size): count for size, count in facts.vanishing.items()}})
    return facts


def read_facts(dataset_dir: Path | str) -> Facts:
    """The facts of a prepared dataset.

    Raises:
        UserError: `facts.json` is missing or damaged.
    """
    keys = ("pictures_in_several_splits", "groups_in_several_splits", "prompts_alike", "masks", "vanishing")
    content = read_object(Path(dataset_dir) / FACTS, *keys)
    pictures, groups, alike, masks, vanishing = (content[key] for key in keys)
    return Facts(pictures, groups, alike, masks, {int(size): count for size, count in vanishing.items()})


def folded(prompt: str) -> str:
    """A prompt without what does not change its meaning: case, and the number of blanks."""
    return " ".join(prompt.casefold().split())


def fullest_prompts(sample: Sample) -> list[str]:
    """The prompts of a sample's fullest level."""
    level = [name for name in sample.prompts if name != UNIQUE][-1]
    return sample.prompts[level]


def prompt_keys(image: str, prompts: Iterable[str]) -> tuple[int, ...]:
    """What stands for a sample's prompts in `count_alike`: hashes, since the texts of a large set need much memory."""
    return tuple({hash((image, folded(prompt))) for prompt in prompts})


def count_alike(asked: Sequence[tuple[int, ...]]) -> int:
    """How many samples have a prompt that another target of their image has too.

    Args:
        asked: the `prompt_keys` of every sample.
    """
    askers = Counter(itertools.chain.from_iterable(asked))
    shared = {key for key, count in askers.items() if count > 1}
    return sum(not shared.isdisjoint(keys) for keys in asked)


def resized(mask: np.ndarray, size: int) -> np.ndarray:
    """bool (H, W) -> bool (size, size), the nearest pixel, as `transforms.Squash.mask`, without importing torch."""
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in mask.shape)
    return mask[np.ix_(rows, columns)]


def _counts(split_sets: Iterable[set[str]]) -> dict[str, int]:
    used = (sorted(splits - {UNNAMED}, key=_split_order) for splits in split_sets)
    several = Counter(" and ".join(splits) for splits in used if len(splits) > 1)
    return dict(sorted(several.items()))


def _split_order(split: str) -> tuple[int, str]:
    return (USUAL.index(split) if split in USUAL else len(USUAL)), split


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{splits}: {count}" for splits, count in counts.items())
