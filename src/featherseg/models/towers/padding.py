"""From token ids of any number to the rectangle that a text tower takes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cut(ids: Sequence[int], length: int) -> list[int]:
    """At most `length` token ids of a prompt, the last one (its end token) kept."""
    return [*ids] if len(ids) <= length else [*ids[: length - 1], ids[-1]]


def padded(rows: Sequence[Sequence[int]], fill: int, length: int | None = None) -> "Tensor":
    """Token ids (B, L) of prompts, filled up with `fill` to `length`, or to the longest where that is None."""
    import torch

    length = max(map(len, rows)) if length is None else length
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows], dtype=torch.long)
