"""Some rows of a source, under its name: a gallery small enough for what costs a pass per pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from multiway.data.source import Row, Source

__all__ = ["Subset"]


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
        # Everything else (name, split, classes, word classes) is the source's. Drawing whole batches is not: its numbers
        # are those of all rows.
        if name in ("squares", "source", "index"):
            raise AttributeError(name)
        return getattr(self.source, name)
