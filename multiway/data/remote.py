"""Files by URL: `s3://`, `gs://`, `https://`, whatever fsspec and its packages read; parts of them, patiently.

fsspec is asked for three things: what there is (`described`), a range of bytes (`read`), many ranges at once (`read_many`). What
goes wrong on the way is tried again, each time after twice the wait, and comes out as a `RemoteError` that names the URL without its
credentials. Keys, endpoints and the like are fsspec's own matter: its configuration files and `FSSPEC_...` variables.
"""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from multiway.data.source import DataError, stable_id

__all__ = [
    "RangeFile",
    "RemoteError",
    "RemoteFile",
    "described",
    "download",
    "filesystem",
    "is_remote",
    "read",
    "read_many",
    "read_small",
    "stamped",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(://|::)")
_ATTEMPTS = 6
_WAIT = 0.25  # seconds before the second attempt; 7.75 in all
_BLOCK = 1 << 20  # bytes that an index is built with: as long on the way as it takes to ask
_KEPT = 1 << 28  # bytes of words that are remembered while an index is built
_SMALL = 1 << 30  # bytes of a file that is read whole
_STAMPS = (
    "ETag", "etag", "md5Hash", "md5", "Content-MD5", "content_md5", "generation",
    "mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified", "created",
)  # fmt: skip


class RemoteError(Exception):
    """A remote file that could not be read.

    Attributes:
        gone: whether it is not there, and not merely out of reach.
    """

    def __init__(self, why: str, gone: bool = False) -> None:
        super().__init__(why)
        self.gone = gone


@dataclass(frozen=True)
class RemoteFile:
    """A file by URL.

    Attributes:
        url: as fsspec takes it.
        size: in bytes.
        changed: hash of whatever the storage says by which a changed file can be told (ETag, checksum, time); 0 if nothing.
    """

    url: str
    size: int = -1
    changed: int = 0

    @property
    def path(self) -> PurePosixPath:
        """Its path, for names: without protocol and query."""
        return PurePosixPath(_URL.sub("/", self.url.partition("?")[0] if self.url.startswith("http") else self.url))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

    def beside(self, name: str, up: int = 0) -> RemoteFile | None:
        """Another file in its folder, or `up` folders above; None above the host or the bucket."""
        bare = self.url.partition("?")[0] if self.url.startswith("http") else self.url
        folders = bare.split("/")[: -1 - up]
        return RemoteFile("/".join([*folders, name])) if len(folders) >= len(["s3:", "", "bucket"]) else None

    def __str__(self) -> str:
        """The URL for people, without signature or password."""
        shown = self.url.partition("?")[0] if self.url.startswith("http") else self.url
        return re.sub(r"://[^/@]*@", "://", shown)


def is_remote(name: str) -> bool:
    """Whether a name is a URL, and not a path."""
    return bool(_URL.match(name))


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it.

    Asked for anew each time: fsspec keeps one per process, and a worker cannot use its parent's.

    Raises:
        DataError: if fsspec, the protocol, or the package that reads it is missing; with what to install.
    """
    shown = RemoteFile(url)
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise DataError(f"{shown}: data by URL need fsspec: pip install 'multiway[remote]'") from error
    try:
        return url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        raise DataError(f"{shown}: {error}; pip install the package that is named") from error
    except ValueError as error:
        raise DataError(f"{shown}: {error}; expected s3://, gs://, https:// or another protocol of fsspec") from error


def stamped(url: str, info: Mapping[str, Any]) -> RemoteFile:
    """A remote file as its storage describes it.

    Raises:
        DataError: if the storage does not say how large it is.
    """
    size = info.get("size")
    if not isinstance(size, int):
        raise DataError(f"{RemoteFile(url)}: the server does not say how large it is; copy the shard elsewhere")
    said = next((f"{key} {info[key]}" for key in _STAMPS if info.get(key)), "")
    return RemoteFile(url, size, stable_id(said) if said else 0)


def described(urls: Sequence[str]) -> list[RemoteFile | None]:
    """Remote files with their sizes; None for each that is not there.

    A folder is listed once where the storage has folders; a web server is asked for each, several at a time.
    """
    files, _ = filesystem(urls[0])
    known: dict[str, Mapping[str, Any]] = {}
    parents = {url.rpartition("/")[0] for url in urls}
    listed = len(urls) > len(parents) and "http" not in str(files.protocol)
    for parent in parents if listed else ():
        try:
            known |= {info["name"].rstrip("/"): info for info in files.ls(files._strip_protocol(parent), detail=True)}
        except FileNotFoundError:
            continue

    def one(url: str) -> RemoteFile | None:
        info = known.get(files._strip_protocol(url))
        if info is None and not listed:
            try:
                info = _tried(RemoteFile(url), lambda: files.info(files._strip_protocol(url)))
            except RemoteError as error:
                if not error.gone:
                    raise DataError(str(error)) from error
        return stamped(url, info) if info is not None else None

    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(one, urls))


def read(file: RemoteFile, start: int, length: int) -> bytes:
    """Bytes [start, start + length).

    Raises:
        RemoteError: if they cannot be got, or are fewer.
    """
    files, path = filesystem(file.url)
    return _tried(file, lambda: _whole(file, files.cat_file(path, start=start, end=start + length), length))


def read_many(places: Sequence[tuple[RemoteFile, int, int]]) -> list[bytes | None]:
    """Many (file, start, length) at once; None for what failed, which is to be read alone, patiently."""
    if not places:
        return []
    files, _ = filesystem(places[0][0].url)
    paths = [files._strip_protocol(file.url) for file, _, _ in places]
    starts, ends = [start for _, start, _ in places], [start + length for _, start, length in places]
    try:
        found = files.cat_ranges(paths, starts, ends, on_error="return")
    except (
        Exception
    ) as error:  # whatever a storage's package raises: every row is then read alone, which says what is wrong
        log.debug("reading %d ranges at once failed: %s", len(places), error)
        return [None] * len(places)
    return [
        data if isinstance(data, bytes) and len(data) == length else None
        for data, (_, _, length) in zip(found, places, strict=True)
    ]


def read_small(file: RemoteFile) -> bytes | None:
    """A file that may be there or not, whole.

    Raises:
        RemoteError: if it is there and cannot be read.
    """
    files, path = filesystem(file.url)
    try:
        size = _tried(file, lambda: files.info(path)).get("size")
        if isinstance(size, int) and size > _SMALL:
            raise RemoteError(f"{file} has {size:,} bytes, more than {_SMALL:,}; remove it")
        return _tried(file, lambda: bytes(files.cat_file(path)))
    except RemoteError as error:
        if error.gone:
            return None
        raise


def download(file: RemoteFile, to: Any) -> None:
    """Copy a remote file to an open local one, from its beginning.

    Raises:
        RemoteError: if it cannot be got, or has another size than before.
    """
    done = 0
    while done < file.size:
        part = read(file, done, min(16 * _BLOCK, file.size - done))
        to.write(part)
        done += len(part)


def _whole(file: RemoteFile, data: bytes, length: int) -> bytes:
    if len(data) > length:
        raise RemoteError(
            f"{file}: the server sends {len(data):,} bytes where {length:,} are asked for; it knows no ranges, copy the shards to one that does"
        )
    if len(data) < length:
        raise OSError(f"only {len(data):,} of {length:,} bytes came; the file has become shorter, or the line broke")
    return data


def _tried(file: RemoteFile, action: Callable[[], T]) -> T:
    """The outcome of an action that may fail for a while."""
    wait = _WAIT
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return action()
        except (RemoteError, DataError):
            raise
        except PermissionError as error:
            raise RemoteError(f"{file} may not be read ({error}); check the credentials", True) from error
        except Exception as caught:  # every storage's package has its own
            behind = _cause(caught)
            if isinstance(behind, FileNotFoundError):
                raise RemoteError(
                    f"{file} is not there (any more); put it back or correct the pattern", True
                ) from caught
            status = getattr(behind, "status", 0) or 0
            if attempt == _ATTEMPTS or (400 <= status < 500 and status not in (408, 429)):
                said = f"{type(behind).__name__}: {behind}" if str(behind) else type(behind).__name__
                said = said.replace(file.url, str(file))  # messages repeat the URL, with its signature
                tries = f"after {attempt} attempts, " if attempt > 1 else ""
                raise RemoteError(
                    f"{file}: {tries}{said}; check the network and the storage", status in (401, 403)
                ) from caught
            log.debug("%s: attempt %d failed: %s", file, attempt, behind)
            time.sleep(wait)
            wait *= 2
    raise AssertionError("unreachable")


def _cause(error: Exception) -> BaseException:
    """What is behind an error: fsspec's web file system says "not found" of whatever stops it from asking."""
    behind = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(behind, Exception):
        return error
    status = getattr(behind, "status", 0)
    if status:
        return error if status in (404, 410) else behind
    return _cause(behind) if isinstance(behind, OSError) else error


class RangeFile(io.RawIOBase):
    """A remote file to be read from front to back, with leaps: a block at a time.

    Args:
        file: with its size.
        block: bytes that are got at once.
    """

    def __init__(self, file: RemoteFile, block: int = _BLOCK) -> None:
        self.file, self.block = file, block
        self._at, self._start, self._data = 0, 0, b""
        self._kept: dict[int, bytes] = {}
        self._room = _KEPT

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere; nothing is got before it is read."""
        self._at = offset + (0, self._at, self.file.size)[whence]
        return self._at

    def keep(self, offset: int, length: int) -> None:
        """Remember a part that has just been passed, since it will be read later."""
        if length <= min(self._room, self.block // 16):
            self._room -= length
            here = self._at
            self._at = offset
            self._kept[offset] = self.read(length)
            self._at = here

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer only at the end.

        Raises:
            RemoteError: if they cannot be got.
        """
        end = self.file.size if size < 0 else min(self._at + size, self.file.size)
        length = max(0, end - self._at)
        kept = self._kept.get(self._at, b"")
        if length and len(kept) >= length:
            self._at += length
            return kept[:length]
        first = self._at - self._start
        if length and not (first >= 0 and first + length <= len(self._data)):
            wanted = max(length, self.block)
            self._start, first = self._at, 0
            self._data = read(self.file, self._at, min(wanted, self.file.size - self._at))
        self._at += length
        return self._data[first : first + length]
