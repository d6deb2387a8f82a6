"""What a decoder offers to whoever writes texts with it: the next token's logits, and a reordering of the texts.

`Cached` serves decoders whose earlier tokens do not change by what follows (causal ones): each token is computed once.
`Recomputed` serves the others, and is the slow twin of the first in tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from multiway.nn.cache import Cache

__all__ = ["Cached", "Decoding", "Recomputed"]


class Decoding(Protocol):
    """Texts that are being written."""

    def step(self, ids: Tensor) -> Tensor:
        """(R, n) further tokens of each text, prompts at the first call -> (R, V) logits of the token after them."""

    def select(self, rows: Tensor) -> None:
        """Texts become rows[...] (R',), repeated as often as they occur; what is left out is not computed again."""


class Cached:
    """A decoder with a cache.

    The pictures' keys and values are kept once each as long as equally many texts look at each of them, which is so for the
    beams of beam search.

    Args:
        next_logits: (R, n) ids and the cache of what came before -> (R, V). It extends the cache, and hands over the
            memory at the first call alone.
        layers: number of blocks.
        memories: P, rows of the memory; the first texts are one for each.
        device: of the ids.
    """

    def __init__(
        self, next_logits: Callable[[Tensor, Cache], Tensor], layers: int, memories: int, device: torch.device
    ) -> None:
        self.next_logits = next_logits
        self.cache = Cache(layers)
        self.memory = torch.arange(memories, device=device)

    def step(self, ids: Tensor) -> Tensor:
        """See `Decoding`."""
        return self.next_logits(ids, self.cache)

    def select(self, rows: Tensor) -> None:
        """See `Decoding`."""
        looked_at = self.memory[rows]
        used, counts = torch.unique_consecutive(looked_at, return_counts=True)
        if bool((counts == counts[:1]).all()):
            every = int(self.memory.max()) + 1
            same = len(used) == every and bool((used == torch.arange(every, device=used.device)).all())
            self.memory = torch.arange(len(used), device=used.device).repeat_interleave(counts)
            self.cache.select(rows, None if same else used)
        else:
            self.memory = torch.arange(len(rows), device=rows.device)
            self.cache.select(rows, looked_at)


class Recomputed:
    """A decoder that reads the whole text again at every step.

    Args:
        next_logits: (R, L) all ids so far and (R,) the memory's row for each text -> (R, V).
        memories: P; the first texts are one for each.
        device: of the ids.
    """

    def __init__(self, next_logits: Callable[[Tensor, Tensor], Tensor], memories: int, device: torch.device) -> None:
        self.next_logits = next_logits
        self.ids = torch.empty(memories, 0, dtype=torch.int64, device=device)
        self.memory = torch.arange(memories, device=device)

    def step(self, ids: Tensor) -> Tensor:
        """See `Decoding`."""
        self.ids = torch.cat([self.ids, ids], 1)
        return self.next_logits(self.ids, self.memory)

    def select(self, rows: Tensor) -> None:
        """See `Decoding`."""
        self.ids, self.memory = self.ids[rows], self.memory[rows]
