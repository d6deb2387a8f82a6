"""Bytes of shards at known places: local files by positioned reads, remote ones by ranges or from the cache of whole shards."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiway.data.remote import RemoteError, RemoteFile, read, read_many
from multiway.data.shard_cache import ShardCache
from multiway.data.shard_names import ShardFile
from multiway.data.source import BadRow

__all__ = ["ShardReader"]

_OPEN_FILES = 64  # kept open per process; shards come in thousands, file descriptors do not


class ShardReader:
    """Reads parts of shards.

    Args:
        tars: the shards, referred to by number.
    """

    def __init__(self, tars: Sequence[ShardFile]) -> None:
        self.tars = tars
        self._files: OrderedDict[int, int] = OrderedDict()
        self._fetched: dict[tuple[int, int], bytes] = {}
        self._cache = ShardCache.of_environment() if any(isinstance(tar, RemoteFile) for tar in tars) else None

    def read(self, tar: int, offset: int, length: int, where: str) -> bytes:
        """Bytes [offset, offset + length) of a shard.

        Args:
            tar: its number.
            where: shard and sample, for messages.

        Raises:
            BadRow: if they cannot be read any more.
        """
        file = self.tars[tar]
        at_hand = self._fetched.pop((tar, offset), b"")
        if length and len(at_hand) == length:
            return at_hand
        try:
            if not isinstance(file, RemoteFile):
                data = os.pread(self._file(tar, file), length, offset)
            elif self._cache is not None:
                data = self._cache.read(file, offset, length)
            else:
                data = read(file, offset, length)
        except RemoteError as error:
            raise BadRow(f"{where}: {error}") from error
        except OSError as error:
            raise BadRow(f"{where}: cannot be read ({error.strerror or error}); check {file}") from error
        if len(data) != length:
            raise BadRow(f"{where}: the shard has become shorter since it was opened; leave it alone while it is used")
        return data

    def fetch(self, places: Sequence[tuple[int, int, int]]) -> None:
        """Get many (shard, offset, length) at once, to be at hand when they are read next; only of what is far away.

        What was fetched before and not read is forgotten.
        """
        self._fetched = {}
        if self._cache is not None:
            return
        remote = [(tar, offset, length) for tar, offset, length in places if isinstance(self.tars[tar], RemoteFile)]
        found = read_many([(self.tars[tar], offset, length) for tar, offset, length in remote])  # type: ignore[misc]
        for (tar, offset, _), data in zip(remote, found, strict=True):
            if data is not None:
                self._fetched[tar, offset] = data

    def _file(self, tar: int, path: Path) -> int:
        """A descriptor for positioned reads, which workers may share: there is no common place in the file to fight over."""
        if tar in self._files:
            self._files.move_to_end(tar)
            return self._files[tar]
        if len(self._files) >= _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        self._files[tar] = os.open(path, os.O_RDONLY)
        return self._files[tar]

    def __getstate__(self) -> dict[str, Any]:
        # Descriptors mean nothing to another process.
        return {**self.__dict__, "_files": OrderedDict(), "_fetched": {}}

    def __del__(self) -> None:
        for descriptor in getattr(self, "_files", {}).values():
            os.close(descriptor)
