"""What a set of shards holds, as columns: a hundred million rows without a hundred million Python objects.

Keys and captions are one run of UTF-8 bytes each, everything else is a column of numbers. A set of some size is kept in the cache
folder, a file per column, and mapped from there: opened in milliseconds however many rows it has, read only where it is looked at, one
copy in memory for all workers and ranks of a machine. Each file is summed in blocks, and a block is checked when it is first read. A
small set stays in memory. `catalogue_writer.py` makes both.
"""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from multiway.data.source import DataError

__all__ = ["BLOCK", "COLUMNS", "FORMAT", "HEADER", "Catalogue", "Column", "Part", "digest"]

FORMAT = 1
HEADER = "catalogue.json"
BLOCK = 1 << 16  # bytes that have a sum of their own

COLUMNS: dict[str, str] = {
    "starts": "<i8",  # (S + 1,) sample with which each shard begins
    "offsets": "<i8",  # (N,) where the encoded picture lies in its shard, in bytes
    "lengths": "<i8",
    "checks": "<i8",  # CRC-32 of the encoded picture, -1 where unknown
    "labels": "<i4",
    "image_ids": "<i8",
    "picture_ids": "<i8",  # as `write_shards` wrote them, -1 where it did not
    "key_ends": "<i8",  # (N + 1,) from 0
    "keys": "|u1",
    "caption_firsts": "<i8",  # (N + 1,) number of each sample's first caption
    "caption_ends": "<i8",  # (C + 1,) from 0
    "captions": "|u1",
}
"""Columns that every set has; for each split there are also `SPLIT.rows`, samples in order, and `SPLIT.shards`, where its shards begin."""


class Column:
    """Numbers or bytes, in memory or mapped.

    Args:
        values: (n,).
        sums: CRC-32 of each `BLOCK` bytes; None for what is in memory.
        folder: of the file, for messages.
    """

    def __init__(self, values: np.ndarray, sums: np.ndarray | None = None, folder: Path | None = None) -> None:
        self.values, self._sums, self._folder = values, sums, folder
        self._size = values.dtype.itemsize
        self._checked = np.zeros(0 if sums is None else len(sums), dtype=bool)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: int) -> int:
        if self._sums is not None:
            self._check(place * self._size, (place + 1) * self._size)
        return int(self.values[place])

    def span(self, first: int, end: int) -> np.ndarray:
        """Values [first, end)."""
        if self._sums is not None and end > first:
            self._check(first * self._size, end * self._size)
        return self.values[first:end]

    def _check(self, first: int, end: int) -> None:
        assert self._sums is not None
        for block in range(first // BLOCK, (end - 1) // BLOCK + 1):
            if not self._checked[block]:
                data = self.values.view(np.uint8)[block * BLOCK : (block + 1) * BLOCK]
                if zlib.crc32(data.data) != self._sums[block]:
                    raise self._damaged()
                self._checked[block] = True

    def _damaged(self) -> DataError:
        assert self._folder is not None
        shutil.rmtree(self._folder, ignore_errors=True)
        return DataError(
            f"{self._folder}: what is kept there of the shards is damaged, and was removed; start again, and it is made anew"
        )


@dataclass(frozen=True)
class Part:
    """One split: how many rows, and the fingerprint of what they are."""

    rows: int
    fingerprint: str


class Catalogue:
    """The samples of all shards of a set, by number.

    Args:
        about: the header: `splits`, `highest` label, `lost` and `partly` as [where, why].
        columns: by name, those of `COLUMNS` and of every split.
        folder: where they are mapped from; None in memory.
    """

    def __init__(self, about: dict[str, Any], columns: dict[str, Column], folder: Path | None = None) -> None:
        self.about, self.columns, self.folder = about, columns, folder
        self.splits = {name: Part(**part) for name, part in about["splits"].items()}

    @classmethod
    def open(cls, folder: Path) -> Catalogue | None:
        """The one that is kept in a folder; None if there is none, or it is of another format, incomplete or visibly damaged."""
        try:
            header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
            about = header["about"]
            if header["format"] != FORMAT or header["digest"] != digest(about):
                return None
            columns = {}
            for name, (kind, count, check) in about["columns"].items():
                sums = np.fromfile(folder / f"{name}.sums", dtype="<u4")
                if (
                    zlib.crc32(sums.tobytes()) != check
                    or (folder / name).stat().st_size != count * np.dtype(kind).itemsize
                ):
                    return None
                mapped = np.memmap(folder / name, dtype=kind, mode="r") if count else np.empty(0, dtype=kind)
                values = np.asarray(mapped)  # a plain array over the same pages, whose elements are got faster
                columns[name] = Column(values, sums, folder)
            return cls(about, columns, folder)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def __len__(self) -> int:
        return len(self.columns["offsets"])

    def shard_of(self, sample: int) -> int:
        """Number of the shard that a sample lies in."""
        starts = self.columns["starts"]
        return int(np.searchsorted(starts.span(0, len(starts)), sample, side="right")) - 1

    def key(self, sample: int) -> str:
        """WebDataset key."""
        first, end = self.columns["key_ends"].span(sample, sample + 2).tolist()
        return self.columns["keys"].span(first, end).tobytes().decode()

    def captions(self, sample: int) -> tuple[str, ...]:
        """At least one."""
        first, end = self.columns["caption_firsts"].span(sample, sample + 2).tolist()
        ends = self.columns["caption_ends"].span(first, end + 1).tolist()
        data = self.columns["captions"].span(ends[0], ends[-1]).tobytes()
        return tuple(data[one - ends[0] : other - ends[0]].decode() for one, other in pairwise(ends))

    def number(self, column: str, sample: int) -> int:
        """A sample's entry in a column of numbers."""
        return self.columns[column][sample]

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder} if self.folder is not None else self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        if set(state) != {"folder"}:
            self.__dict__.update(state)
            return
        found = Catalogue.open(state["folder"])  # another process maps it for itself
        if found is None:
            raise DataError(f"{state['folder']} was removed while it was used; start again, and it is made anew")
        self.__dict__.update(found.__dict__)


def digest(about: dict[str, Any]) -> int:
    """Of a header, so that a flipped bit in it is seen."""
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())
