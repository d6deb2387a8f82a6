"""Which tokens of a text spell its words, for the tasks that ask about words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

__all__ = ["spelled"]


def spelled(ids: Tensor, starts: Tensor, real: Tensor, tokenizer: Any) -> Iterator[tuple[str, int, int]]:
    """The words of one text and the tokens [start, stop) that spell each; special tokens and padding belong to none.

    Args:
        ids: (L,) int64.
        starts, real: (L,) bool, True where a word begins, and at tokens that are not padding.
        tokenizer: of the ids.
    """
    special = set(tokenizer.special.values())
    inner = [place for place in range(len(ids)) if real[place] and int(ids[place]) not in special]
    first = [place for place in inner if starts[place]]
    for start, stop in zip(first, [*first[1:], inner[-1] + 1 if inner else 0], strict=True) if first else ():
        yield tokenizer.decode(ids[start:stop].tolist()), start, stop
