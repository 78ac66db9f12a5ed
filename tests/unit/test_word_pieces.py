"""BERT's tokenizer from a vocabulary, and without one."""

import pytest

from featherseg.models.towers.padding import cut
from featherseg.models.towers.word_pieces import SPELLING, read_vocabulary, word_piece_tokenizer

WORDS = ("one", "large", "polyp", "##s", "in", "the", "left", ",", "-", ".", "##al", "dist", "cafe", "3", "##5", "心")
VOCABULARY = (*SPELLING[:4], "[MASK]", *WORDS)
PROMPTS = ["", "polyp", "One LARGE polyps, in the left.", "distal-left  \t polyp", "café\u0301 35 心臓", "unknownword",
           "x" * 101, "polyp " * 500]


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_it_is_the_librarys_bert_tokenizer(prompt):
    from transformers import BertTokenizer

    reference = BertTokenizer(vocab={word: place for place, word in enumerate(VOCABULARY)})
    expected = reference(prompt, max_length=256, truncation=True)["input_ids"]
    assert cut(word_piece_tokenizer(VOCABULARY).encode(prompt).ids, 256) == expected


def test_a_special_token_in_a_prompt_is_text():
    assert word_piece_tokenizer(VOCABULARY).encode("the [SEP] left [PAD]").ids.count(3) == 1


def test_without_a_vocabulary_words_are_spelled_out():
    pieces = word_piece_tokenizer(SPELLING).encode("Polyp, 5 mm").tokens
    assert pieces == ["[CLS]", "p", "##o", "##l", "##y", "##p", ",", "5", "m", "##m", "[SEP]"]


def test_a_vocabulary_file_is_read_in_the_order_of_its_ids(tmp_path):
    for text in ("\n".join(VOCABULARY), "\n".join(VOCABULARY) + "\n"):
        (tmp_path / "vocab.txt").write_text(text, encoding="utf-8")
        assert read_vocabulary(tmp_path / "vocab.txt") == VOCABULARY
