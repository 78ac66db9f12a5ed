"""CLIP's tokenizer from open_clip's vocabulary file."""

import json

import pytest
import torch

from featherseg.models.towers.padding import cut, padded
from featherseg.models.towers.tokenizer import CONTEXT, END, END_ID, START, clip_token_ids, clip_tokenizer

PROMPTS = [
    "", "polyp", "one medium yellow round polyp, located in right of the image", "  A  RED Circle's!! ",
    "don't it's we'll 123 4x5", "Left ventricular cavity in two-chamber view of the heart.", "x\n\ty", "a&b",
    "naïve café — ünïcode 心臓 😀", "Größe: 3 cm²", "word " * 500,
]


# what ftfy, HTML's entities and white space change, and names of special tokens
UNCLEAN = [
    "schÃ¶n", "ﬁbrous ﬂat", "ＦＵＬＬ ｗｉｄｔｈ １２", "&lt;polyp&gt; &amp;amp; lesion", "l‘esion “a” don’t",
    "x\u00a0y\u2003z",
    "\x1b[31mred\x1b[0m", "\ufeffbom", "a\x00b", "ΟΔΟΣ İstanbul", "a<|endoftext|>b", "<|startoftext|> x", "a\u0085b",
]


@pytest.fixture(scope="module")
def reference():
    """open_clip's own tokenizer, which never cuts at so many tokens."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip's own tokenizer is the reference")
    return open_clip.tokenizer.SimpleTokenizer(context_length=2000)


@pytest.mark.parametrize("prompt", PROMPTS + UNCLEAN)
def test_it_is_open_clips_tokenizer(reference, prompt):
    (ours,) = clip_token_ids([prompt])
    assert ours == [ours[0], *reference.encode(prompt), END_ID] and ours[0] == clip_tokenizer().token_to_id(START)


def test_of_clean_text_it_is_transformers_tokenizer():
    from transformers import CLIPTokenizer

    model = json.loads(clip_tokenizer().to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    theirs = CLIPTokenizer(vocab=model["vocab"], merges=merges, bos_token=START, eos_token=END, pad_token=END)
    assert theirs(PROMPTS)["input_ids"] == clip_token_ids(PROMPTS)
    assert theirs("ﬁbrous &amp; flat")["input_ids"] != clip_token_ids(["ﬁbrous &amp; flat"])[0]


def test_a_batch_is_padded_to_its_longest_or_to_a_length():
    ids = clip_token_ids(["circle", "one large circle at the top"])
    tokens = padded(ids, END_ID)
    assert tokens.shape == (2, 8) and tokens.dtype == torch.long
    assert tokens[0].tolist()[2:] == [END_ID] * 6 and tokens[1, -1] == END_ID
    assert padded(ids, 0, 10).tolist() == [[*row, *[0] * (10 - len(row))] for row in ids]
    assert padded([[], []], 0).shape == (2, 0)


@pytest.mark.parametrize("length", [5, 17, CONTEXT])
def test_a_cut_prompt_keeps_its_end_token_as_open_clips_does(length):
    open_clip = pytest.importorskip("open_clip", reason="open_clip's own tokenizer is the reference")
    expected = open_clip.tokenizer.SimpleTokenizer(context_length=length)(PROMPTS)
    ours = padded([cut(ids, length) for ids in clip_token_ids(PROMPTS)], 0, length)
    assert ours.tolist() == expected.tolist()
