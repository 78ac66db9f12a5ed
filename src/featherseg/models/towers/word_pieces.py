"""BERT's tokenizer (word pieces, lower case) from a vocabulary file, by the `tokenizers` library.

Without a vocabulary words are spelled out in letters: enough for random and small weights, which know no words.
"""

import functools
import string
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featherseg.core.errors import UserError
from featherseg.core.files import read_text
from featherseg.models.readings import PromptReader
from featherseg.models.weights import is_random, weights_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "vocab.txt"
PAD, UNKNOWN, START, END = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_CHARACTERS = (*string.ascii_lowercase, *string.digits, *string.punctuation)
SPELLING = (*SPECIAL, *_CHARACTERS, *(f"##{character}" for character in _CHARACTERS))


def read_vocabulary(file: Path) -> tuple[str, ...]:
    """The word pieces of a file with one a line, in the order of their ids.

    Raises:
        UserError: the file is absent or unreadable, lacks a special token, or does not begin with the pad token.
    """
    pieces = tuple(read_text(file).removesuffix("\n").split("\n"))
    missing = [token for token in SPECIAL if token not in pieces]
    if missing or pieces[0] != PAD or len(set(pieces)) < len(pieces):
        fault = f"lacks {', '.join(missing)}" if missing else f"should hold each piece once, {PAD} first"
        raise UserError(f"{file} {fault}; put the weights' own {FILE} there.")
    return pieces


def vocabulary_of(weights: str, count: int) -> tuple[str, ...]:
    """The word pieces of a text tower that knows `count`: those beside its weights, or letters where it spells words.

    Raises:
        UserError: there are no weights, or the file beside them is absent or unreadable, or has another number of
            pieces.
    """
    if is_random(weights):
        return SPELLING
    file = weights_file(weights).parent / FILE
    if count == len(SPELLING) and not file.is_file():
        return SPELLING
    vocabulary = read_vocabulary(file)
    if len(vocabulary) != count:
        raise UserError(f"{file} has {len(vocabulary)} word pieces, but the weights beside it know {count}; put the "
                        f"weights' own {FILE} there.")
    return vocabulary


def word_piece_tokenizer(vocabulary: Sequence[str]) -> "Tokenizer":
    """BERT's tokenizer, [CLS] and [SEP] around a prompt; nothing is cut."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    places = {piece: place for place, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(vocab=places, unk_token=UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, places[START]), (END, places[END])])
    return tokenizer


def word_piece_reader(vocabulary: Sequence[str], most_tokens: int) -> PromptReader:
    """How prompts are read in these word pieces, and cut after so many."""
    return PromptReader(functools.partial(_token_ids, word_piece_tokenizer(vocabulary)), most_tokens)


def _token_ids(tokenizer: "Tokenizer", prompts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(list(prompts))]
