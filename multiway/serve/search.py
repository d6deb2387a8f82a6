"""Search by words over the pictures of a source: one matrix product, exact.

Pictures are encoded once and the embeddings are kept beside the run, under a name made of the weights' and the data's
fingerprints, so that a second search answers at once and a stale answer is impossible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from multiway.data.source import BadRow, Source
from multiway.hub.model import Model

__all__ = ["Hit", "PictureIndex"]


@dataclass(frozen=True)
class Hit:
    """One picture that was found; `score` is the cosine of its embedding with the query's."""

    rank: int
    score: float
    index: int
    key: str
    caption: str


class PictureIndex:
    """Embeddings of a source's distinct pictures.

    Args:
        model: that encodes queries.
        source: whose rows the hits are.
        rows: (N,) int64 row of each picture.
        embeddings: (N, D) unit vectors.
    """

    def __init__(self, model: Model, source: Source, rows: Tensor, embeddings: Tensor) -> None:
        self.model, self.source, self.rows, self.embeddings = model, source, rows, embeddings

    @classmethod
    def build(cls, model: Model, source: Source, cache: Path | None = None) -> PictureIndex:
        """Encode every distinct picture, or take the embeddings from the cache.

        Args:
            cache: folder to keep the embeddings in; None keeps nothing.
        """
        file = cache / f"index-{_fingerprint(model)}-{source.fingerprint[:16]}.safetensors" if cache else None
        if file is not None and file.is_file():
            kept = load_file(str(file))
            return cls(model, source, kept["rows"], kept["embeddings"])
        rows, parts = _encode(model, source)
        if not rows:
            raise ValueError(f"{source.name}@{source.split} has no readable picture to search")
        index = cls(model, source, torch.tensor(rows), torch.cat(parts))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = file.with_suffix(".part")
            save_file({"rows": index.rows, "embeddings": index.embeddings.contiguous()}, str(aside))
            aside.replace(file)
        return index

    def search(self, queries: Sequence[str], top: int = 5) -> list[list[Hit]]:
        """The `top` pictures for each query, best first."""
        scores = self.model.encode_text(queries).embedding @ self.embeddings.T
        best = scores.topk(min(top, len(self.rows)), dim=1)
        return [
            [
                self._hit(rank, float(score), int(place))
                for rank, (score, place) in enumerate(zip(values, places, strict=True), start=1)
            ]
            for values, places in zip(best.values, best.indices, strict=True)
        ]

    def _hit(self, rank: int, score: float, place: int) -> Hit:
        row = int(self.rows[place])
        words = self.source.row(row)
        return Hit(rank, score, row, words.key, words.captions[0])


def _encode(model: Model, source: Source) -> tuple[list[int], list[Tensor]]:
    """Rows and embeddings of the distinct pictures, decoded a batch at a time; unreadable ones are left out."""
    rows: list[int] = []
    parts: list[Tensor] = []
    seen: set[int] = set()
    pictures = []
    for index in range(len(source)):
        image_id = source.row(index).image_id
        if image_id not in seen:
            seen.add(image_id)
            try:
                pictures.append(source.image(index))
                rows.append(index)
            except BadRow:
                continue
        if len(pictures) == model.batch:
            parts.append(model.encode_image(pictures).embedding)
            pictures = []
    if pictures:
        parts.append(model.encode_image(pictures).embedding)
    return rows, parts


def _fingerprint(model: Model) -> str:
    """Sixteen hexadecimal digits that name the weights."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.method.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]
