"""The run folder as the loop sees it: numbers in, checkpoints out, and the state to resume from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from multiway.engine.loop import StepRecord
from multiway.engine.rollback import Rollback
from multiway.engine.run import Run
from multiway.engine.settings import Settings
from multiway.engine.state import tensors_of
from multiway.engine.tracking_thread import Tracking
from multiway.methods.method import Method

__all__ = ["Recorder"]


class Recorder:
    """`loop.Journals` over a run folder.

    Args:
        run: open for writing.
        settings: how many checkpoints to keep.
        say: where sentences for people go (a resume, a checkpoint that was passed over).
        rejected: rows that were left out when the data were opened; listed once, before step 1.
        tracking: trackers that are told of every line; none by default.
        beside: what a line says besides, a function of its step alone.
    """

    def __init__(
        self,
        run: Run,
        settings: Settings,
        say: Callable[[str], None],
        rejected: Sequence[str] = (),
        tracking: Tracking | None = None,
        beside: Callable[[int], dict[str, Any]] = lambda step: {},
    ) -> None:
        self.run, self.settings, self.say, self.rejected = run, settings, say, tuple(rejected)
        self.tracking, self.beside = tracking or Tracking(), beside
        self._since = time.perf_counter()  # the last line of timings.jsonl, or the start
        self._stood = 0.0  # seconds since then in which the loop stood still for a checkpoint
        self._later = settings.checkpoint_async

    @property
    def failed(self) -> bool:
        """Whether the checkpoint under way could not be written, as far as this rank knows."""
        return self.run.saving_failed

    def resume(self, method: Method, optimiser: torch.optim.Optimizer) -> int:
        """Load the newest good checkpoint, cut the journal back to it, and give its step; 0 on a fresh run."""
        targets, world = tensors_of(method, optimiser), self.run.world
        loaded = self.run.restore(targets)
        say = self.say if world.is_main else lambda text: None
        lines = self.run.metrics()
        self.rollback = Rollback(
            self.settings.rollback, self.run.checkpoints, targets, say, lines, world, settle=self.settle
        )
        self._since = time.perf_counter()
        self.tracking.tell(loaded.step if loaded else 0)
        if loaded is None:
            self.skip(0, self.rejected)
            return 0
        if self.run.world.is_main:
            for path, why in loaded.rejected:
                self.say(f"checkpoint {path.name} is damaged ({why}); an earlier one is used")
            self.say(f"resuming at step {loaded.step}")
        return loaded.step

    def log(self, record: StepRecord, seconds: float, waiting: float, rows: int) -> None:
        """One line of metrics.jsonl; the timings apart, because they cannot repeat.

        Args:
            record: of a step.
            seconds, waiting: that it took, and that it waited for data; a clock that went back makes them 0.
            rows: of the step, over all ranks.
        """
        journal = self.run.journal
        if journal is not None:
            back = self.rollback.after(record.step, record.applied)
            journal.log(record.step, record.to_json() | back | self.beside(record.step))
            journal.time(record.step, self._timing(max(0.0, seconds), max(0.0, waiting), rows))
            self.tracking.tell(record.step)

    def _timing(self, seconds: float, waiting: float, rows: int) -> dict[str, float]:
        now = time.perf_counter()
        timing = {"step_seconds": seconds, "data_seconds": waiting}
        if seconds > 0:  # of a clock that stood still no speed can be told
            timing["samples_per_second"] = rows / seconds
        timing |= {"loop_seconds": max(0.0, now - self._since), "checkpoint_seconds": self._stood}
        self._since, self._stood = now, 0.0
        return timing

    def skip(self, step: int, messages: tuple[str, ...]) -> None:
        """Rows that were replaced because they could not be read."""
        if self.run.journal is not None:
            self.run.journal.skip(step, messages)

    def checkpoint(self, step: int, method: Method, optimiser: torch.optim.Optimizer, score: float | None) -> None:
        """Save the state after `step`, unless that has just failed and there are steps to come.

        The last one of all is written at once: there is nothing left to do beside it.
        """
        last = step >= self.settings.steps
        if self.rollback.spoilt(step) and not last:
            return
        began = time.perf_counter()
        keep = {"keep_last": self.settings.keep_last, "keep_best": self.settings.keep_best, "score": score}
        tensors, scalars = tensors_of(method, optimiser), {"step": step}
        if last or not self._later:
            self.run.save(step, tensors, scalars, **keep)
        else:
            first = not self.run.copied_bytes
            self._later = self.run.save_later(step, tensors, scalars, **keep)
            if self.run.world.is_main and first:
                self.say(
                    f"checkpoints are written beside training, from a copy of {self.run.copied_bytes / 1e6:,.0f} MB in main memory"
                    if self._later
                    else "there is no memory for a copy of the tensors: training waits until a checkpoint is written"
                )
        self._stood += max(0.0, time.perf_counter() - began)

    def settle(self) -> None:
        """Wait for the checkpoint under way."""
        began = time.perf_counter()
        self.run.settle()
        self._stood += max(0.0, time.perf_counter() - began)
