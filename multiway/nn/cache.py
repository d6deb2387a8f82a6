"""Keys and values that attention has projected, kept so that they are projected once.

A decoder that writes a text word by word looks at each earlier word again at every step: its keys and values grow by a row
a step. The picture that it looks at does not change: its keys and values are projected at the first step, or once for
several passes of training that look at the same pictures with the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BlockCache", "Cache", "KeyValues"]


class KeyValues:
    """Keys and values of one attention, (R, H, M, D) each, M growing with every `extend`."""

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    @property
    def length(self) -> int:
        """M, the number of keys so far. As a property it stays open where a graph is traced for any length; `len` has to know it."""
        return 0 if self.key is None else self.key.shape[2]

    def __len__(self) -> int:
        return self.length

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep (R, H, N, D) more keys and values, and give all that there are."""
        if self.key is not None and self.value is not None:
            key, value = torch.cat([self.key, key], 2), torch.cat([self.value, value], 2)
        self.key, self.value = key, value
        return key, value

    def read(self) -> tuple[Tensor, Tensor]:
        """All that there are.

        Raises:
            ValueError: if nothing has been kept yet.
        """
        if self.key is None or self.value is None:
            raise ValueError("no keys and values are kept yet; pass the memory at the first call")
        return self.key, self.value

    def select(self, rows: Tensor) -> None:
        """Rows become rows[...], repeated as often as they occur."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key.index_select(0, rows), self.value.index_select(0, rows)


class BlockCache:
    """Of one block: what its self-attention has seen so far, and the memory it looks at.

    Attributes:
        own: of self-attention; None where every call is a text of its own and only the memory is shared.
        memory: of the attention over a memory.
    """

    def __init__(self, own: KeyValues | None, memory: KeyValues) -> None:
        self.own, self.memory = own, memory


class Cache:
    """Of a stack of blocks.

    Args:
        layers: number of blocks.
        grows: keep what self-attention sees, for decoding; False shares the memory's keys and values alone.

    Attributes:
        blocks: a `BlockCache` for each block.
        memory_mask: (P, M) bool, given with the memory at the first call; None when all of it counts.
    """

    def __init__(self, layers: int, grows: bool = True) -> None:
        self.blocks = [BlockCache(KeyValues() if grows else None, KeyValues()) for _ in range(layers)]
        self.memory_mask: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of positions that are behind; see `KeyValues.length`."""
        own = self.blocks[0].own if self.blocks else None
        return 0 if own is None else own.length

    def __len__(self) -> int:
        return self.length

    @property
    def seen(self) -> bool:
        """Whether any block has the memory's keys and values."""
        return any(block.memory.key is not None for block in self.blocks)

    def select(self, rows: Tensor, memories: Tensor | None = None) -> None:
        """Texts become rows[...]; memories become memories[...], or stay.

        There may be fewer memories than texts, each serving equally many texts in a row.
        """
        for block in self.blocks:
            if block.own is not None:
                block.own.select(rows)
            if memories is not None:
                block.memory.select(memories)
        if memories is not None and self.memory_mask is not None:
            self.memory_mask = self.memory_mask[memories]
