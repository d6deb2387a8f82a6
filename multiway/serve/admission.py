"""Who is let in: those who can be answered in time, going by the work that is inside already. Whoever cannot is told at once.

By Little's law n rows that are inside leave after n times the time that passes between two rows that leave. This pace is measured
while there is work, for each operation; it holds whatever the bottleneck is, decoding or the model, and falls as batches fill up.
Refusing early, before a picture is decoded, is what keeps a server that is asked too much at its full rate: work for answers that
come too late is work that the others lack.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Admission", "Overloaded"]

_MEMORY_S = 3.0  # of work after which what was measured counts 1 / e
_MARGIN = 1.5  # work is uneven: who is let in may take half as long again


class Overloaded(Exception):
    """There is too much to do already; `seconds` until it is worth trying again."""

    def __init__(self, detail: str, seconds: float) -> None:
        super().__init__(detail)
        self.seconds = seconds


class Admission:
    """The work that is inside. For one event loop: nothing here is locked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._inside: Counter[str] = Counter()
        self._measured: dict[str, tuple[float, float]] = {}  # operation -> seconds and rows, older ones counting less
        self._since = 0.0  # when the last request was answered, or work began

    @contextmanager
    def enter(self, operation: str, rows: int, seconds: float) -> Iterator[None]:
        """Be inside for the length of a `with`; what ends in an error is not taken for answered.

        Args:
            operation: what is asked for.
            rows: how much of it.
            seconds: within which it has to be answered.

        Raises:
            Overloaded: if it would not be. With nothing inside, everybody is let in.
        """
        if self._inside.total():
            needed = sum(count * self._pace(name) for name, count in self._inside.items())
            needed += rows * self._pace(operation)
            if _MARGIN * needed > seconds:
                raise Overloaded(
                    f"the answer may take {_MARGIN * needed:.2g} s, and {seconds:.2g} s are left for it",
                    _MARGIN * needed - seconds,
                )
        else:
            self._since = self.clock()
        self._inside[operation] += rows
        try:
            yield
            now = self.clock()
            gap = now - self._since
            # By time, not by the number of requests: those that leave together, with one pass, count alike.
            kept = math.exp(-gap / _MEMORY_S)
            passed, done = self._measured.get(operation, (0.0, 0.0))
            self._measured[operation] = kept * passed + gap, kept * done + rows
            self._since = now
        finally:
            self._inside[operation] -= rows

    def _pace(self, operation: str) -> float:
        """Seconds a row; 0 as long as nothing is known."""
        passed, done = self._measured.get(operation, (0.0, 0.0))
        return passed / done if done else 0.0
