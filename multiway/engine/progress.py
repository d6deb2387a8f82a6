"""What a person sees while it trains: one line with each loss beside its chance value, speed, waiting and time left."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

from multiway.engine.loop import StepRecord

__all__ = ["ProgressLine"]

_WINDOW = 20  # steps over which speed and waiting are averaged


class ProgressLine:
    """A live bar on a terminal; elsewhere a line of text now and then.

    Args:
        steps: of the whole run.
        start: steps done before this process.
        console: where it goes.
        every: seconds between lines where there is no terminal.
    """

    def __init__(self, steps: int, start: int = 0, console: Console | None = None, every: float = 15.0) -> None:
        self.steps = steps
        self.console = console or Console(stderr=True)
        self.every = every
        self._times: deque[tuple[float, float, int]] = deque(maxlen=_WINDOW)
        self._said = -math.inf  # the first step is said at once
        self._bars: Bars | None = None
        if self.console.is_terminal:
            self._bars = Bars(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[said]}"),
                console=self.console,
            )
            self._task = self._bars.add_task("training", total=steps, completed=start, said="")

    def __enter__(self) -> ProgressLine:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, record: StepRecord, seconds: float, waiting: float, rows: int) -> None:
        """Called after every step."""
        self._times.append((max(0.0, seconds), max(0.0, waiting), rows))
        if self._bars is not None:
            self._bars.update(self._task, completed=record.step, said=self.describe(record))
        elif time.monotonic() - self._said > self.every or record.step == self.steps:
            self._said = time.monotonic()
            self.console.print(f"step {record.step}/{self.steps}  {self.describe(record)}", highlight=False)

    def describe(self, record: StepRecord) -> str:
        """`itc 1.234 (chance 4.852) | 203 rows/s | 1% waiting | 2:31 left`."""
        # A clock may not have moved between two steps, or have been set back.
        total = max(sum(seconds for seconds, _, _ in self._times), 1e-9)
        speed = sum(rows for _, _, rows in self._times) / total
        waiting = sum(wait for _, wait, _ in self._times) / total
        left = (self.steps - record.step) * total / len(self._times)
        parts = [_term(name, term) for name, term in record.terms.items()]
        parts += [f"{speed:,.0f} rows/s", f"{waiting:.0%} waiting", f"{_clock(left)} left"]
        return " | ".join(parts)


def _term(name: str, term: dict[str, Any]) -> str:
    chance = "" if term["chance"] is None else f" (chance {term['chance']:.3f})"
    return f"{name} {term['value']:.3f}{chance}"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
