"""Intervals cover, p-values are uniform under the null, corrections and effects equal those by hand."""

import numpy as np
import pytest
from scipy import stats

from featherseg.reliance.statistics import CONFIDENCE, Groups, holm, rank_biserial


def patients(rng, count, size=3):
    """Groups of 1 to `size` samples, and values whose mean over groups of any size is 0, alike within a group."""
    labels = np.repeat(np.arange(count), rng.integers(1, size + 1, count))
    return labels, rng.normal(size=count)[labels] + 0.5 * rng.normal(size=len(labels))


@pytest.mark.parametrize("count", [7, 20, 60])
def test_intervals_cover_the_truth_at_their_nominal_rate(count):
    rng, hits, trials = np.random.default_rng(0), 0, 500
    for seed in range(trials):
        labels, values = patients(rng, count)
        groups = Groups(labels, 600, seed)
        low, high = groups.interval(groups.bootstrap(values[:, None])[:, 0])
        hits += low <= 0 <= high
    error = 3 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / trials)
    assert abs(hits / trials - CONFIDENCE) < error + 0.01


def test_intervals_of_single_samples_would_be_too_narrow_where_patients_are_alike():
    labels = np.repeat(np.arange(10), 6)
    values = np.random.default_rng(1).normal(size=10)[labels]
    widths = []
    for label in (labels, np.arange(60)):
        groups = Groups(label, 2000, 0)
        low, high = groups.interval(groups.bootstrap(values[:, None])[:, 0])
        widths.append(high - low)
    assert widths[0] > 1.8 * widths[1]


@pytest.mark.parametrize("count", [7, 25])
def test_p_values_are_uniform_where_nothing_differs(count):
    rng = np.random.default_rng(2)
    p_values = []
    for seed in range(300):
        labels, values = patients(rng, count)
        p_values.append(Groups(labels, 10, seed).sign_flip_test(values))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.09


def test_a_difference_is_found():
    labels, values = patients(np.random.default_rng(3), 30)
    assert Groups(labels, 10, 0).sign_flip_test(values + 1.5) < 0.001


def test_sign_flips_are_exact_for_few_groups():
    groups = Groups(["a", "b", "c", "c"], 10, 0)
    assert groups.sign_flip_test(np.array([1.0, 2.0, 3.0, 3.0])) == 2 / 8  # only all signs alike are as far
    assert groups.sign_flip_test(np.array([1.0, 2.0, 1.5, 1.5])) == 2 / 8
    assert groups.sign_flip_test(np.array([3.0, -3.0, 0.0, np.nan])) == 1.0
    assert groups.sign_flip_test(np.zeros(4)) == 1.0


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.5; never falling
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.3, 0.6]) == pytest.approx([0.6, 0.6])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_effects_by_hand():
    groups = Groups(["a", "a", "b", "c"], 10, 0)  # means 2, 4, 3
    assert groups.effect(np.array([1.0, 3.0, 4.0, 3.0])) == pytest.approx(3.0)
    assert groups.effect(np.full(4, 0.3)) is None
    # |differences| 1, 2, 3 have ranks 1, 2, 3; the second one rises
    assert rank_biserial(np.array([1.0, -2.0, 3.0, 0.0, np.nan])) == pytest.approx((1 + 3 - 2) / 6)
    assert rank_biserial(np.zeros(3)) is None


def test_the_bootstrap_resamples_whole_groups_and_passes_over_what_was_not_measured():
    groups = Groups(["a", "a", "b"], 4000, 0)
    drawn = groups.bootstrap(np.array([[0.0, np.nan], [1.0, np.nan], [5.0, 7.0]]))
    assert set(np.round(np.unique(drawn[:, 0]), 6)) == {0.5, 2.0, 5.0}  # aa, ab, bb
    assert set(np.unique(drawn[np.isfinite(drawn[:, 1]), 1])) == {7.0}
    assert np.isnan(drawn[:, 1]).mean() == pytest.approx(0.25, abs=0.03)
    assert np.array_equal(drawn, Groups(["a", "a", "b"], 4000, 0).bootstrap(
        np.array([[0.0, np.nan], [1.0, np.nan], [5.0, 7.0]])), equal_nan=True)


@pytest.mark.parametrize(("count", "given"), [(1, False), (2, False), (6, False), (7, True)])
def test_few_groups_have_no_interval(count, given):
    groups, values = Groups([*map(str, range(count))], 100, 0), np.arange(count, dtype=float)[:, None]
    assert (groups.interval(groups.bootstrap(values)[:, 0]) != (None, None)) == given
