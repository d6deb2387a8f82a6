"""From the indices of shards to the columns of a catalogue, one shard in memory at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, BinaryIO

import numpy as np

from multiway.data.catalogue import BLOCK, COLUMNS, FORMAT, HEADER, Catalogue, Column, digest
from multiway.data.files import update_fingerprint
from multiway.data.shard_index import ShardIndex
from multiway.data.source import held_out_split, stable_id

__all__ = ["KEPT_FROM", "catalogue_of"]

KEPT_FROM = 20_000
"""Samples from which a set is kept in a folder; a smaller one is put together faster than it is said."""


_STALE = 86_400.0  # seconds after which what is half written was left behind by a process that was killed


class _Growing:
    """A column while it is written: pieces in memory, and in a file once there are many."""

    def __init__(self, kind: str, first: int | None = None) -> None:
        self.kind, self.count = np.dtype(kind), 0
        self._pieces: list[np.ndarray] = []
        self._file: BinaryIO | None = None
        if first is not None:
            self.add([first])

    def add(self, values: Any) -> None:
        piece = np.frombuffer(values, self.kind) if isinstance(values, bytes) else np.asarray(values, self.kind)
        self.count += len(piece)
        if self._file is not None:
            self._file.write(piece.tobytes())
        elif len(piece):
            self._pieces.append(piece)

    def spill(self, path: Path) -> None:
        """From now on to a file."""
        if self._file is None:
            self._file = path.open("wb")
            for piece in self._pieces:
                self._file.write(piece.tobytes())
            self._pieces = []

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def in_memory(self) -> Column:
        return Column(np.concatenate([np.empty(0, self.kind), *self._pieces]))


class _Writing:
    """A catalogue while it is written."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder  # None: it stays in memory
        self.spilled = False
        self.columns = {
            name: _Growing(kind, 0 if name.endswith(("_ends", "_firsts")) or name == "starts" else None)
            for name, kind in COLUMNS.items()
        }
        self.totals = {"keys": 0, "captions": 0, "samples": 0, "texts": 0}
        self.states: dict[str, Any] = {}
        self.about: dict[str, Any] = {"splits": {}, "highest": -1, "lost": [], "partly": []}

    def shard(self, name: str, stated: str, index: ShardIndex) -> None:
        """Add one shard."""
        first = self.totals["samples"]
        ids = [
            given if given >= 0 else stable_id(own or f"{name}/{key}")
            for given, own, key in zip(index.picture_ids, index.image_ids, index.keys, strict=True)
        ]
        for column, values in (
            ("offsets", index.offsets), ("lengths", index.lengths), ("checks", index.checks), ("labels", index.labels),
            ("image_ids", ids), ("picture_ids", index.picture_ids),
        ):  # fmt: skip
            self.columns[column].add(values)
        self._texts("keys", "key_ends", "keys", index.keys)
        self._texts("captions", "caption_ends", "captions", [text for texts in index.captions for text in texts])
        counts = np.cumsum([len(texts) for texts in index.captions], dtype=np.int64)
        self.columns["caption_firsts"].add(counts + self.totals["texts"])
        self.totals["texts"] += int(counts[-1]) if len(counts) else 0
        self.totals["samples"] += len(index.keys)
        self.columns["starts"].add([self.totals["samples"]])
        self._split(name, stated, index, ids, first)
        self.about["highest"] = max(self.about["highest"], max(index.labels, default=-1))
        self.about["lost"] += index.lost
        self.about["partly"] += index.partly
        if self.folder is not None and (self.spilled or self.totals["samples"] >= KEPT_FROM):
            self.spilled = True
            for column, growing in self.columns.items():
                growing.spill(self.folder / column)

    def _texts(self, total: str, ends: str, column: str, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        self.columns[ends].add(np.cumsum([len(each) for each in encoded], dtype=np.int64) + self.totals[total])
        self.columns[column].add(b"".join(encoded))
        self.totals[total] += sum(map(len, encoded))

    def _split(self, name: str, stated: str, index: ShardIndex, ids: Sequence[int], first: int) -> None:
        """Rows of each split, and their fingerprint, which is that of `files.fingerprint_of`."""
        rows: dict[str, list[int]] = {}
        for number, image_id in enumerate(ids):
            rows.setdefault(stated or held_out_split(image_id), []).append(number)
        for split, own in rows.items():
            if split not in self.states:
                self.states[split] = hashlib.blake2b(digest_size=8)
                self.columns[f"{split}.rows"] = _Growing("<i8")
                self.columns[f"{split}.shards"] = _Growing("<i8", 0)
            for number in own:
                key, captions = f"{name}/{index.keys[number]}", tuple(index.captions[number])
                update_fingerprint(self.states[split], key, ids[number], captions, index.labels[number])
            self.columns[f"{split}.rows"].add(np.array(own, dtype=np.int64) + first)
            self.columns[f"{split}.shards"].add([self.columns[f"{split}.rows"].count])

    def finish(self, place: Path | None) -> Catalogue:
        """The catalogue; at `place` if it was written there."""
        self.about["splits"] = {
            split: {"rows": self.columns[f"{split}.rows"].count, "fingerprint": state.hexdigest()}
            for split, state in sorted(self.states.items())
        }
        for growing in self.columns.values():
            growing.close()
        if not self.spilled or self.folder is None or place is None:
            return Catalogue(self.about, {name: growing.in_memory() for name, growing in self.columns.items()})
        self.about["columns"] = {
            name: [growing.kind.str, growing.count, _sums(self.folder / name)] for name, growing in self.columns.items()
        }
        header = {"format": FORMAT, "about": self.about, "digest": digest(self.about)}
        (self.folder / HEADER).write_text(json.dumps(header), encoding="utf-8")
        _put(self.folder, place)
        found = Catalogue.open(place)
        if found is None:
            raise OSError(f"{place} cannot be read back")
        return found


def catalogue_of(
    shards: Callable[[], Iterable[tuple[str, str, ShardIndex]]], set_name: str, version: str, folder: Path
) -> Catalogue:
    """The catalogue of a set: read if it is kept, else made and, if it is large, kept.

    Args:
        shards: gives (name, stated split or empty, index) of each shard in order; asked again if the folder cannot be written.
        set_name: of the set; what is kept of another version of it is removed.
        version: of the set: changes when any of its shards does.
        folder: where catalogues are kept.
    """
    known_by = hashlib.sha256(set_name.encode()).hexdigest()[:24]
    place = folder / f"{known_by}-{version}"
    found = Catalogue.open(place)
    if found is not None:
        return found
    aside = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".writing-*"):
            if left.stat().st_mtime < time.time() - _STALE:
                shutil.rmtree(left, ignore_errors=True)
        aside = Path(mkdtemp(prefix=".writing-", dir=folder))
        made = _made(_Writing(aside), shards, place)
        if made.folder is not None:
            for older in folder.glob(f"{known_by}-*"):
                if older != place:  # who has it mapped still has it
                    shutil.rmtree(older, ignore_errors=True)
        return made
    except OSError:  # a disk that is full or read-only: then it is held in memory
        return _made(_Writing(None), shards, None)
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _made(
    writing: _Writing, shards: Callable[[], Iterable[tuple[str, str, ShardIndex]]], place: Path | None
) -> Catalogue:
    for name, stated, index in shards():
        writing.shard(name, stated, index)
    return writing.finish(place)


def _put(aside: Path, place: Path) -> None:
    """Move a folder into place; of two who made the same at once, either's will do."""
    shutil.rmtree(place, ignore_errors=True)  # what is there could not be opened
    try:
        aside.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _sums(path: Path) -> int:
    """Write the sums of a file's blocks beside it; the sum of these."""
    with path.open("rb") as file:
        sums = np.array([zlib.crc32(block) for block in iter(lambda: file.read(BLOCK), b"")], dtype="<u4")
    sums.tofile(path.with_name(f"{path.name}.sums"))
    return zlib.crc32(sums.tobytes())
