"""CLIP's byte-pair tokenizer, from the vocabulary that open_clip ships: no download is needed.

Text is cleaned as OpenAI's tokenizer cleans it, which ETRIS, CRIS and DETRIS use: ftfy repairs mojibake, ligatures and
full-width letters, HTML entities are resolved (twice), white space is folded and letters are made small. open_clip's
own class is equal to it (tested), but importing open_clip takes seconds, so only its vocabulary file is read, and the
`tokenizers` library does the work. The fast tokenizer of transformers, which CLIPSeg's and MedVLSM's code uses, skips
ftfy and the entities: its tokens are the same for text that these leave alone.
"""

import functools
import gzip
import html
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
END_ID, CONTEXT = 49407, 77
WORD_LENGTHS = (17, 22, 32, CONTEXT)  # after which models cut a prompt
_WORDS = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_MERGES = 49152 - 256 - 2


@functools.cache
def clip_tokenizer() -> "Tokenizer":
    """CLIP's tokenizer of clean text, start and end tokens around it; nothing is cut."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    package = _folder_of("open_clip")
    lines = gzip.decompress((package / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode().split("\n")
    merges = [_pair(line) for line in lines[1 : _MERGES + 1]]
    characters = _byte_characters()
    last_characters = [f"{character}</w>" for character in characters]
    tokens = [*characters, *last_characters, *map("".join, merges), START, END]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>",
                                     continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)])
    return tokenizer


def clip_token_ids(prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt in full, start and end included."""
    encodings = clip_tokenizer().encode_batch(list(map(clean, prompts)))
    return [encoding.ids for encoding in encodings]


def clean(prompt: str) -> str:
    """A prompt as OpenAI's tokenizer cleans it; a special token's name in it is text like any other."""
    if not (prompt.isascii() and prompt.isprintable() and "&" not in prompt):  # else nothing needs repair
        import ftfy

        prompt = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return " ".join(prompt.split()).lower()


def _folder_of(package: str) -> Path:
    """Where an installed package is, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    return Path(spec.origin).parent


def _pair(line: str) -> tuple[str, str]:
    """The two tokens that a line of the vocabulary file merges."""
    first, second = line.split()
    return first, second


def _byte_characters() -> list[str]:
    """The printable stand-ins of the 256 bytes, in CLIP's vocabulary order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_ins = range(256, 512 - len(printable))  # for the bytes that print nothing
    return list(map(chr, (*printable, *stand_ins)))
