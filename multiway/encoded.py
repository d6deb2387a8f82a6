"""What encoding gives: vectors, tokens, or both, of one side of a batch. This module imports nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Encoded", "Tokens"]

Tokens = bool | Literal["only"]
"""Whether token features are kept; `"only"` where nothing but they is needed: for `fuse`, and heads on it."""


@dataclass
class Encoded:
    """One side of a batch, encoded.

    There are three kinds of methods, and the width of the embedding tells them apart:

    - D > 0: pictures and texts share a space, and what `compare` gives is the dot product of embeddings (CLIP, ALBEF).
    - D = 0 and the method has `compare`: pictures and texts are compared by their tokens (FILIP).
    - D = 0 and it has not: nothing is known of a pair before it is read together, by `match` (ViLT).

    Without an embedding the tokens are all there is, so that they are never dropped.

    Attributes:
        embedding: (B, D) L2-normalised, in the space that both modalities share: dot products are cosines. (B, 0) where
            there is no such space.
        tokens: (B, N, W) last-layer token features, before pooling; None if not kept. Where pictures and texts are compared
            by tokens, each is L2-normalised in the space of comparison, W wide on both sides.
        mask: (B, N) bool, True at tokens that are not padding; None when all count.
        ids: (B, N) token ids for text; None for images.
        memory: (B, M, W) what a decoder reads of pictures, where a method makes it of their tokens and it is the same for every text;
            None if not kept.
    """

    embedding: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    ids: Tensor | None = None
    memory: Tensor | None = None

    @property
    def has_embedding(self) -> bool:
        """Whether a row is summed up by one vector, so that dot products compare it."""
        return self.embedding.shape[1] > 0

    def slim(self) -> Encoded:
        """The embedding alone, for those who only compare; everything where there is no embedding."""
        return Encoded(self.embedding) if self.has_embedding else self

    @staticmethod
    def cat(parts: Sequence[Encoded]) -> Encoded:
        """Several batches, one after another. Tokens of texts are padded to the longest, and masked there."""
        embedding = torch.cat([part.embedding for part in parts])
        if any(part.tokens is None for part in parts):
            return Encoded(embedding)
        length = max(part.tokens.shape[1] for part in parts if part.tokens is not None)

        def join(name: str, empty: float) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            if any(tensor is None for tensor in tensors):
                return None
            longest = [t.new_full((len(t), length - t.shape[1], *t.shape[2:]), empty) for t in tensors]
            return torch.cat([torch.cat([t, more], 1) for t, more in zip(tensors, longest, strict=True)])

        read = [part.memory for part in parts if part.memory is not None]
        memory = torch.cat(read) if len(read) == len(parts) else None
        return Encoded(embedding, join("tokens", 0), join("mask", False), join("ids", 0), memory)

    def rows(self, index: Tensor) -> Encoded:
        """The rows numbered by `index` (n,), repeated as often as they occur in it.

        Texts are cut to the longest of them, so that a batch of short texts computes nothing for long ones.
        """
        mask = None if self.mask is None else self.mask[index]
        stop = None if mask is None else int(mask.sum(1).max()) if len(index) else 0

        def pick(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[index][:, :stop]

        memory = None if self.memory is None else self.memory[index]
        return Encoded(
            self.embedding[index], pick(self.tokens), None if mask is None else mask[:, :stop], pick(self.ids), memory
        )

    def to(self, device: torch.device | str) -> Encoded:
        """The same on another device."""
        rest = (None if t is None else t.to(device) for t in (self.tokens, self.mask, self.ids, self.memory))
        return Encoded(self.embedding.to(device), *rest)
