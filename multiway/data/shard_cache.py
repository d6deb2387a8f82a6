"""Whole shards by URL kept in a local folder, no more of them than fit: the least recently used go first.

MULTIWAY_SHARD_CACHE=/scratch/shards MULTIWAY_SHARD_CACHE_BYTES=200G multiway train clip --data 's3://bucket/train-{000..999}.tar'

Any number of processes share the folder. A shard is downloaded once, by whoever needs it first, while the others wait (a lock for
each); room is made under one lock for all, and a file that is being written counts with its whole size, so that the bound holds at
every moment. Without the variables pictures are read one by one where they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from multiway.data.remote import RemoteError, RemoteFile, download
from multiway.data.source import DataError

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]

__all__ = ["ShardCache"]

log = logging.getLogger(__name__)

FOLDER, BYTES = "MULTIWAY_SHARD_CACHE", "MULTIWAY_SHARD_CACHE_BYTES"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_POLL = 0.05  # seconds
_AGAIN = 16  # shards that one process downloads a second time before it says so


class ShardCache:
    """A folder of downloaded shards.

    Args:
        folder: made if it is not there.
        limit: bytes that the shards in it take at most.

    Raises:
        DataError: if the folder cannot be used.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        if fcntl is None:
            raise DataError(f"{FOLDER} needs file locks, which this system lacks; leave it unset")
        self.folder, self.limit = folder, limit
        self._had: set[str] = set()
        self._again = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{FOLDER}: {folder} cannot be made ({error.strerror}); choose another folder") from error

    @classmethod
    def of_environment(cls) -> ShardCache | None:
        """The cache that the environment asks for, if it does.

        Raises:
            DataError: for a size that is none.
        """
        folder, limit = os.environ.get(FOLDER, ""), os.environ.get(BYTES, "")
        if not folder:
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", limit.strip().upper())
        if not found:
            raise DataError(f"{BYTES} is {limit!r}; expected how many bytes {FOLDER} may take, as in 200G")
        return cls(Path(folder).expanduser(), int(float(found[1]) * _UNITS[found[2]]))

    def read(self, file: RemoteFile, start: int, length: int) -> bytes:
        """Bytes [start, start + length) of a shard, which is downloaded first if it is not here.

        Raises:
            RemoteError: if it cannot be downloaded.
            OSError: if the disk is full.
        """
        while True:
            place = self.get(file)
            try:
                # Opened for each read: a file that another process removes takes its room until it is closed.
                descriptor = os.open(place, os.O_RDONLY)
            except FileNotFoundError:  # removed since
                continue
            try:
                return os.pread(descriptor, length, start)
            finally:
                os.close(descriptor)

    def get(self, file: RemoteFile) -> Path:
        """Where a shard lies here."""
        place = self.folder / f"{_key(file)}.tar"
        if self._touched(place):
            return place
        with self._lock(place.stem):
            if not self._touched(place):
                self._download(file, place)
        return place

    def _touched(self, place: Path) -> bool:
        try:
            os.utime(place)  # it has just been used
        except FileNotFoundError:
            return False
        except PermissionError:  # another user's: theirs to put in order
            return place.exists()
        return True

    def _download(self, file: RemoteFile, place: Path) -> None:
        self._watch(place.stem, file)
        part = place.with_suffix(".part")
        while True:
            with self._lock("room"):
                if self._make_room(file, besides=part):
                    with part.open("wb") as empty:
                        empty.truncate(file.size)  # others count it whole from now on
                    break
            time.sleep(_POLL)  # other processes are downloading; what they have got can be removed once it is complete
        try:
            with part.open("r+b") as writing:
                download(file, writing)
            with self._lock("room"):  # whoever counts would miss a file that changes its name meanwhile
                part.replace(place)
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, file: RemoteFile, besides: Path) -> bool:
        """Remove the least recently used shards until another fits; whether it does, beside what is being downloaded."""
        if file.size > self.limit:
            raise RemoteError(f"{file} has {file.size:,} bytes, more than the {self.limit:,} of {BYTES}; allow more")
        there: list[tuple[int, int, Path]] = []
        for each in self.folder.iterdir():
            if each.suffix == ".part" and (each == besides or self._left_behind(each)):
                each.unlink(missing_ok=True)
            elif each.suffix in (".tar", ".part"):
                with contextlib.suppress(FileNotFoundError):
                    status = each.stat()
                    there.append((status.st_mtime_ns, status.st_size, each))
        taken = sum(size for _, size, _ in there)
        for _, size, each in sorted(there):
            if taken + file.size > self.limit and each.suffix == ".tar":
                each.unlink(missing_ok=True)
                taken -= size
        return taken + file.size <= self.limit

    def _left_behind(self, part: Path) -> bool:
        """Whether nobody is writing a part any more: whoever does holds its lock."""
        with (self.folder / f".{part.stem}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            return True

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.folder / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _watch(self, key: str, file: RemoteFile) -> None:
        """Say it once if shards come and go so fast that the cache is of no use."""
        self._again += key in self._had
        self._had.add(key)
        if self._again == _AGAIN:
            log.warning(
                "%s and %d others were downloaded again after they had been removed for lack of room: train with --shuffle shards, or "
                "allow more than %s bytes (%s)", file, _AGAIN - 1, f"{self.limit:,}", BYTES,
            )  # fmt: skip


def _key(file: RemoteFile) -> str:
    return hashlib.sha256(f"{file.url} {file.size} {file.changed}".encode()).hexdigest()[:32]
