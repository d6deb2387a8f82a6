"""Requests that come at about the same time share a forward pass: micro-batching, with one thread that runs the model.

A request waits for others at most `wait` seconds, or until the batch is full; while a batch is computed the next one gathers, so that
under load nobody waits for company. What may share a batch has the same operation and key (settings that hold for all its rows).
The queue is bounded, and what missed its deadline is dropped before it costs anything.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Batcher", "Closed", "Expired", "Full", "Operation"]


class Full(Exception):
    """The queue is full."""


class Expired(Exception):
    """The deadline passed."""


class Closed(Exception):
    """Nothing is taken any more."""


@dataclass(frozen=True)
class Operation:
    """What the model is asked to do.

    Attributes:
        name: for metrics.
        run: from the payloads of n requests to their n results; called in the model's thread.
        alone: never two requests at once.
    """

    name: str
    run: Callable[[list[Any]], Sequence[Any]]
    alone: bool = False


@dataclass
class _Job:
    operation: Operation
    key: Hashable
    payload: Any
    rows: int
    deadline: float
    arrived: float
    future: Future[Any] = field(default_factory=Future)

    def shares(self, other: _Job) -> bool:
        return not self.operation.alone and self.operation.name == other.operation.name and self.key == other.key


class Batcher:
    """The model's thread and the queue before it.

    Args:
        rows: of a batch at most; a request with more runs by itself.
        wait: seconds that a request waits for others.
        queue: rows that may wait.
        observe: told of every batch: operation, rows, requests, seconds.
    """

    def __init__(
        self,
        rows: int = 32,
        wait: float = 0.005,
        queue: int = 1024,
        observe: Callable[[str, int, int, float], None] = lambda *_: None,
    ) -> None:
        self.rows, self.wait, self.queue, self.observe = rows, wait, queue, observe
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def queued(self) -> int:
        """Rows that wait."""
        return sum(job.rows for job in list(self._jobs))

    def submit(
        self, operation: Operation, payload: Any, rows: int = 1, deadline: float = float("inf"), key: Hashable = None
    ) -> Future[Any]:
        """Queue a request; may be called from any thread.

        Args:
            rows: that it adds to the batch.
            deadline: by `time.monotonic()`.
            key: settings that requests of a batch must agree in.

        Raises:
            Full: if too many rows wait already.
            Closed: after `close`.
        """
        job = _Job(operation, key, payload, rows, deadline, time.monotonic())
        with self._changed:
            if self._closing:
                raise Closed("the server is shutting down")
            waiting = sum(other.rows for other in self._jobs if not other.future.done())
            if waiting and waiting + rows > self.queue:
                raise Full(f"{waiting:,} rows wait already, of at most {self.queue:,}")
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="model", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job.future

    async def ask(
        self, operation: Operation, payload: Any, rows: int = 1, deadline: float = float("inf"), key: Hashable = None
    ) -> Any:
        """As `submit`, and wait for the result. A task that is cancelled takes its request out of the queue.

        Raises:
            Full, Closed: from `submit`.
            Expired: if the result is not there by the deadline.
        """
        future = asyncio.wrap_future(self.submit(operation, payload, rows, deadline, key))
        try:
            await asyncio.wait((future,), timeout=None if deadline == float("inf") else deadline - time.monotonic())
            if not future.done():
                raise Expired("the answer was not ready in time")
            return future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Take nothing more, finish what was taken, end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if not self._jobs:
                    return
                jobs = self._gather()
            if jobs:
                self._compute(jobs)

    def _gather(self) -> list[_Job]:
        """The oldest request with those that may share its batch; waits for them, the lock being let go meanwhile."""
        while self._jobs:
            self._drop()
            if not self._jobs:
                break
            first = self._jobs[0]
            alike = [job for job in self._jobs if job is first or job.shares(first)]
            left = first.arrived + self.wait - time.monotonic()
            if self._closing or first.operation.alone or sum(job.rows for job in alike) >= self.rows or left <= 0:
                taken: list[_Job] = []
                rows = 0
                for job in alike:
                    if taken and rows + job.rows > self.rows:
                        break
                    rows += job.rows
                    taken.append(job)
                chosen = {id(job) for job in taken}
                self._jobs = deque(job for job in self._jobs if id(job) not in chosen)
                # From here on a request cannot be cancelled any more: it is computed.
                return [job for job in taken if job.future.set_running_or_notify_cancel()]
            self._changed.wait(left)
        return []

    def _drop(self) -> None:
        """Leave out what nobody waits for any more."""
        now = time.monotonic()
        for job in self._jobs:
            if job.deadline < now and job.future.set_running_or_notify_cancel():
                job.future.set_exception(Expired("the answer was not ready in time"))
        self._jobs = deque(job for job in self._jobs if not job.future.done())

    def _compute(self, jobs: list[_Job]) -> None:
        operation, began = jobs[0].operation, time.monotonic()
        rows = sum(job.rows for job in jobs)
        try:
            results = list(operation.run([job.payload for job in jobs]))
            if len(results) != len(jobs):
                raise RuntimeError(f"{operation.name} gave {len(results)} results for {len(jobs)} requests")
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            else:
                # One request that fails must not fail its companions.
                for job in jobs:
                    self._compute([job])
            return
        # Metrics first: whoever has the answer may look at them.
        self.observe(operation.name, rows, len(jobs), time.monotonic() - began)
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)
