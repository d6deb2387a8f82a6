"""The distinct pictures of each part, decoded by worker processes ahead of the model.

What a worker sends is the square that the model's preprocessing makes of a picture, as bytes: a quarter of the numbers that the
encoder gets, and all that is slow. Normalising is left to the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from multiway.batch import ViewSpec
from multiway.data.loader import made_ahead
from multiway.data.source import BadRow, Source
from multiway.data.view import draw, from_squares
from multiway.hub.model import Model
from multiway.workflows.blocks import Block
from multiway.workflows.bulk_place import Skipped

__all__ = ["Drawn", "Picture", "drawn_parts", "pictures_of", "pixels_of", "skipped_of"]


@dataclass(frozen=True)
class Picture:
    """A distinct picture with everything that rows of its part say of it.

    Attributes:
        row: the first that shows it.
        key, image_id, where: of that row.
        captions: of all its rows, equal ones once.
    """

    row: int
    key: str
    image_id: int
    where: str
    captions: tuple[str, ...]


class Drawn(NamedTuple):
    """Some pictures of a part.

    Attributes:
        part: number of its block.
        places: (n,) int64, of those that could be read, among the part's pictures.
        squares: (n, side, side, 3) uint8.
        bad: (place, why) of the others.
    """

    part: int
    places: Tensor
    squares: Tensor
    bad: list[tuple[int, str]]


def pictures_of(source: Source, rows: Sequence[int]) -> list[Picture]:
    """The distinct pictures of some rows, in the order of their first."""
    found: dict[int, Picture] = {}
    said: dict[int, dict[str, None]] = {}
    for number in rows:
        row = source.row(number)
        found.setdefault(row.image_id, Picture(number, row.key, row.image_id, row.where, ()))
        said.setdefault(row.image_id, {}).update(dict.fromkeys(row.captions))
    return [replace(picture, captions=tuple(said[image_id])) for image_id, picture in found.items()]


def drawn_parts(
    source: Source, blocks: Sequence[Block], view: ViewSpec, batch: int, workers: int
) -> Iterator[tuple[Block, list[Picture], Iterator[Drawn]]]:
    """Each block with its pictures, and these decoded, `batch` at a time.

    What is decoded for a block has to be taken before the next block is asked for.
    """
    pictures: dict[int, list[Picture]] = {}

    def keys() -> Iterator[tuple[int, list[int], list[int]]]:
        for block in blocks:
            some = pictures[block.number] = pictures_of(source, block.rows)
            for start in range(0, len(some), batch):
                places = range(start, min(start + batch, len(some)))
                yield block.number, list(places), [some[place].row for place in places]

    by_number = {block.number: block for block in blocks}
    stream = made_ahead(_Squares(source, view), keys(), workers)
    for number, drawn in groupby(stream, key=lambda each: each.part):
        yield by_number[number], pictures.pop(number), drawn


class _Squares(Dataset[Drawn]):
    """(part, places, rows) -> Drawn; what the workers run."""

    def __init__(self, source: Source, view: ViewSpec) -> None:
        self.source, self.view = source, view

    def __getitem__(self, key: Any) -> Drawn:
        part, places, rows = key
        whole, squares, bad = [], [], []
        for place, row in zip(places, rows, strict=True):
            try:
                squares.append(draw(self.source.image(row), self.view))
                whole.append(place)
            except BadRow as error:
                bad.append((place, str(error)))
        side = self.view.size
        pixels = np.stack(squares) if squares else np.empty((0, side, side, 3), np.uint8)
        return Drawn(part, torch.tensor(whole, dtype=torch.int64), torch.from_numpy(pixels), bad)


def pixels_of(model: Model, drawn: Drawn) -> Tensor:
    """What `Model.encode_image` takes: (n, 3, side, side) float on the model's device, the same numbers as of the pictures."""
    return from_squares(drawn.squares.to(model.device, non_blocking=True), model.processor.view)


def skipped_of(pictures: Sequence[Picture], drawn: Drawn) -> list[Skipped]:
    """A record for each picture that could not be read."""
    return [Skipped(pictures[place].row, pictures[place].key, pictures[place].where, why) for place, why in drawn.bad]
