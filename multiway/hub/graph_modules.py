"""What graphs are traced from: small modules over a method, tensors in and a tuple of tensors out.

A method takes and gives `Encoded`, caches and settings; a graph knows tensors alone. Nothing is computed here but what the method computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multiway.abilities import Encoded, reader
from multiway.nn.cache import BlockCache, Cache

__all__ = [
    "Answer",
    "Classify",
    "Compare",
    "Image",
    "Kept",
    "Match",
    "MatchPixels",
    "Prefill",
    "Step",
    "Text",
    "Write",
    "cached",
]


class _Over(nn.Module):
    """A method, held under one name."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method


class _Encoder(_Over):
    """One side's embedding and tokens, those of them that there are; outputs are named after the side."""

    side: str

    def __init__(self, method: Any, given: Encoded) -> None:
        super().__init__(method)
        has = {"embedding": given.has_embedding, "tokens": given.tokens is not None and given.tokens.shape[-1] > 0}
        self._has = tuple(name for name, there in has.items() if there)
        self.names = tuple(f"{self.side}_{name}" for name in self._has)

    def _of(self, encoded: Encoded) -> tuple[Tensor, ...]:
        return tuple(getattr(encoded, name) for name in self._has)


class Image(_Encoder):
    """(B, 3, S, S) pixels -> embedding (B, D), tokens (B, N, W)."""

    side = "image"

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return self._of(self.method.encode_image(pixels))


class Text(_Encoder):
    """(B, L) ids and mask -> embedding (B, D), tokens (B, L, W)."""

    side = "text"

    def __init__(self, method: Any) -> None:
        super().__init__(
            method, method.encode_text(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool))
        )

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        return self._of(self.method.encode_text(ids, mask))


class Compare(_Over):
    """Tokens of P pictures (P, N, D) and T texts (T, L, D) -> (P, T), as pictures ask and as texts do."""

    def forward(self, image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        image, text = _shown(image_tokens), Encoded(text_tokens[:, 0, :0], text_tokens, text_mask)
        return self.method.compare(image, text, "image"), self.method.compare(image, text, "text")


class Match(_Over):
    """(B, N, W) tokens of pictures with (B, L) ids and mask -> (B,) log-odds that they are pairs."""

    def forward(self, image_tokens: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor]:
        return (self.method.match(_shown(image_tokens), reader(self.method, "text", "only")(ids, mask)),)


class _FromPixels(_Over):
    """Of pictures and texts, each pair read from the beginning."""

    ask: str

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor]:
        image, text = self.method.encode_image(pixels), reader(self.method, "text", "only")(ids, mask)
        return (getattr(self.method, self.ask)(image, text),)


class MatchPixels(_FromPixels):
    """(B, 3, S, S) pixels with (B, L) ids and mask -> (B,) log-odds that they are pairs."""

    ask = "match"


class Answer(_FromPixels):
    """(B, 3, S, S) pixels with (B, L) ids and mask of questions -> (B, A) scores of answers."""

    ask = "answer"


class Classify(_Over):
    """(B, 3, S, S) pixels -> (B, K) scores of classes."""

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.method.classify(self.method.encode_image(pixels)),)


@dataclass(frozen=True)
class Kept:
    """Keys or values of one attention in a cache.

    Attributes:
        name: `BLOCK.decoder.key`, `BLOCK.encoder.value`, ...: of what is written, and of the picture, as `transformers` calls them.
        block: its number.
        grows: whether it is of what is written.
        heads, length, width: of (B, heads, length, width); what grows is so much longer than the number of tokens that were read.
    """

    name: str
    block: int
    grows: bool
    value: bool
    heads: int
    length: int
    width: int


def cached(cache: Cache, read: int) -> list[Kept]:
    """What a cache holds after the first `read` tokens, in the order of inputs and outputs."""
    found = []
    for number, block in enumerate(cache.blocks):
        for grows, of in ((True, block.own), (False, block.memory)):
            if of is None or of.key is None or of.value is None:
                continue
            _, heads, length, width = of.key.shape
            for value in (False, True):
                name = f"{number}.{'decoder' if grows else 'encoder'}.{'value' if value else 'key'}"
                found.append(Kept(name, number, grows, value, heads, length - read if grows else length, width))
    return found


class Prefill(_Over):
    """(B, N, W) tokens of pictures and (B, L) first ids -> (B, V) logits of the next, and all keys and values."""

    def forward(self, image_tokens: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        decoding = self.method.writing(_shown(image_tokens)).decoding
        logits = decoding.step(ids)
        return (logits, *_held(decoding.cache))


class Step(_Over):
    """(B, 1) the token that was written last, with keys and values -> (B, V) logits of the next, and what has grown.

    Args:
        kept: what is handed in, in this order.
    """

    def __init__(self, method: Any, kept: Sequence[Kept]) -> None:
        super().__init__(method)
        self.kept = tuple(kept)

    def forward(self, ids: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        # The picture is in the cache; what stands for it here says how many there are.
        there = past[0][:, 0, :1]
        decoding = self.method.writing(Encoded(there[:, 0, :0], there, memory=there)).decoding
        for kind, tensor in zip(self.kept, past, strict=True):
            block: BlockCache = decoding.cache.blocks[kind.block]
            of = block.own if kind.grows else block.memory
            assert of is not None
            if kind.value:
                of.value = tensor
            else:
                of.key = tensor
        logits = decoding.step(ids)
        return (logits, *_held(decoding.cache, growing=True))


class Write(_Over):
    """(B, N, W) tokens of pictures and (B, L) all ids so far -> (B, V) logits of the next."""

    def forward(self, image_tokens: Tensor, ids: Tensor) -> tuple[Tensor]:
        return (self.method.writing(_shown(image_tokens)).decoding.step(ids),)


def _shown(tokens: Tensor) -> Encoded:
    return Encoded(tokens[:, 0, :0], tokens)


def _held(cache: Cache, growing: bool = False) -> list[Tensor]:
    """Keys and values in the order of `cached`; those that grow alone, if so."""
    held: list[Tensor] = []
    for block in cache.blocks:
        for of in (block.own,) if growing else (block.own, block.memory):
            if of is not None and of.key is not None and of.value is not None:
                held += [of.key, of.value]
    return held
