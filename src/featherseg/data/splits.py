"""Splits that no list names: 60/20/20, never through a group."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

USUAL = ("train", "val", "test", "testA", "testB")
CUTS = (6, 8)  # tenths of the samples: train ends at the first, val at the second
ASKED = {"train": 0.6, "val": 0.2, "test": 0.2}
FAR = 0.1


def split_groups(sizes: Mapping[str, int]) -> dict[str, str]:
    """Divide groups into train, val and test, as near to 60/20/20 of their samples as whole groups allow.

    Groups are taken in the order of their SHA-256, whatever order they come in, and cut where the number of samples
    before the cut is nearest to its share. Each of the three splits has a group; two groups are train and test, and a
    single one is train.

    Args:
        sizes: group -> how many samples it has.

    Returns:
        Group -> split.
    """
    ordered = sorted(sizes, key=lambda group: (_hash(group), group))
    if len(ordered) < 3:
        return dict(zip(ordered, ("train", "test"), strict=False))
    samples = [0, *itertools.accumulate(sizes[group] for group in ordered)]

    def nearest(tenths: int, first: int, last: int) -> int:
        return min(range(first, last + 1), key=lambda cut: abs(10 * samples[cut] - tenths * samples[-1]))

    train = nearest(CUTS[0], 1, len(ordered) - 2)
    val = nearest(CUTS[1], train + 1, len(ordered) - 1)
    names = ["train"] * train + ["val"] * (val - train) + ["test"] * (len(ordered) - val)
    return dict(zip(ordered, names, strict=True))


def assign_splits(samples: Sequence[tuple[str, str | None]]) -> list[str]:
    """The split of each sample: its own, or that of its group (`split_groups`) where it has none.

    Args:
        samples: the group of each, and its split or None.
    """
    unsplit = Counter(group for group, split in samples if split is None)
    splits = split_groups(unsplit)
    return [splits[group] if split is None else split for group, split in samples]


def uneven_note(samples: Sequence[tuple[str, str | None]]) -> str | None:
    """How far the shares that `assign_splits` gives are from 60/20/20, where groups are too large to come nearer.

    Args:
        samples: the group of each, and its split or None.

    Returns:
        A sentence where a split is more than `FAR` from its share of the samples without a split, else None.
    """
    sizes = Counter(group for group, split in samples if split is None)
    largest, total = max(sizes.values(), default=0), sizes.total()
    if largest < 2:
        return None
    splits = split_groups(sizes)
    counts: Counter[str] = Counter()
    for group, size in sizes.items():
        counts[splits[group]] += size
    shares = {split: counts[split] / total for split in ASKED}
    if max(abs(share - ASKED[split]) for split, share in shares.items()) <= FAR:
        return None
    shown = ", ".join(f"{share:.0%} {split}" for split, share in shares.items())
    return (f"The splits hold {shown} of {total} samples where 60/20/20 was asked: the largest of {len(sizes)} groups "
            f"(patients) has {largest / total:.0%} of them, and none is cut; name the splits in a list if others suit "
            "better.")


def missing_splits(wanted: Iterable[str], present: Collection[str]) -> list[str]:
    """Splits without which a data set cannot be scored.

    Data sets differ in their splits, so one of `USUAL` may be missing as long as another one is there.

    Args:
        wanted: the splits that are to be scored.
        present: those that have samples.
    """
    missing = [split for split in wanted if split not in present]
    scored = [split for split in wanted if split in present]
    return [split for split in missing if not scored or split not in USUAL]


def split_by_hash(group: str) -> str:
    """Train, val or test, 60/20/20 in expectation, by the SHA-256 of the group alone, whatever other groups there are.

    Of few groups a split may have none: `split_groups` is for sets of unknown size.
    """
    share = _hash(group) / 2**64
    return "train" if share < 0.6 else "val" if share < 0.8 else "test"


def _hash(group: str) -> int:
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8])
