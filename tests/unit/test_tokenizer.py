"""CLIP's tokenizer from open_clip's vocabulary file."""

import pytest
import torch

from featherseg.models.tokenizer import clip_tokenizer, tokenize, tokenize_fixed

PROMPTS = [
    "", "polyp", "one medium yellow round polyp, located in right of the image", "  A  RED Circle's!! ",
    "don't it's we'll 123 4x5", "Left ventricular cavity in two-chamber view of the heart.", "x\n\ty", "a&b",
    "naïve café — ünïcode 心臓 😀", "Größe: 3 cm²", "word " * 500,
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_it_is_open_clips_tokenizer(prompt):
    open_clip = pytest.importorskip("open_clip", reason="open_clip's own tokenizer is the reference")
    reference = open_clip.tokenizer.SimpleTokenizer()([prompt])[0]
    ours = tokenize([prompt])[0]
    assert ours.tolist() == reference[reference != 0].tolist()


def test_a_batch_is_padded_with_the_end_token_to_its_longest():
    tokens = tokenize(["circle", "one large circle at the top"])
    end = clip_tokenizer().token_to_id("<|endoftext|>")
    assert tokens.shape == (2, 8) and tokens.dtype == torch.long
    assert tokens[0].tolist()[2:] == [end] * 6 and tokens[1, -1] == end


def test_a_prompt_of_500_words_is_cut_with_its_end_token_kept():
    tokens = tokenize(["polyp " * 500])
    assert tokens.shape == (1, 77)
    assert tokens[0, -1] == clip_tokenizer().token_to_id("<|endoftext|>")


@pytest.mark.parametrize("length", [5, 17, 77])
def test_a_fixed_length_is_open_clips(length):
    open_clip = pytest.importorskip("open_clip", reason="open_clip's own tokenizer is the reference")
    reference = open_clip.tokenizer.SimpleTokenizer(context_length=length)(PROMPTS)
    assert tokenize_fixed(PROMPTS, length).tolist() == reference.tolist()
