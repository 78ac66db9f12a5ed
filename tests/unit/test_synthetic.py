"""The drawn sets: the same picture from the same numbers, and words that fit what was drawn."""

import itertools

import numpy as np
import pytest

from featherseg.core.errors import UserError
from featherseg.data.prepared import PreparedDataset, prompt_of
from featherseg.data.prompts.wording import LOCATIONS, location_word
from featherseg.data.splits import split_by_hash
from featherseg.data.synthetic import (
    DESCRIPTIONS,
    NAMES,
    draw,
    lesions,
    organs,
    prepare_synthetic,
    scene_prompts,
    scenes,
    scenes_ref,
)
from featherseg.data.synthetic.targets import size_word

INDICES = range(12)
LEVELS = [f"p{level}" for level in range(10)]
MODULES = {"scenes": scenes, "lesions": lesions, "organs": organs, "scenes_ref": scenes_ref}
CUMULATIVE = ("scenes", "lesions", "organs")
WORDS_BY_LENGTH = sorted((word for row in LOCATIONS for word in row), key=len, reverse=True)


def shrink(picture: np.ndarray, factor: int) -> np.ndarray:
    """Mean over blocks of `factor` x `factor` pixels."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    return picture.reshape(height, factor, width, factor, *picture.shape[2:]).mean(axis=(1, 3))


def centroid(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return (columns.mean() + 0.5) / mask.shape[1], (rows.mean() + 0.5) / mask.shape[0]


def fits(prompt: str, attributes: dict[str, str]) -> bool:
    """Whether a prompt's words describe an object of a scene, read by rules of this test's own."""
    text = f" {prompt.replace('-', ' ').replace(',', ' ')} "
    place = next((word for word in WORDS_BY_LENGTH if f" {word} " in text), None)
    claims = {"location": place} if place else {}
    vocabulary = {"shape": scenes.SHAPES, "colour": scenes.COLOURS, "size": ("small", "medium", "large")}
    for key, values in vocabulary.items():
        named = [value for value in values if f" {value} " in text]
        assert len(named) <= 1, prompt
        claims |= {key: named[0]} if named else {}
    assert claims, prompt
    return all(attributes[key] == value for key, value in claims.items())


@pytest.mark.parametrize("name", NAMES)
def test_equal_numbers_draw_the_equal_picture_and_others_do_not(name):
    first, again = draw(name, 3, 7, 64), draw(name, 3, 7, 64)
    assert np.array_equal(first.image, again.image)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first.targets, again.targets, strict=True))
    assert [t.prompts for t in first.targets] == [t.prompts for t in again.targets]
    assert not np.array_equal(first.image, draw(name, 4, 7, 64).image)
    assert not np.array_equal(first.image, draw(name, 3, 8, 64).image)


@pytest.mark.parametrize("name", NAMES)
def test_every_size_shows_the_same_picture(name):
    for index in INDICES:
        small, large = draw(name, index, 0, 64), draw(name, index, 0, 256)
        assert np.abs(shrink(large.image.astype(float), 4) - small.image).mean() < 4.0
        for a, b in zip(small.targets, large.targets, strict=True):
            assert (a.name, a.attributes, a.prompts) == (b.name, b.attributes, b.prompts)
            reduced = shrink(b.mask.astype(float), 4) > 0.5
            assert (a.mask & reduced).sum() / (a.mask | reduced).sum() > 0.9


def test_words_do_not_depend_on_the_size_even_where_organs_cover_each_other():
    for index in range(40):
        coarse, fine = draw("organs", index, 0, 24), draw("organs", index, 0, 100)
        assert [t.attributes for t in coarse.targets] == [t.attributes for t in fine.targets]


@pytest.mark.parametrize("x, y, word", [
    (0.1, 0.1, "top left"), (0.5, 0.1, "top"), (0.9, 0.5, "right"), (0.1, 0.5, "left"), (0.5, 0.5, "center"),
    (0.1, 0.9, "bottom left"), (0.5, 0.9, "bottom"), (1.0, 1.0, "bottom right"), (0.9, 0.0, "top right"),
])
def test_location_words_are_as_the_viewer_sees_the_image(x, y, word):
    assert location_word(x, y) == word


def test_size_words_are_parted_by_the_limits():
    assert [size_word(area, (0.03, 0.06)) for area in (0.01, 0.03, 0.059, 0.06)] == [
        "small", "medium", "medium", "large"]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_uint8_rgb_with_separate_visible_targets(name):
    areas = []
    for index in INDICES:
        scene = draw(name, index, 1, 96)
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        assert len({target.name for target in scene.targets}) == len(scene.targets)
        assert np.sum([target.mask for target in scene.targets + scene.others], axis=0).max() == 1
        areas += [target.mask.mean() for target in scene.targets]
        assert all(target.mask.dtype == bool for target in scene.targets)
    assert min(areas) > 0.01 and np.mean(areas) > 0.02


def test_the_number_of_targets_is_that_of_the_set():
    counts = {name: {len(draw(name, index, 0, 32).targets) for index in range(40)} for name in NAMES}
    assert counts["lesions"] == {1} and counts["organs"] == {3}
    assert counts["scenes"] == {2, 3, 4, 5}
    assert {2, 3, 4} <= counts["scenes_ref"] <= {1, 2, 3, 4}


@pytest.mark.parametrize("name", NAMES)
def test_location_and_size_words_agree_with_the_mask(name):
    limits = MODULES[name].SIZE_LIMITS
    checked = 0
    for index in range(30):
        for target in draw(name, index, 2, 192).targets:
            x, y = centroid(target.mask)
            if all(abs(value - line) > 0.01 for value in (x, y) for line in (1 / 3, 2 / 3)):
                assert target.attributes["location"] == location_word(x, y)
                checked += 1
            area = target.mask.mean()
            if all(abs(area / limit - 1) > 0.05 for limit in limits):
                assert target.attributes["size"] == size_word(area, limits)
                checked += 1
            assert target.attributes["number"] == "one"
    assert checked > 45


def test_a_scene_object_has_its_colour():
    for index in INDICES:
        scene = draw("scenes", index, 3, 96)
        for target in scene.targets:
            seen = scene.image[target.mask].mean(axis=0) / 255
            far = {word: np.abs(np.array(colour) - seen).sum() for word, colour in scenes.COLOURS.items()}
            assert min(far, key=far.get) == target.attributes["colour"]


def test_a_round_lesion_is_rounder_than_an_oval_one():
    ratios = {"round": [], "oval": []}
    for index in range(40):
        target = draw("lesions", index, 0, 128).targets[0]
        low, high = np.linalg.eigvalsh(np.cov(np.nonzero(target.mask)))
        ratios.setdefault(target.attributes["shape"], []).append(np.sqrt(high / low))
    assert max(ratios["round"]) < 1.25 < 1.35 < min(ratios["oval"])
    assert ratios["irregular"]


def test_organs_are_seen_from_the_feet():
    """The patient's left is on the right of the image, as radiologists look at a slice."""
    seen = set()
    for index in INDICES:
        for target in draw("organs", index, 0, 96).targets:
            x, y = centroid(target.mask)
            assert (x > 0.5) == (target.name in ("left kidney", "spleen", "stomach"))
            assert (y > 0.55) == target.name.endswith("kidney")
            seen.add(target.name)
    assert seen == set(organs.ORGANS)


@pytest.mark.parametrize("name", CUMULATIVE)
def test_prompts_are_cumulative(name):
    for target in (target for index in INDICES for target in draw(name, index, 0, 32).targets):
        prompts, attributes = target.prompts, target.attributes
        assert list(prompts) == [*LEVELS, "unique"]
        assert prompts["p0"] == [""] and len(prompts["p7"]) > 1
        words = {level: [set(text.replace(",", "").split()) for text in prompts[level]] for level in LEVELS}
        for lower, higher in [*itertools.pairwise(LEVELS[:7]), ("p1", "p7"), ("p5", "p8"), ("p6", "p9")]:
            assert all(words[lower][0] < longer for longer in words[higher])
        for lower, higher in (("p7", "p8"), ("p8", "p9")):
            assert all(short < longer for short, longer in zip(words[lower], words[higher], strict=True))
        for level, key in zip(LEVELS[2:7], ("shape", "colour", "size", "number", "location"), strict=True):
            assert attributes[key] in prompts[level][0]


def test_unique_prompts_fit_exactly_one_object_and_nothing_shorter_would():
    lengths = set()
    for index in range(60):
        scene = draw("scenes", index, 0, 32)
        for target in scene.targets:
            assert [fits(target.unique_prompt, other.attributes) for other in scene.targets].count(True) == 1
            assert fits(target.unique_prompt, target.attributes)
            shapes = [other.attributes["shape"] for other in scene.targets]
            alone = shapes.count(target.attributes["shape"]) == 1
            assert (target.unique_prompt == target.attributes["shape"]) == alone
            lengths.add(len(target.unique_prompt.split()))
    assert {1, 2, 3} <= lengths


def test_objects_that_share_all_but_the_place_stand_at_different_places(monkeypatch):
    monkeypatch.setattr(scenes, "SHAPES", ("circle",))
    monkeypatch.setattr(scenes, "COLOURS", {"red": scenes.COLOURS["red"]})
    monkeypatch.setattr(scenes, "_RADII", {"small": scenes._RADII["small"]})
    for index in range(40):
        targets = draw("scenes", index, 0, 16).targets
        assert len({target.unique_prompt for target in targets}) == len(targets)
        assert all(target.attributes["location"] in target.unique_prompt for target in targets)


def test_scene_prompts_single_out_their_object_in_many_words():
    for index in range(30):
        scene = draw("scenes", index, 5, 32)
        for number, target in enumerate(scene.targets):
            prompts = scene_prompts(scene, number)
            assert prompts[0] == target.unique_prompt
            assert len(prompts) == len(set(prompts)) >= 10
            for prompt in prompts:
                assert [fits(prompt, other.attributes) for other in scene.targets] == [
                    other is target for other in scene.targets], prompt


@pytest.mark.parametrize("name", NAMES)
def test_prepare_writes_every_target_with_its_prompts(name, tmp_path):
    prepare_synthetic(name, images=12, size=48, seed=4, out_dir=tmp_path / name)
    dataset = PreparedDataset.read(tmp_path / name)
    drawn = [(f"{name}/{name}_{index:05d}/{target.name}", scene, target)
             for index in range(12) for scene in [draw(name, index, 4, 48)] for target in scene.targets]
    assert [sample.sample_id for sample in dataset.samples] == [sample_id for sample_id, _, _ in drawn]
    for sample, (_, scene, target) in zip(dataset.samples, drawn, strict=True):
        assert np.array_equal(dataset.image(sample), scene.image)
        assert np.array_equal(dataset.mask(sample), target.mask)
        assert sample.attributes == target.attributes and sample.prompts == target.prompts
        assert prompt_of(sample, "unique") == target.unique_prompt
        assert sample.split == (scene.split or split_by_hash(sample.image_id))
    assert {sample.split for sample in dataset.samples} >= {"train", "val"}


@pytest.mark.parametrize("call, words", [
    (lambda: draw("scene", 0, 0, 64), "scenes, lesions, organs"),
    (lambda: draw("scenes", -1, 0, 64), "index -1"),
    (lambda: draw("scenes", 0, 0, 8), "size 8"),
    (lambda: prepare_synthetic("scenes", 0, 64, 0, "never"), "images is 0"),
])
def test_a_wrong_number_or_name_is_one_sentence(call, words):
    with pytest.raises(UserError, match=words):
        call()


def test_a_failed_prepare_leaves_nothing(tmp_path):
    with pytest.raises(UserError):
        prepare_synthetic("lesions", images=2, size=8, seed=0, out_dir=tmp_path / "lesions")
    assert not list(tmp_path.iterdir())


def test_each_set_says_what_it_stands_for():
    assert set(DESCRIPTIONS) == set(NAMES)
    assert all("stands for" in text for text in DESCRIPTIONS.values())
