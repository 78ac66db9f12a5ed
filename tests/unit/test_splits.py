"""Splits that no list names: exact shares, whole groups, none empty."""

import random
from collections import Counter

import pytest

from featherseg.data.splits import assign_splits, missing_splits, split_by_hash, split_groups, uneven_note

NAMES = ["train", "val", "test"]


def counts(splits: dict[str, str], sizes: dict[str, int]) -> list[int]:
    return [sum(sizes[group] for group in splits if splits[group] == name) for name in NAMES]


@pytest.mark.parametrize(("images", "expected"), [
    (3, [1, 1, 1]), (4, [2, 1, 1]), (5, [3, 1, 1]), (10, [6, 2, 2]), (99, [59, 20, 20]), (1000, [600, 200, 200])])
def test_shares_are_exact(images, expected):
    sizes = {f"IMG_{number}": 1 for number in range(images)}
    assert counts(split_groups(sizes), sizes) == expected


def test_no_split_is_empty_from_three_groups_on():
    for images in range(3, 60):
        for start in range(0, 1000, 50):
            sizes = {f"IMG_{start + number:05}": 1 for number in range(images)}
            assert min(counts(split_groups(sizes), sizes)) >= 1


@pytest.mark.parametrize("sizes", [{"a": 97, "b": 1, "c": 1}, {"a": 1, "b": 97, "c": 1}, {"a": 1, "b": 1, "c": 97},
                                   {"a": 50, "b": 50, "c": 50, "d": 1}])
def test_no_split_is_empty_however_uneven_the_groups(sizes):
    assert min(counts(split_groups(sizes), sizes)) >= 1


def test_shares_are_those_of_samples_where_groups_differ_in_size():
    draw = random.Random(0)
    sizes = {f"patient {number}": draw.randint(1, 20) for number in range(200)}
    total = sum(sizes.values())
    shares = [count / total for count in counts(split_groups(sizes), sizes)]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=10 / total)


def test_the_order_of_the_groups_does_not_matter():
    sizes = {f"patient {number}": number % 3 + 1 for number in range(30)}
    backwards = dict(reversed(sizes.items()))
    assert split_groups(sizes) == split_groups(backwards)


def test_two_groups_are_train_and_test_and_one_is_train():
    assert sorted(split_groups({"a": 4, "b": 9}).values()) == ["test", "train"]
    assert split_groups({"a": 4}) == {"a": "train"}
    assert split_groups({}) == {}


def test_a_sample_keeps_its_own_split_and_gets_that_of_its_group_where_it_has_none():
    splits = split_groups({"p": 2, "q": 1})
    samples = [("p", None), ("r", "testA"), ("q", None), ("p", None)]
    assert assign_splits(samples) == [splits["p"], "testA", splits["q"], splits["p"]]


def test_shares_far_from_those_asked_are_said_with_that_of_the_largest_group():
    sizes = {"a": 80, "b": 1, "c": 19}
    note = uneven_note([(group, None) for group, size in sizes.items() for _ in range(size)])
    for split, count in zip(NAMES, counts(split_groups(sizes), sizes), strict=True):
        assert f"{count}% {split}" in note
    assert "of 100 samples" in note and "the largest of 3 groups (patients) has 80% of them" in note


@pytest.mark.parametrize("samples", [
    [], [("a", None)], [(str(number), None) for number in range(3)], [("a", "train")] * 90 + [("b", "test")],
    [(str(number // 4), None) for number in range(100)]])
def test_shares_as_asked_or_as_listed_are_not_said(samples):
    assert uneven_note(samples) is None


@pytest.mark.parametrize(("wanted", "missing"), [
    (["test"], []), (["testA", "test"], []), (["testA"], ["testA"]), (["test", "fold3"], ["fold3"])])
def test_only_a_usual_split_may_be_missing_beside_one_that_is_there(wanted, missing):
    assert missing_splits(wanted, {"train", "val", "test"}) == missing


def test_the_split_by_hash_is_the_same_everywhere():
    assert [split_by_hash(group) for group in ("a", "b", "c", "patient 1", "息")] == [
        "val", "train", "train", "test", "train"]
    counts = Counter(split_by_hash(str(number)) for number in range(5000))
    shares = [counts[name] / 5000 for name in ("train", "val", "test")]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.02)
