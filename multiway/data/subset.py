"""Some rows of a source, under its name: a gallery small enough for what costs a pass per pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from multiway.data.source import Row, Source

__all__ = ["Subset"]

# Methods of sources whose first argument is a row's number.
_OF_A_ROW = frozenset(
    {"about", "encoded", "frames", "holds", "noise", "noise_kind", "picture", "reduced", "scene", "video"}
)
_OF_ALL = frozenset({"fetch", "indices", "parts", "places", "shard_starts", "squares", "starts", "weights"})


class Subset:
    """Rows of another source, evenly spread over it.

    Args:
        source: any.
        rows: how many; all where there are fewer.
    """

    def __init__(self, source: Source, rows: int) -> None:
        count = min(rows, len(source))
        self.source = source
        self.index: Sequence[int] = [number * len(source) // count for number in range(count)]

    def __len__(self) -> int:
        return len(self.index)

    def row(self, index: int) -> Row:
        """The row, as the source has it."""
        return self.source.row(self.index[index])

    def image(self, index: int) -> Image.Image:
        """The row's picture."""
        return self.source.image(self.index[index])

    def __getattr__(self, name: str) -> Any:
        # What is said of the whole (name, split, classes, word classes) is the source's. What is asked of a row has its number
        # here; what is about all rows (drawing whole batches, where shards begin) is not true of some.
        if name in _OF_ALL or name in ("source", "index"):
            raise AttributeError(name)
        found = getattr(self.source, name)
        if name not in _OF_A_ROW:
            return found
        return lambda index, *more: found(self.index[index], *more)
