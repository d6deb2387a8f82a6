"""The index of a WebDataset tar by URL: from the cache, from beside the tar, or built by reading it once.

What was written beside the shards before they were copied to the storage (`multiway data index`) is fetched and believed if it fits:
the tar's size, and its last sample's header and picture where the index says. Else the tar is read in blocks of a megabyte, leaping
over larger pictures. Either way the index is kept in the user's cache folder under URL, size and whatever the storage says by which
a change can be told.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from dataclasses import replace
from typing import BinaryIO, cast

from multiway.data.remote import RangeFile, RemoteError, RemoteFile, read, read_small
from multiway.data.shard_index import INDEX_VERSION, ShardIndex, build_index, cache_folder, read_index, write_index
from multiway.data.source import DataError

__all__ = ["remote_index_of"]


def remote_index_of(tar: RemoteFile) -> ShardIndex:
    """The index of a tar by URL.

    Args:
        tar: with its size, as `shard_names.expand` gives it.

    Raises:
        DataError: if it cannot be read, or not be used, as of `shard_index.index_of`.
    """
    folder = cache_folder()
    known_by, version = _short(tar.url), _short(f"{tar.size} {tar.changed}")
    place = folder / f"{known_by}-{version}.json"
    known = read_index(place)
    if known and (known.size, known.mtime_ns) == (tar.size, tar.changed):
        return known
    try:
        index = _beside(tar)
        if index is None:
            file = RangeFile(tar)
            if tar.size <= file.block:
                read(tar, 0, min(1, tar.size))  # of a file within one block nothing else shows a server without ranges
            empty = ShardIndex(INDEX_VERSION, tar.size, tar.changed)
            index = build_index(str(tar), cast(BinaryIO, file), empty, file.keep)
    except RemoteError as error:
        raise DataError(str(error)) from error
    if write_index(place, index):
        for older in folder.glob(f"{known_by}-*.json"):
            if older != place:
                older.unlink(missing_ok=True)
    return index


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _beside(tar: RemoteFile) -> ShardIndex | None:
    """The index beside the tar, if there is one that fits."""
    side = tar.beside(f"{tar.name}.index.json")
    data = read_small(side) if side is not None else None
    index = read_index(data) if data is not None else None
    if index is None or index.size != tar.size or not _fits(tar, index):
        return None
    return replace(index, mtime_ns=tar.changed)


def _fits(tar: RemoteFile, index: ShardIndex) -> bool:
    """Whether the last sample is where the index says: its header, and what the index says of its bytes."""
    if not index.keys:
        return False
    last = max(range(len(index.keys)), key=index.offsets.__getitem__)
    offset, length = index.offsets[last], index.lengths[last]
    if offset < tarfile.BLOCKSIZE:
        return False
    data = read(tar, offset - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE + length)
    try:
        header = tarfile.TarInfo.frombuf(data[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    # Of a name that is longer than a header holds, the header has but a part.
    named = len(index.keys[last].encode()) > 80 or header.name.removeprefix("./").startswith(index.keys[last])
    check = index.checks[last]
    return header.size == length and named and (check < 0 or check == zlib.crc32(data[tarfile.BLOCKSIZE :]))
