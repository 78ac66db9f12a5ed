"""Referring expressions read back, by a reader of this test's own, against every object that the picture shows."""

import re
from collections import Counter

import numpy as np
import pytest

from featherseg.data.prepare import prepare_synthetic_set
from featherseg.data.prepared import PreparedDataset, prompt_of
from featherseg.data.synthetic import Scene, Target, draw, scene_prompts
from featherseg.data.synthetic.scenes_ref import HELD_OUT, SPLITS
from featherseg.data.synthetic.shapes import COLOURS, SHAPES

SIZES = ("small", "medium", "large")
EXTREMES = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1)}
FROM = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
SCENES = [draw("scenes_ref", index, 7, 96) for index in range(150)]


def centre(target: Target) -> np.ndarray:
    """Centre of gravity (x, y) of the mask, in unit coordinates."""
    rows, columns = np.nonzero(target.mask)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / len(target.mask)


def plain(words: str, objects: list[Target]) -> list[Target]:
    """The objects that size, colour and shape fit."""
    *adjectives, noun = words.removeprefix("the ").split()
    assert noun in (*SHAPES, "object") and set(adjectives) <= {*SIZES, *COLOURS}, words
    return [o for o in objects if all(word in o.attributes.values() for word in adjectives)
            and noun in ("object", o.attributes["shape"])]


def fitting(text: str, objects: list[Target]) -> list[Target]:
    """The objects that an expression fits; "left of" is read as generously as anybody might."""
    text = text.removeprefix("the ")
    if found := re.fullmatch("(.+) at the (.+)", text):
        return [o for o in plain(found[1], objects) if o.attributes["location"] == found[2]]
    if found := re.fullmatch(f"(.+) ({'|'.join(RELATIONS)}) the (.+)", text):
        [landmark] = plain(found[3], objects)
        axis, sign = RELATIONS[found[2]]
        return [o for o in plain(found[1], objects) if o is not landmark
                and sign * (centre(o) - centre(landmark))[axis] > 0.005]
    if found := re.fullmatch("(second|third) (.+) from the (.+)", text):
        axis, sign = FROM[found[3]]
        line = sorted(plain(found[2], objects), key=lambda o: sign * centre(o)[axis])
        return [line[("second", "third").index(found[1]) + 1]]
    first, _, rest = text.partition(" ")
    if first in EXTREMES:
        axis, sign = EXTREMES[first]
        return sorted(plain(rest, objects), key=lambda o: sign * centre(o)[axis])[:1]
    if first in ("largest", "smallest"):
        sign = 1 if first == "largest" else -1
        ranks = [(sign * SIZES.index(o.attributes["size"]), o) for o in plain(rest, objects)]
        return [o for rank, o in ranks if rank == max(rank for rank, _ in ranks)]
    return plain(text, objects)


def kind(text: str) -> str:
    """What an expression uses beyond attributes."""
    for name, pattern in (("location", " at the "), ("relation", "left of|right of|above|below"),
                          ("size", "largest|smallest"), ("order", "most |from the ")):
        if re.search(pattern, text):
            return name
    return "attributes"


@pytest.mark.parametrize("index", range(0, len(SCENES), 10))
def test_every_expression_fits_its_target_and_nothing_else_in_the_picture(index):
    for scene in SCENES[index:index + 10]:
        objects = scene.targets + scene.others
        for number, target in enumerate(scene.targets):
            texts = scene_prompts(scene, number)
            assert set(target.prompts["sentences"]) <= set(texts) and texts[0] == target.unique_prompt
            for text in texts:
                assert fitting(text, objects) == [target], (text, scene.split)


def test_a_relation_is_said_only_of_what_is_clearly_and_mostly_on_that_side():
    checked = 0
    for scene in SCENES:
        for target in scene.targets:
            for text in target.expressions:
                if found := re.fullmatch(f"(.+) ({'|'.join(RELATIONS)}) the (.+)", text):
                    [landmark] = plain(found[3], scene.targets + scene.others)
                    axis, sign = RELATIONS[found[2]]
                    away = centre(target) - centre(landmark)
                    assert sign * away[axis] > max(0.09, abs(away[1 - axis]) - 0.02)
                    checked += 1
    assert checked > 500


def test_an_outermost_object_is_so_by_a_gap():
    for scene in SCENES:
        for target in scene.targets:
            for text in target.expressions:
                first, _, rest = text.partition(" ")
                if first in EXTREMES:
                    axis, _ = EXTREMES[first]
                    away = [abs(centre(o) - centre(target))[axis]
                            for o in plain(rest, scene.targets + scene.others) if o is not target]
                    assert min(away) > 0.05, text


def test_the_kind_of_object_is_never_enough():
    for scene in SCENES:
        objects = scene.targets + scene.others
        for target in scene.targets:
            assert len(plain(target.attributes["shape"], objects)) > 1
            assert 2 <= len(target.prompts["sentences"]) <= 4
            assert len({text.removeprefix("the ") for text in target.prompts["sentences"]}) == len(
                target.prompts["sentences"])


def test_every_way_of_saying_it_occurs_and_is_needed_somewhere():
    sentences = Counter(kind(text) for scene in SCENES for target in scene.targets
                        for text in target.prompts["sentences"])
    assert set(sentences) == {"attributes", "location", "relation", "order", "size"}
    assert min(sentences.values()) > 10
    without_attributes = [target for scene in SCENES for target in scene.targets
                          if not any(kind(text) == "attributes" for text in target.expressions)]
    assert len(without_attributes) > 0.1 * sum(len(scene.targets) for scene in SCENES)


def test_levels_grow_word_by_word_and_need_not_be_unique():
    ambiguous = 0
    for scene in SCENES:
        for target in scene.targets:
            assert list(target.prompts) == [*(f"p{level}" for level in range(7)), "sentences", "unique"]
            assert target.prompts["p1"] == ["object"] and target.prompts["p0"] == [""]
            assert target.attributes["location"] in target.prompts["p6"][0]
            ambiguous += sum(other.attributes == target.attributes for other in scene.targets) > 1
    assert ambiguous


def pairs(scene: Scene) -> set[tuple[str, str]]:
    return {(o.attributes["shape"], o.attributes["colour"]) for o in scene.targets + scene.others}


def test_test_b_asks_for_pairs_of_shape_and_colour_that_the_other_splits_never_show():
    seen = set().union(*(pairs(scene) for scene in SCENES if scene.split != "testB"))
    assert not seen & HELD_OUT
    held_out = [scene for scene in SCENES if scene.split == "testB"]
    for scene in held_out:
        assert scene.targets
        for target in scene.targets:
            assert (target.attributes["shape"], target.attributes["colour"]) in HELD_OUT
    assert any(pairs(scene) - HELD_OUT for scene in held_out)
    shapes, colours = zip(*seen, strict=True)
    assert set(shapes) == set(SHAPES) and set(colours) == set(COLOURS)
    assert Counter(shape for shape, _ in HELD_OUT) == dict.fromkeys(SHAPES, 2)


def test_the_splits_have_their_shares():
    counts = Counter(scene.split for scene in SCENES)
    for split, share in SPLITS.items():
        assert counts[split] / len(SCENES) == pytest.approx(share, abs=0.08)


def test_words_do_not_depend_on_the_size_in_pixels():
    for index in range(10):
        coarse, fine = draw("scenes_ref", index, 0, 24), draw("scenes_ref", index, 0, 160)
        assert [t.expressions for t in coarse.targets] == [t.expressions for t in fine.targets]
        assert (coarse.split, len(coarse.others)) == (fine.split, len(fine.others))


def test_the_prepared_set_has_its_sentences_and_shows_one_in_its_card(tmp_path):
    prepare_synthetic_set("scenes_ref", 30, 48, 3, tmp_path / "set")
    dataset = PreparedDataset.read(tmp_path / "set")
    assert {sample.split for sample in dataset.samples} == set(SPLITS)
    for sample in dataset.samples:
        assert prompt_of(sample, "sentences") == sample.prompts["sentences"][0] == prompt_of(sample, "fullest")
    card = (tmp_path / "set/card.md").read_text()
    assert "| target | train | val | testA | testB | all |" in card and "| sentences |" in card
