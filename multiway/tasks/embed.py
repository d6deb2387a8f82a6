"""Everything in a data set encoded once, in batches, and checked before a rank is computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from multiway.abilities import Encoded
from multiway.data.source import Source

__all__ = ["BadEmbedding", "embed_images", "embed_texts", "embed_texts_in_batches", "encode_images", "encode_texts"]


class BadEmbedding(ValueError):
    """A model returned embeddings from which no cosine can be computed."""


@torch.no_grad()
def encode_images(model: Any, source: Source, rows: Sequence[int], batch: int = 256) -> Encoded:
    """As `embed_images`, with the token features kept for `match`, on the CPU."""
    parts = []
    for start in range(0, len(rows), batch):
        pictures = [source.image(row) for row in rows[start : start + batch]]
        encoded = model.encode_image(pictures, tokens=True)
        _checked(encoded.embedding, len(pictures), "encode_image", start)
        parts.append(encoded)
    return Encoded.cat(parts)


@torch.no_grad()
def encode_texts(model: Any, texts: Sequence[str]) -> Encoded:
    """As `embed_texts`, with the token features kept for `match`, on the CPU."""
    encoded: Encoded = model.encode_text(list(texts), tokens=True)
    _checked(encoded.embedding, len(texts), "encode_text", 0)
    return encoded


@torch.no_grad()
def embed_images(model: Any, source: Source, rows: Sequence[int], batch: int = 256) -> Tensor:
    """Embeddings of the pictures of some rows.

    Args:
        model: has `encode_image`, taking Pillow pictures.
        source: where the pictures come from; at most `batch` of them are decoded at a time.
        rows: numbers of rows in `source`.
        batch: pictures per call of the model.

    Returns:
        (len(rows), D) float32, L2-normalised.

    Raises:
        BadEmbedding: if an embedding is not finite or not of length 1.
        BadRow: from the source, if a picture cannot be decoded: leaving it out would change the gallery.
    """
    parts = []
    for start in range(0, len(rows), batch):
        pictures = [source.image(row) for row in rows[start : start + batch]]
        parts.append(_checked(model.encode_image(pictures).embedding, len(pictures), "encode_image", start))
    return torch.cat(parts)


def embed_texts(model: Any, texts: Sequence[str], batch: int = 1024) -> Tensor:
    """Embeddings of strings, (len(texts), D) float32, L2-normalised; see `embed_images`."""
    return torch.cat(list(embed_texts_in_batches(model, texts, batch)))


def embed_texts_in_batches(model: Any, texts: Sequence[str], batch: int = 1024) -> Iterator[Tensor]:
    """As `embed_texts`, a batch at a time, for those who keep only a sum."""
    for start in range(0, len(texts), batch):
        some = list(texts[start : start + batch])
        with torch.no_grad():
            yield _checked(model.encode_text(some).embedding, len(some), "encode_text", start)


def _checked(embedding: Tensor, rows: int, ability: str, start: int) -> Tensor:
    """Every comparison with NaN is false, so that a diverged model would outrank its gallery; hence this check."""
    if embedding.ndim != 2 or len(embedding) != rows:
        raise BadEmbedding(
            f"`{ability}` was given {rows} inputs and returned {tuple(embedding.shape)}; expected ({rows}, D)"
        )
    embedding = embedding.float()
    finite = torch.isfinite(embedding).all(dim=1)
    if not finite.all():
        bad = int((~finite).nonzero()[0])
        raise BadEmbedding(
            f"`{ability}` returned nan or inf for {int((~finite).sum())} of {rows} inputs, the first is number {start + bad}; "
            "the weights have probably diverged: load an earlier checkpoint, and run the doctor on the run"
        )
    # bf16 rounds the length by up to 0.4 %.
    length = embedding.norm(dim=1)
    if ((length - 1).abs() > 0.02).any():
        raise BadEmbedding(
            f"`{ability}` returned embeddings of lengths {float(length.min()):.3g} to {float(length.max()):.3g}; expected 1: "
            "L2-normalise them, so that dot products are cosines"
        )
    return embedding
