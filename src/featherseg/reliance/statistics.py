"""Intervals, tests and effect sizes for paired differences of samples that come in groups (patients, images).

Samples of one group are not independent: whole groups are resampled, and a test flips the signs of whole groups.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
FEWEST = 7  # groups: with fewer an interval covers too seldom (1 in 2 with two groups), and no p-value is small enough
_FLIPS = 9999
_EXACT_UP_TO = 12  # groups: 4096 assignments of signs
_CELLS = 2**22  # numbers held at once


class Groups:
    """The groups of some samples, and what follows from them.

    Args:
        labels: the group of each sample.
        draws: bootstrap draws.
        seed: of all draws.
    """

    def __init__(self, labels: Sequence[str], draws: int, seed: int) -> None:
        names, self._group = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
        self.count = len(names)
        self._draws, self._seed = draws, seed

    def bootstrap(self, values: np.ndarray) -> np.ndarray:
        """Means of the columns of `values` (N, K) over groups drawn with replacement: (draws, K).

        All columns see the same draws, so differences and ratios of columns may be taken draw by draw. NaN is a
        value that was not measured; a draw without any value of a column is NaN there.
        """
        sums, sizes = self._totals(values)
        parts = [weights @ sums / np.where(known := weights @ sizes, known, np.nan) for weights in self._weights()]
        return np.concatenate(parts)

    def measured(self, values: np.ndarray) -> np.ndarray:
        """How many groups have a value of each column of `values` (N, K), NaN left out: (K,)."""
        return np.count_nonzero(self._totals(values)[1], axis=0)

    def interval(self, drawn: np.ndarray, count: int | None = None) -> tuple[float, float] | tuple[None, None]:
        """Bootstrap interval of `CONFIDENCE` from the draws of one statistic; None where it has not `FEWEST` groups.

        Percentiles are widened to those that make a mean's interval that of Student's t (Hesterberg 2015, doi
        10.1080/00031305.2015.1089789): plain ones are too narrow where groups are few.

        Args:
            drawn: (draws,).
            count: of the groups with a value (`measured`); None for all.
        """
        drawn, count = drawn[np.isfinite(drawn)], self.count if count is None else count
        if count < FEWEST or not len(drawn):
            return None, None
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.sqrt(count / (count - 1))
        low, high = np.quantile(drawn, stats.norm.cdf([-quantile, quantile]))
        return float(low), float(high)

    def sign_flip_test(self, differences: np.ndarray) -> float:
        """Two-sided p-value of the mean of paired differences (N,), NaN left out, under random signs of groups.

        With at most `_EXACT_UP_TO` groups all signs are tried, else `_FLIPS` of them; 1 where nothing differs.
        """
        sums = self._totals(differences[:, None])[0][:, 0]
        observed, tolerance = abs(sums.sum()), 1e-12 * np.abs(sums).sum()
        if not sums.any():
            return 1.0
        if self.count <= _EXACT_UP_TO:
            signs: np.ndarray = 1 - 2 * (np.arange(2**self.count)[:, None] >> np.arange(self.count) & 1)
            return float(np.mean(np.abs(signs @ sums) >= observed - tolerance))
        rng, reached, at_once = np.random.default_rng([self._seed, 1]), 0, max(1, _CELLS // self.count)
        for first in range(0, _FLIPS, at_once):
            rows = min(at_once, _FLIPS - first)
            signs = 1.0 - 2.0 * rng.integers(0, 2, (rows, self.count), dtype=np.int8)
            reached += int(np.count_nonzero(np.abs(signs @ sums) >= observed - tolerance))
        return (1 + reached) / (1 + _FLIPS)

    def effect(self, differences: np.ndarray) -> float | None:
        """Cohen's d of the groups' mean differences (N,): mean over deviation; None where they do not vary."""
        sums, sizes = (total[:, 0] for total in self._totals(differences[:, None]))
        means = sums[sizes > 0] / sizes[sizes > 0]
        if len(means) < 2 or (spread := means.std(ddof=1)) < 1e-12:
            return None
        return float(means.mean() / spread)

    def _totals(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum and number of the measured values of each group, (groups, K) each."""
        known = ~np.isnan(values)
        sums, sizes = np.zeros((2, self.count, values.shape[1]))
        np.add.at(sums, self._group, np.where(known, values, 0.0))
        np.add.at(sizes, self._group, known)
        return sums, sizes

    def _weights(self) -> Iterator[np.ndarray]:
        """How often each group is drawn, (some draws, groups) at a time."""
        rng, at_once = np.random.default_rng([self._seed, 0]), max(1, _CELLS // self.count)
        for first in range(0, self._draws, at_once):
            yield rng.multinomial(self.count, self._shares, size=min(at_once, self._draws - first)).astype(np.float64)

    @cached_property
    def _shares(self) -> np.ndarray:
        return np.full(self.count, 1 / self.count)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down procedure (1979), in their order."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else []
    return corrected.tolist()


def rank_biserial(differences: np.ndarray) -> float | None:
    """Matched-pairs rank-biserial correlation of differences (N,), NaN left out (Kerby 2014).

    Ranks of the positive ones minus ranks of the negative ones, over all ranks: 1 where every pair falls, 0 where
    rises and falls balance; None where no pair differs.
    """
    moved = differences[np.isfinite(differences) & (differences != 0)]
    if not len(moved):
        return None
    ranks = stats.rankdata(np.abs(moved))
    return float((ranks[moved > 0].sum() - ranks[moved < 0].sum()) / ranks.sum())
