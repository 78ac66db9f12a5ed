"""CLIP's byte-pair tokenizer, from the vocabulary that open_clip ships: no download is needed.

open_clip's own tokenizer class is equal to it (tested), but importing open_clip takes seconds, so only its
vocabulary file is read, and the `tokenizers` library does the work.
"""

import functools
import gzip
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F

START, END, CONTEXT = "<|startoftext|>", "<|endoftext|>", 77
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_MERGES = 49152 - 256 - 2


@functools.cache
def clip_tokenizer() -> Tokenizer:
    """CLIP's tokenizer: lower case, start and end tokens, cut after 77 tokens with the end token kept."""
    package = Path(importlib.util.find_spec("open_clip").origin).parent
    lines = gzip.decompress((package / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
    characters = _byte_characters()
    tokens = [*characters, *(c + "</w>" for c in characters), *("".join(pair) for pair in merges), START, END]
    tokenizer = Tokenizer(models.BPE(vocab={token: k for k, token in enumerate(tokens)}, merges=merges,
                                     end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)])
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(pad_id=end, pad_token=END)
    return tokenizer


def tokenize(prompts: Sequence[str]) -> Tensor:
    """Token ids (B, L) of prompts, L at most 77, padded with the end token to the longest of the batch."""
    return torch.tensor([encoding.ids for encoding in clip_tokenizer().encode_batch(list(prompts))])


def tokenize_fixed(prompts: Sequence[str], length: int, fill_with_end: bool = False) -> Tensor:
    """Token ids (B, length) of prompts, cut with the end token kept, or padded with 0 (or with the end token)."""
    tokens = tokenize(prompts)
    end_token, ends = tokens.max(), tokens.argmax(dim=1).clamp(max=length - 1)
    tokens = F.pad(tokens, (0, max(0, length - tokens.shape[1])))[:, :length]
    tokens[torch.arange(len(tokens)), ends] = end_token
    return tokens.masked_fill(torch.arange(length) > ends.unsqueeze(1), end_token if fill_with_end else 0)


def _byte_characters() -> list[str]:
    """The printable stand-ins of the 256 bytes, in CLIP's vocabulary order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + k) for k in range(256 - len(printable))]
