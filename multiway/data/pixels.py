"""Square pixels of a source's rows, each part of it read in the fastest way that it allows.

A source that draws its pictures draws many at once; one that is far away is asked for many at once; small ones are decoded once
and kept; and where training says so, large JPEGs are decoded at a fraction of their size.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data.source import DrawsBatches, Fetches, Mixes, Reduces, Source
from multiway.data.view import draw

__all__ = ["FETCHED", "PixelCache", "Pixels"]

FETCHED = 256
"""Pictures that are asked for at once of a source that is far away."""

_KEPT = 1 << 30  # bytes of pixels that are kept


class PixelCache:
    """Decoded squares of a small source, so that no picture is decoded twice; shared among worker processes.

    Args:
        rows: in the source.
        side: of the squares.
        limit: bytes above which nothing is kept.
        reduce: work as little as training needs: decode large pictures at a fraction of their size, where the source can, and resize
            only what is kept. Pixels then differ by about half a grey level (`benchmarks/decode.py`).
    """

    def __init__(self, rows: int, side: int, limit: int = _KEPT, reduce: bool = False) -> None:
        self.side, self.reduce = side, reduce
        self.kept = rows * side * side * 3 <= limit
        size = rows if self.kept else 0
        self.pixels = torch.empty(size, side, side, 3, dtype=torch.uint8).share_memory_()
        self.ready = torch.zeros(size, dtype=torch.bool).share_memory_()

    def get(self, source: Source, index: int, view: ViewSpec) -> Tensor:
        """(side, side, 3) uint8 of one row, decoded at most once per cache."""
        if self.kept and self.ready[index]:
            return self.pixels[index]
        square = torch.from_numpy(draw(self._image(source, index, view), view, self.side, exact=not self.reduce).copy())
        if self.kept:
            self.pixels[index] = square
            self.ready[index] = True
        return square

    def lacks(self, rows: np.ndarray) -> np.ndarray:
        """Those of the rows (B,) that would have to be decoded."""
        return rows[~self.ready.numpy()[rows]] if self.kept else rows

    def _image(self, source: Source, index: int, view: ViewSpec) -> Image.Image:
        if not (self.reduce and isinstance(source, Reduces)):
            return source.image(index)
        edge = self.side if view.shortest is None else round(self.side * view.shortest / view.size)
        return source.reduced(index, edge)


class Pixels:
    """Squares of any source, also of one that is mixed of several.

    Args:
        source: of the pictures.
        view: how they are drawn.
        side: of the squares, in pixels.
        reduce: as of `PixelCache`.
    """

    def __init__(self, source: Source, view: ViewSpec, side: int, reduce: bool = False) -> None:
        self.view, self.side = view, side
        self._parts, self._starts = [source], [0, len(source)]
        if isinstance(source, Mixes):
            self._parts, self._starts = list(source.parts), list(source.starts)
        self._draws = [isinstance(part, DrawsBatches) for part in self._parts]
        limit = _KEPT // max(1, self._draws.count(False))
        # A source that draws whole batches is faster than any cache.
        sizes = [0 if draws else len(part) for part, draws in zip(self._parts, self._draws, strict=True)]
        self._caches = [PixelCache(size, side, limit, reduce) for size in sizes]

    def drawn(self, rows: np.ndarray) -> np.ndarray:
        """(B,) bool: which rows are drawn, many at once; the others are got one by one, and may turn out to be unreadable."""
        return np.asarray(self._draws)[self._of(rows)]

    def draw(self, rows: np.ndarray) -> Tensor:
        """(B, side, side, 3) uint8 of rows that are drawn."""
        squares = np.empty((len(rows), self.side, self.side, 3), dtype=np.uint8)
        of = self._of(rows)
        for number in np.unique(of):
            part, here = self._parts[number], of == number
            assert isinstance(part, DrawsBatches)
            squares[here] = part.squares(rows[here] - self._starts[number], self.side)
        return torch.from_numpy(squares)

    def fetch(self, rows: np.ndarray) -> None:
        """Ask for the pictures of rows that are got one by one next, where their source is far away."""
        of = self._of(rows)
        for number in np.unique(of):
            part = self._parts[number]
            if isinstance(part, Fetches):
                part.fetch(self._caches[number].lacks(rows[of == number] - self._starts[number]))

    def get(self, row: int) -> Tensor:
        """(side, side, 3) uint8 of one row.

        Raises:
            BadRow: if it cannot be read.
        """
        number = bisect_right(self._starts, row) - 1
        return self._caches[number].get(self._parts[number], row - self._starts[number], self.view)

    def _of(self, rows: np.ndarray) -> np.ndarray:
        """(B,) number of each row's part."""
        return np.searchsorted(self._starts, rows, side="right") - 1
