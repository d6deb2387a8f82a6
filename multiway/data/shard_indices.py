"""The indices of many shards, several at a time: threads where they are far away, processes where they are here.

What has an index already costs no more than reading it, so that indexing can be stopped and gone on with.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from multiway.data.remote import RemoteFile
from multiway.data.shard_index import ShardIndex, index_of
from multiway.data.shard_names import ShardFile
from multiway.data.shard_remote import remote_index_of
from multiway.data.source import DataError

__all__ = ["indices_of", "stamp_of"]

_AT_ONCE = 8  # remote shards, unless more are asked for


def stamp_of(tar: ShardFile) -> tuple[str, int, int]:
    """(name, size, what changes with it) of a shard.

    Raises:
        DataError: if it is not there.
    """
    if isinstance(tar, RemoteFile):
        return tar.url, tar.size, tar.changed
    try:
        status = tar.stat()
    except OSError as error:
        raise DataError(f"{tar}: the shard cannot be read ({error.strerror}); correct the pattern") from error
    return str(tar.absolute()), status.st_size, status.st_mtime_ns


def indices_of(tars: Sequence[ShardFile], workers: int = 0) -> Iterator[ShardIndex]:
    """The index of each shard, in order.

    Args:
        tars: the shards.
        workers: shards that are indexed at once; 0 is one of local files, and several of remote ones.

    Raises:
        DataError: for the first that cannot be used, or if a worker was killed.
    """
    remote = any(isinstance(tar, RemoteFile) for tar in tars)
    count = min(workers or (_AT_ONCE if remote else 1), len(tars))
    if count <= 1:
        yield from map(_index, tars)
        return
    pool: Executor = ThreadPoolExecutor(count)
    if not remote:
        pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    waiting: deque[Future[ShardIndex]] = deque()
    try:
        for tar in tars:
            waiting.append(pool.submit(_index, tar))
            if len(waiting) > 2 * count:  # no more of them in memory than are being made
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            f"one of the {count} processes that index shards was ended from outside, as a rule for want of memory; ask for fewer "
            "workers. Shards that have an index keep it"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _index(tar: ShardFile) -> ShardIndex:
    return remote_index_of(tar) if isinstance(tar, RemoteFile) else index_of(tar)
