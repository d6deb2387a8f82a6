"""The same index in Qdrant, for those who outgrow one machine: a collection of a server, or one embedded in a folder.

A key becomes the point's id by a name-based UUID, so that adding it again replaces it; the entry is the point's payload, and what
the index was made of is the collection's metadata. The server builds its own graph (HNSW); embedded, every search is exact.
The key of a server that asks for one is taken from the environment, QDRANT_API_KEY.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from multiway.serve.index import QDRANT, Hit, IndexFault, imported, require_entries

__all__ = ["QdrantIndex"]

_NAMES = uuid.UUID("6d756c74-6977-6179-8000-000000000001")
_EMBEDDED = "multiway"
_BATCH = 512  # points in one request
_FORMAT = 1  # of entries and metadata


class QdrantIndex:
    """See `index.VectorIndex`. Every change is there at once.

    Args:
        place: `qdrant:URL/COLLECTION`, or `qdrant:PATH`.
        about: of a new index; None opens one that is there.

    Raises:
        IndexFault: if the place names no collection, the server does not answer, or there is no such collection.
    """

    def __init__(self, place: str, about: dict[str, Any] | None = None) -> None:
        self._client: Any = None  # `close` may come before there is one
        self._models = imported("qdrant_client.models", "qdrant:", "qdrant")
        self.place, rest = place, place.removeprefix(QDRANT)
        if re.match(r"https?://", rest):
            url, _, self.collection = rest.rpartition("/")
            if not self.collection or url.endswith(("/", ":")):
                raise IndexFault(f"{place} names no collection; expected qdrant:http://HOST:6333/COLLECTION")
            options: dict[str, Any] = {"url": url, "api_key": os.environ.get("QDRANT_API_KEY")}
        elif rest:
            self.collection, options = _EMBEDDED, {"path": rest}
        else:
            raise IndexFault(f"{place} names no place; expected qdrant:URL/COLLECTION or qdrant:PATH")
        try:
            self._client = imported("qdrant_client", "qdrant:", "qdrant").QdrantClient(**options)
            there = self._client.collection_exists(self.collection)
        except Exception as error:  # its own kinds, and those of the transport below it
            raise IndexFault(
                f"{place} cannot be opened ({error}); is the server running, or another process at the folder?"
            ) from error
        if about is None and not there:
            raise IndexFault(
                f"{place}: there is no such collection; build one with `multiway index EMBEDDINGS --out {place}`"
            )
        if about is not None and there:
            raise IndexFault(
                f"{place} is there already; add to it with `multiway index {place} --add EMBEDDINGS`, or choose another"
            )
        self.about = about if about is not None else self._read()

    def _read(self) -> dict[str, Any]:
        """What the index was made of; those that were built before there was a number are of the first format."""
        kept = dict(self._client.get_collection(self.collection).config.metadata or {})
        found = kept.pop("format", _FORMAT)
        if found != _FORMAT:
            self.close()
            raise IndexFault(
                f"{self.place} has format {found!r}, and this version of multiway reads format {_FORMAT}; install the version that built "
                "it, or build it again"
            )
        return kept

    @property
    def _kept(self) -> dict[str, Any]:
        return {"format": _FORMAT, **self.about}

    @classmethod
    def open(cls, place: str) -> QdrantIndex:
        """An index that is there."""
        return cls(place)

    def __len__(self) -> int:
        if not self._client.collection_exists(self.collection):
            return 0
        return int(self._client.count(self.collection, exact=True).count)

    def add(self, vectors: np.ndarray, entries: Any) -> int:
        """See `VectorIndex.add`."""
        vectors = require_entries(vectors, entries, self._width())
        if not len(vectors):
            return 0
        if not self._client.collection_exists(self.collection):
            size = self._models.VectorParams(size=vectors.shape[1], distance=self._models.Distance.DOT)
            self._client.create_collection(self.collection, vectors_config=size, metadata=self._kept)
        before = len(self)
        for start in range(0, len(vectors), _BATCH):
            lines = entries.slice(start, _BATCH).to_pylist()
            some = vectors[start : start + _BATCH].tolist()
            points = [
                self._models.PointStruct(id=_id(line["key"]), vector=vector, payload=line)
                for line, vector in zip(lines, some, strict=True)
            ]
            self._client.upsert(self.collection, points, wait=True)
        return before + len(vectors) - len(self)

    def delete(self, keys: Sequence[str]) -> int:
        """See `VectorIndex.delete`."""
        before, ids = len(self), [_id(key) for key in keys]
        for start in range(0, len(ids), _BATCH):
            self._client.delete(self.collection, points_selector=ids[start : start + _BATCH], wait=True)
        return before - len(self)

    def search(self, queries: np.ndarray, k: int = 10) -> list[list[Hit]]:
        """See `VectorIndex.search`."""
        width = self._width()
        if queries.ndim != 2 or (width and queries.shape[1] != width):
            raise IndexFault(f"queries are {tuple(queries.shape)}; expected (Q, {width}), as the vectors of the index")
        if not width:
            return [[] for _ in queries]
        asked = [self._models.QueryRequest(query=query, limit=k, with_payload=True) for query in queries.tolist()]
        answers = self._client.query_batch_points(self.collection, requests=asked)
        return [[_hit(rank, point) for rank, point in enumerate(answer.points, 1)] for answer in answers]

    def save(self) -> None:
        """See `VectorIndex.save`."""
        if self._client.collection_exists(self.collection):
            self._client.update_collection(self.collection, metadata=self._kept)

    def close(self) -> None:
        """Let go of the folder, which one process at a time may open."""
        if self._client is not None:
            self._client.close()

    def _width(self) -> int:
        if not self._client.collection_exists(self.collection):
            return 0
        return int(self._client.get_collection(self.collection).config.params.vectors.size)


def _id(key: str) -> str:
    return str(uuid.uuid5(_NAMES, key))


def _hit(rank: int, point: Any) -> Hit:
    entry = point.payload
    said = entry.get("captions") or [""]
    return Hit(rank, float(point.score), entry["row"], entry["key"], said[0], entry["where"], entry["source"])
