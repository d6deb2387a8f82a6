"""Trackers beside a training run: told of every logged step, waited for by nobody.

Each tracker has a thread. The training loop leaves it a step number and goes on; the thread reads the lines from the
journal and sends them. An error is said once and counted, and the lines are tried again, at growing intervals, until the
run ends. Whatever is missing then stays in the run folder, from where the next start or `multiway track` sends it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from multiway.engine.run import Run
from multiway.engine.tracking import Status, Target, open_tracker
from multiway.engine.tracking_delivery import Delivery, Kept

__all__ = ["Courier", "Tracking"]

PATIENCE = 30.0  # seconds that the end of a run waits for its trackers, all together
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0  # seconds between two tries of a tracker that fails


class Courier:
    """One tracker's thread.

    Args:
        delivery: what it works on; touched by the thread alone until `wait`.
        say: where sentences for people go.
        pause: seconds before a second try; it doubles with every failure that follows.

    Attributes:
        errors: how often the tracker failed.
    """

    def __init__(self, delivery: Delivery, say: Callable[[str], None], pause: float = _FIRST_PAUSE) -> None:
        self.errors = 0
        self._delivery, self._say, self._pause = delivery, say, pause
        self._news = threading.Condition()
        self._told = self._reached = -1
        self._status: Status | None = None
        self._done = False
        # A daemon: a tracker that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"track {delivery.target}", daemon=True)
        self._thread.start()

    def tell(self, step: int) -> None:
        """All lines up to `step` are in the journal."""
        with self._news:
            self._told = step
            self._news.notify()

    def end(self, status: Status) -> None:
        """Nothing more will come; does not wait."""
        with self._news:
            self._status = status
            self._news.notify()

    def wait(self, patience: float) -> None:
        """Give the thread some seconds for what is left after `end`, and say what came of it if that was not everything."""
        self._thread.join(patience)
        where = self._delivery.target
        if self._done:
            if self.errors:
                self._say(f"{where} failed {self.errors} times, and has every line after all")
            return
        why = f"failed {self.errors} times" if self.errors else "did not take the last lines in time"
        lacks = f"lines after step {self._delivery.sent}" if self._delivery.sent >= 0 else "this run"
        self._say(f"{where} {why} and lacks {lacks}: multiway track {self._delivery.folder} --to {where}")

    def _work(self) -> None:
        pause = 0.0
        while True:
            with self._news:
                if pause:
                    self._news.wait_for(lambda: self._status is not None, pause)
                else:
                    self._news.wait_for(lambda: self._told > self._reached or self._status is not None)
                told, status = self._told, self._status
            try:
                if told >= 0:  # a run that ends before it has begun is not worth telling of
                    self._delivery.bring(told)
                if status is not None:
                    self._delivery.finish(status)
                    self._done = True
                self._reached, pause = told, 0.0
            except (Exception, SystemExit) as error:  # a stranger's code, which must not end the run
                self._failed(error)
                pause = min(2 * pause, _LONGEST_PAUSE) if pause else self._pause
            if status is not None:
                return

    def _failed(self, error: BaseException) -> None:
        self.errors += 1
        if self.errors == 1:
            what = " ".join(str(error).split())[:300]
            self._say(
                f"{self._delivery.target} failed ({type(error).__name__}: {what}); training goes on, every number is in "
                f"{self._delivery.folder}, and it is tried again without further words"
            )


class Tracking:
    """The trackers of a run; a context manager around its training.

    Attributes:
        status: how the run ended; whoever trains sets it. What is left by an exception has failed.
    """

    def __init__(self, couriers: Iterable[Courier] = (), patience: float = PATIENCE) -> None:
        self.status: Status | None = None
        self._couriers, self._patience = tuple(couriers), patience

    @classmethod
    def of(cls, run: Run, asked: Iterable[Target], say: Callable[[str], None]) -> Tracking:
        """The trackers that are asked for, on the main rank; none on others.

        Args:
            run: open for writing.
            asked: trackers whose libraries are there, see `tracking.require`.
            say: where sentences for people go; called from several threads.
        """
        if not run.world.is_main:
            return cls()
        kept = Kept(run.path)
        return cls(
            Courier(Delivery(run.path, run.config, each, open_tracker(each, run.path), kept), say) for each in asked
        )

    def tell(self, step: int) -> None:
        """All lines up to `step` are in the journal, which has been cut back where it was to be."""
        for courier in self._couriers:
            courier.tell(step)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hurried = error is not None and not isinstance(error, Exception)  # Ctrl-C twice means now
        status: Status = self.status or ("stopped" if hurried or error is None else "failed")
        for courier in self._couriers:
            courier.end(status)
        deadline = time.monotonic() + (min(self._patience, 2.0) if hurried else self._patience)
        for courier in self._couriers:
            courier.wait(max(0.0, deadline - time.monotonic()))
