"""Requests to stop, as people and schedulers make them: the step in hand is finished, saved, and the run ends well.

SIGINT is Ctrl-C. SIGTERM is what Slurm, Kubernetes and systemd send before they kill. SIGUSR1 is the early warning that a job asks
of its scheduler (`sbatch --signal=USR1@120`, SGE's `-notify`, IBM LSF's `-wa USR1 -wt 2`), and SIGUSR2 SGE's before it kills.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

__all__ = ["REQUESTS", "StopRequest"]

# Windows has no user signals.
REQUESTS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


class StopRequest:
    """A context in which those signals are a wish to stop; what handled them before is put back.

    SIGINT or SIGTERM a second time ends at once, by `KeyboardInterrupt`. Warnings may repeat, and mean no more than once.
    Outside the main thread Python catches no signals, and nothing is changed.

    Attributes:
        wanted: whether there was a request.
    """

    def __enter__(self) -> StopRequest:
        self.wanted = False
        self._old: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in REQUESTS:
                self._old[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: object) -> None:
        if self.wanted and number in (signal.SIGINT, signal.SIGTERM):
            raise KeyboardInterrupt
        self.wanted = True

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._old.items():
            # None: set by a program that embeds Python, which alone can put it back.
            if handler is not None:
                signal.signal(number, handler)
