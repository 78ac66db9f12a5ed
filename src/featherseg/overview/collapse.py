"""Models that have collapsed: they answer nearly every image with nothing, or with nearly all of it.

A mean hides that: where most true masks are empty, a model that never finds anything scores high, and so does one that
marks the whole image where structures are large.
"""

from typing import Any

MARK = "†"
SHARE = 0.5  # of the masks, from which a model counts as collapsed


def collapsed(row: Any) -> bool:
    """Whether at least half of the structures are missed (an empty mask where something is), or at least half of the
    masks cover nearly all of an image whose truth does not.

    Args:
        row: `n`, `n_empty_truth`, `n_missed` and `n_flooded` of a run with the own prompt.
    """
    return row.n_missed >= SHARE * max(_present(row), 1) or row.n_flooded >= SHARE * max(row.n, 1)


def described(row: Any) -> str:
    """How many masks are empty and how many cover nearly all of the image, in words.

    Args:
        row: the counts that `collapsed` reads, and `n_empty_prediction`.
    """
    n = round(row.n)
    counts = [f"{round(row.n_empty_prediction)} of {n} masks are empty ({row.n_empty_prediction / row.n:.0%}), where "
              f"{round(_present(row))} have something to find"] if row.n_missed else []
    if row.n_flooded:
        counts.append(f"{round(row.n_flooded)} of {n} cover nearly all of the image ({row.n_flooded / row.n:.0%})")
    return "; ".join(counts)


def _present(row: Any) -> float:
    """How many true masks are not empty."""
    return row.n - row.n_empty_truth
