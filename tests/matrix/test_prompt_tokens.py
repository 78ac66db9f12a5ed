"""Learned tokens: the towers walk them, nobody else sees them, and every other token stays where it was."""

import pytest
import torch
from pairs import PROMPTS, batch, small

from featherseg import adapters
from featherseg.adapters import trainable
from featherseg.models.base import LearnedTokens


def prompted(name: str, **knobs):
    model = adapters.apply(small(name), {"name": "prompt", **knobs}, seed=1)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.1)
    return model


def test_tokens_stand_behind_the_first_one_and_are_taken_out_again():
    tokens, states = LearnedTokens(2, 3), torch.randn(4, 5, 3)
    inserted = tokens.insert(states)
    assert inserted.shape == (4, 7, 3) and torch.equal(inserted[2, 1:3], tokens.tokens)
    assert torch.equal(inserted[:, 0], states[:, 0]) and torch.equal(inserted[:, 3:], states[:, 1:])
    assert torch.equal(tokens.remove(inserted), states)


def test_without_tokens_nothing_is_added_and_nothing_is_computed():
    tokens, states = LearnedTokens(), torch.randn(4, 5, 3)
    assert tokens.insert(states) is states and tokens.remove(states) is states
    assert not list(tokens.parameters())


def test_clipsegs_text_tower_with_learned_tokens_is_the_same_written_out():
    model = prompted("clipseg", tokens_text=3, tokens_vision=0)
    _, tokens, _ = batch(model)
    tower = model.net.clip.text_model
    with torch.no_grad():
        words = tower.embeddings(input_ids=tokens)  # with the positions that they have without learned tokens
        learned = model.text_prompt.tokens.expand(len(tokens), -1, -1)
        states = torch.cat([words[:, :1], learned, words[:, 1:]], dim=1)
        length = states.shape[1]
        allowed = torch.ones(length, length).tril().log()  # 0 at what may be seen, else -inf
        for block in tower.encoder.layers:
            states = block(states, allowed[None, None])
        last = torch.stack([row[place + 3] for row, place in zip(states, tokens.argmax(-1), strict=True)])
        expected = model.net.clip.text_projection(tower.final_layer_norm(last))
        torch.testing.assert_close(model.encode_text(tokens).sentence, expected)


def test_clipsegs_vision_tower_with_learned_tokens_is_the_same_written_out():
    model = prompted("clipseg", tokens_vision=3, tokens_text=0)
    pixels, *_ = batch(model)
    tower = model.net.clip.vision_model
    with torch.no_grad():
        patches = tower.embeddings(pixels)
        learned = model.vision_prompt.tokens.expand(len(pixels), -1, -1)
        states = tower.pre_layrnorm(torch.cat([patches[:, :1], learned, patches[:, 1:]], dim=1))
        for block in tower.encoder.layers[:3]:
            states = block(states, None)
        expected = torch.cat([states[:, :1], states[:, 4:]], dim=1)
        torch.testing.assert_close(model.encode_image(pixels).taps[-1], expected)


@pytest.mark.parametrize("name", ["clipseg", "biomedclipseg", "etris_vit", "etris_r50"])
def test_the_decoder_gets_features_of_the_same_shapes(name):
    plain, tuned = small(name), prompted(name)
    pixels, tokens, _ = batch(plain)
    with torch.no_grad():
        pictures, prompts = plain.encode(pixels, tokens)
        for before, after in zip((pictures, prompts), tuned.encode(pixels, tokens), strict=True):
            assert [tap.shape for tap in before.taps] == [tap.shape for tap in after.taps]
            is_tuned = name != "etris_r50" or before is not pictures
            # on some processors the last digit depends on where in memory a tensor lies
            assert torch.allclose(before.taps[-1], after.taps[-1], rtol=0, atol=1e-6) != is_tuned


def test_a_longer_batch_changes_no_prompt_with_learned_tokens_since_the_text_tower_stays_causal():
    model = prompted("clipseg")
    together = model.encode_text(model.tokenize(PROMPTS)).sentence
    for row, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(model.encode_text(model.tokenize([prompt])).sentence[0], together[row])
