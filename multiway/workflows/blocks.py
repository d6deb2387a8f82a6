"""Long work in blocks of rows: how a source is cut, and how ranks wait for each other's.

Blocks know nothing of each other. A rank takes every W-th, and what a block comes out as depends on no other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multiway.config import ConfigError
from multiway.data.files import PictureFiles
from multiway.data.join import Joined
from multiway.data.shards import Shards
from multiway.data.source import Source
from multiway.world import World

__all__ = ["Block", "blocks_of", "wait_for", "whole_blocks_of"]


@dataclass(frozen=True)
class Block:
    """Rows that are worked on together.

    Attributes:
        number: from 0.
        rows: of the source, ascending but for shards whose splits were joined.
        split: that all of them are of; empty where they are of several.
    """

    number: int
    rows: Sequence[int]
    split: str = ""


def blocks_of(source: Source, rows_per_block: int) -> list[Block]:
    """A block for each shard of the source, or for so many rows where it has none.

    Raises:
        ConfigError: if `rows_per_block` is below 1.
    """
    _require_rows(rows_per_block)
    cut = _by_shard([source]) or _by_count(range(len(source)), rows_per_block)
    return [Block(number, rows, source.split) for number, rows in enumerate(cut)]


def whole_blocks_of(source: Source, rows_per_block: int) -> list[Block]:
    """As `blocks_of`, of splits that were joined as well, and all rows of one picture in one block.

    The splits of joined shards lie in the same tars; a block is then a tar with its rows of every split, in the tar's order, so that
    no tar is read twice. Of a caption file with a row for each caption, rows of one picture stand together, where its first one is.
    (Rows of other sources that share a picture and lie in two blocks stay there.)

    Raises:
        ConfigError: if `rows_per_block` is below 1.
    """
    _require_rows(rows_per_block)
    parts: Sequence[Source] = source.parts if isinstance(source, Joined) else [source]
    first = np.cumsum([0, *map(len, parts)])
    shards = _by_shard(parts)
    if shards is not None:
        blocks = []
        for number, rows in enumerate(shards):
            of = np.unique(np.searchsorted(first, rows, side="right") - 1)
            blocks.append(Block(number, rows, parts[of[0]].split if len(of) == 1 else ""))
        return blocks
    blocks = []
    cut: list[Sequence[int]]
    for start, part in zip(first.tolist(), parts):
        if isinstance(part, PictureFiles):
            cut = [[row + start for row in some] for some in _by_count(_together(part), rows_per_block, part)]
        else:
            cut = _by_count(range(start, start + len(part)), rows_per_block)
        blocks += [Block(number, some, part.split) for number, some in enumerate(cut, len(blocks))]
    return blocks


def _require_rows(rows: int) -> None:
    if rows < 1:
        raise ConfigError(f"rows per shard is {rows}; expected 1 or more")


def _by_shard(parts: Sequence[Source]) -> list[list[int]] | None:
    """Numbers of the rows in each tar, in its order; None if the parts are no shards, or of different ones."""
    shards = [part for part in parts if isinstance(part, Shards)]
    if len(shards) < len(parts) or any(part.tars != shards[0].tars for part in shards):
        return None
    places = np.concatenate([part.places for part in shards])
    order = np.lexsort((places[:, 1], places[:, 0]))
    cuts = np.flatnonzero(np.diff(places[order, 0])) + 1
    return [rows.tolist() for rows in np.split(order, cuts)]


def _together(source: Source) -> list[int]:
    """Row numbers in the order of their pictures' first appearance."""
    rows_of: dict[int, list[int]] = {}
    for row in range(len(source)):
        rows_of.setdefault(source.row(row).image_id, []).append(row)
    return [row for rows in rows_of.values() for row in rows]


def _by_count(rows: Sequence[int], count: int, whole: Source | None = None) -> list[Sequence[int]]:
    """Runs of `count` rows; longer by what is left of the last picture where these are to stay whole."""
    cut: list[Sequence[int]] = []
    start = 0
    while start < len(rows):
        stop = min(start + count, len(rows))
        while whole is not None and stop < len(rows) and _same_picture(whole, rows[stop - 1], rows[stop]):
            stop += 1
        cut.append(rows[start:stop])
        start = stop
    return cut


def _same_picture(source: Source, one: int, other: int) -> bool:
    return source.row(one).image_id == source.row(other).image_id


def wait_for(world: World, done: Iterable[Path]) -> None:
    """Until other ranks' files are there too. They may take longer than a collective waits; a rank that fails ends all."""
    missing = list(done) if world.size > 1 else []
    while missing := [path for path in missing if not path.exists()]:
        time.sleep(0.5)
