"""Everything in a data set encoded once, in batches, and checked before a rank is computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from multiway.abilities import Encoded, Tokens
from multiway.data.examples import Pictures
from multiway.data.source import Source

__all__ = ["BadEmbedding", "checked", "encode_images", "encode_texts", "encode_texts_in_batches"]


class BadEmbedding(ValueError):
    """A model returned embeddings, or tokens in their place, from which no similarity can be computed."""


@torch.no_grad()
def encode_images(
    model: Any, source: Pictures | Source, rows: Sequence[int], batch: int = 256, *, tokens: Tokens = False
) -> Encoded:
    """The pictures of some rows.

    Args:
        model: has `encode_image`, taking Pillow pictures.
        source: where the pictures come from; at most `batch` of them are decoded at a time.
        rows: numbers of rows in `source`.
        batch: pictures per call of the model.
        tokens: keep the token features, for `match`, or only them.

    Returns:
        Embeddings (len(rows), D), L2-normalised; (len(rows), 0) and tokens where the model has no shared space.

    Raises:
        BadEmbedding: if an embedding is not finite or not of length 1.
        BadRow: from the source, if a picture cannot be decoded: leaving it out would change the gallery.
    """
    parts = []
    for start in range(0, len(rows), batch):
        pictures = [source.image(row) for row in rows[start : start + batch]]
        encoded = model.encode_image(pictures, **_kept(tokens))
        parts.append(checked(encoded, len(pictures), "encode_image", start))
    return Encoded.cat(parts)


@torch.no_grad()
def encode_texts(model: Any, texts: Sequence[str], *, tokens: Tokens = False) -> Encoded:
    """As `encode_images`, of strings, in one call: a model sorts them by length, which it can only do with all at hand."""
    return checked(model.encode_text(list(texts), **_kept(tokens)), len(texts), "encode_text", 0)


def encode_texts_in_batches(model: Any, texts: Sequence[str], batch: int = 1024) -> Iterator[Encoded]:
    """As `encode_texts`, a batch at a time, for those who keep only a sum."""
    for start in range(0, len(texts), batch):
        some = list(texts[start : start + batch])
        with torch.no_grad():
            yield checked(model.encode_text(some), len(some), "encode_text", start)


def _kept(tokens: Tokens) -> dict[str, Tokens]:
    """A stand-in for a model that only embeds need not know of tokens."""
    return {"tokens": tokens} if tokens else {}


def checked(encoded: Encoded, rows: int, ability: str, start: int) -> Encoded:
    """What an encoder returned, in float32, if similarities can be computed from it.

    Every comparison with NaN is false, so that a diverged model would outrank its gallery; hence this check.

    Args:
        encoded: of `rows` inputs.
        ability: that returned it, for the message.
        start: number of the first input, for the message.

    Raises:
        BadEmbedding: naming the ability and the first input that came out wrong.
    """
    embedding = encoded.embedding
    if embedding.ndim != 2 or len(embedding) != rows:
        raise BadEmbedding(
            f"`{ability}` was given {rows} inputs and returned {tuple(embedding.shape)}; expected ({rows}, D)"
        )
    embedding = embedding.float()
    if embedding.shape[1] == 0 and encoded.tokens is None:
        raise BadEmbedding(
            f"`{ability}` returned neither embeddings nor tokens for {rows} inputs; a model without a shared space keeps "
            "its tokens: return them in `Encoded.tokens`"
        )
    numbers = embedding if embedding.shape[1] or encoded.tokens is None else encoded.tokens.flatten(1)
    finite = torch.isfinite(numbers).all(dim=1)
    if not finite.all():
        bad = int((~finite).nonzero()[0])
        raise BadEmbedding(
            f"`{ability}` returned nan or inf for {int((~finite).sum())} of {rows} inputs, the first is number {start + bad}; "
            "the weights have probably diverged: load an earlier checkpoint, and run the doctor on the run"
        )
    # bf16 rounds the length by up to 0.4 %.
    length = embedding.norm(dim=1)
    if embedding.shape[1] and ((length - 1).abs() > 0.02).any():
        raise BadEmbedding(
            f"`{ability}` returned embeddings of lengths {float(length.min()):.3g} to {float(length.max()):.3g}; expected 1: "
            "L2-normalise them, so that dot products are cosines"
        )
    return replace(encoded, embedding=embedding)
