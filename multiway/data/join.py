"""Several splits of one data set as one: what the split `all` opens."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from PIL import Image

from multiway.data.rejected import Rejected
from multiway.data.source import Fetches, InShards, Reduces, Row, Source

__all__ = ["Joined"]


class Joined:
    """Sources laid end to end.

    Args:
        name: of the data set.
        split: what the whole is called.
        parts: at least one; of the same data set, so that keys, labels and ids agree.
    """

    def __init__(self, name: str, split: str, parts: Sequence[Source]) -> None:
        self.name = name
        self.split = split
        self.parts = list(parts)
        self.classes: tuple[str, ...] = self.parts[0].classes
        self.templates: tuple[str, ...] = self.parts[0].templates
        self.rejected: list[Rejected] = getattr(self.parts[0], "rejected", [])
        self.fingerprint: str = hashlib.blake2b(
            "".join(p.fingerprint for p in self.parts).encode(), digest_size=8
        ).hexdigest()
        self._ends = list(accumulate(len(part) for part in self.parts))
        shards = [part.shard_starts for part in self.parts if isinstance(part, InShards)]
        if len(shards) == len(self.parts):  # else it satisfies `InShards` no more than they do
            firsts = [0, *self._ends[:-1]]
            own = [starts[:-1] + first for starts, first in zip(shards, firsts, strict=True)]
            self.shard_starts = np.concatenate([*own, self._ends[-1:]])

    def __len__(self) -> int:
        return self._ends[-1]

    def _at(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {self.name}@{self.split}, which has {len(self)}")
        part = bisect_right(self._ends, index)
        return self.parts[part], index - (self._ends[part - 1] if part else 0)

    def row(self, index: int) -> Row:
        """The row's words."""
        source, inner = self._at(index)
        return source.row(inner)

    def image(self, index: int) -> Image.Image:
        """The decoded picture; raises BadRow if it cannot be decoded."""
        source, inner = self._at(index)
        return source.image(inner)

    def reduced(self, index: int, side: int) -> Image.Image:
        """The picture, decoded at a fraction of its size where its source can."""
        source, inner = self._at(index)
        return source.reduced(inner, side) if isinstance(source, Reduces) else source.image(inner)

    def fetch(self, rows: np.ndarray) -> None:
        """Get the encoded pictures of rows at once, of those parts that are far away."""
        of = np.searchsorted(self._ends, rows, side="right")
        for number, part in enumerate(self.parts):
            if isinstance(part, Fetches):
                part.fetch(rows[of == number] - (self._ends[number - 1] if number else 0))

    def encoded(self, index: int) -> bytes | None:
        """The picture's bytes, where the source has them."""
        source, inner = self._at(index)
        encoded = getattr(source, "encoded", None)
        return encoded(inner) if callable(encoded) else None
