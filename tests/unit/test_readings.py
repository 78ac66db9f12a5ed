"""What models read of prompts: which are cut, and which are the same."""

import random

import pytest

from featherseg.config import ModelConfig
from featherseg.models import MODELS, small_model
from featherseg.models.readings import Reading, Readings, as_text, losses

ALIKE = ["lesion", "Lesion", "LESION", "  lesion", "lesion\n", "lesion\t"]
LONG = "in this picture that shows several things which look much alike please find for me nothing but the " * 4


def words(prompts):
    """Two words are read."""
    split = [prompt.split() for prompt in prompts]
    return [Reading(tuple(of[:2]), len(of), max(0, len(of) - 2)) for of in split]


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_says_what_it_reads(name):
    model = small_model(name, 64)
    prompts = [*ALIKE, "left lung", f"{LONG} left lung", f"{LONG} heart"]
    readings = model.read(prompts)
    assert readings == MODELS[name].reader(ModelConfig(name=name, weights="random-small")).read(prompts)
    keys = [reading.key for reading in readings]
    assert len(set(keys[:6])) == 1 and keys[6] not in keys[:6]
    if not model.reads_text:
        assert {reading.lost for reading in readings} == {0} and len(set(keys)) == 4
        return
    assert all(reading.tokens == len(ids) for reading, ids in zip(readings, model.token_ids(prompts), strict=True))
    assert [reading.lost > 0 for reading in readings] == [len(ids) > model.most_tokens
                                                          for ids in model.token_ids(prompts)]
    # what is the same by `read` is the same to the towers: equal rows of tokens, and only then
    rows = [tuple(row) for row in model.tokenize(prompts).tolist()]
    assert [[a == b for b in rows] for a in rows] == [[a == b for b in keys] for a in keys]


def test_prompts_of_unknown_tokens_are_folded():
    readings = Readings(as_text, ["left lung", *ALIKE])
    assert {readings.same(prompt) for prompt in ALIKE} == {readings.same("LesioN")} != {readings.same("left lung")}
    assert not readings.is_cut(LONG * 100)


def test_what_stands_for_a_prompt_does_not_depend_on_their_order():
    for seed in range(5):
        mixed = random.Random(seed).sample(ALIKE, len(ALIKE))
        assert {Readings(as_text, mixed).same(prompt) for prompt in ALIKE} == {"  lesion"}
    alone = ["a", "b", "c d"]
    assert [Readings(as_text, alone).same(prompt) for prompt in alone] == alone


def test_losses_are_counted_by_different_texts_and_said():
    prompts = ["one two three", "one two four", "one two four", "one two", "five six seven", "eight"]
    counted = Readings(words, prompts).count(prompts)
    assert counted == {"n": 5, "cut": 3, "limit": 2, "alike": 3, "first_cut": ["five six seven"],
                       "first_alike": ["one two", "one two four"]}
    assert losses(counted) == [
        "3 of 5 different prompts are cut after 2 tokens, such as 'five six seven'.",
        "3 of 5 different prompts are the same to the model as another one, such as 'one two' and 'one two four'; such "
        "prompts count as one."]
    assert losses(Readings(words).count(["a", "b c"])) == []
