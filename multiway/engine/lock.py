"""One writer per run folder.

An advisory lock on `run.lock` that the system lets go of by itself when the process ends, however it ends: a lock that
is free is free, whatever a dead process left written in the file. The file says who holds it, for the message.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "RunLock", "RunLocked"]

log = logging.getLogger(__name__)

LOCK = "run.lock"
_PATIENCE = 2.0  # seconds
_held: set[int] = set()


class RunLocked(RuntimeError):
    """Another process is writing the same run."""


class RunLock:
    """Held from construction to `release`.

    Args:
        folder: of the run; it has to exist.

    Raises:
        RunLocked: naming process, machine and start of the one that holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._take(folder)
        except BaseException:
            os.close(self._descriptor)
            raise
        _held.add(self._descriptor)

    def _take(self, folder: Path) -> None:
        try:
            self._flock()
        except BlockingIOError:
            raise RunLocked(
                f"{folder} is being written by {self._holder()}; wait for it, stop it, or choose another --out"
            ) from None
        except OSError as error:  # some network file systems
            log.warning("%s cannot be locked (%s): make sure that no other process writes this run", folder, error)
        if self._written():
            log.warning("taking over %s from %s, which has ended without closing it", folder, self._holder())
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(who).encode(), 0)

    def _flock(self) -> None:
        if fcntl is None:
            raise OSError("this system has no flock")
        patience = time.monotonic() + _PATIENCE
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Killed a moment ago, with a worker just forked that has not yet let go of what it inherited?
                if not self._holder_is_dead() or time.monotonic() > patience:
                    raise
            time.sleep(0.05)

    def _written(self) -> dict[str, Any]:
        try:
            who = json.loads(os.pread(self._descriptor, 4096, 0))
        except ValueError:
            return {}
        return who if isinstance(who, dict) and isinstance(who.get("pid"), int) else {}

    def _holder(self) -> str:
        who = self._written()
        return f"process {who['pid']} on {who.get('host')} since {who.get('since')}" if who else "another process"

    def _holder_is_dead(self) -> bool:
        who = self._written()
        if not who or who.get("host") != socket.gethostname():
            return False
        try:
            os.kill(who["pid"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def release(self) -> None:
        """Let go; again does nothing. The file stays: deleting it would let two others lock two different files."""
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


def _let_go_in_child() -> None:
    # A forked loader worker inherits the open file, and with it would keep the lock of a parent that was killed.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
