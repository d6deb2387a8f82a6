"""The run folder as the loop sees it: numbers in, checkpoints out, and the state to resume from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    """

    def __init__(
        self,
        run: Run,
        settings: Settings,
        say: Callable[[str], None],
        rejected: Sequence[str] = (),
        tracking: Tracking | None = None,
    ) -> None:
        self.run, self.settings, self.say, self.rejected = run, settings, say, tuple(rejected)
        self.tracking = tracking or Tracking()

    def resume(self, method: Method, optimiser: torch.optim.Optimizer) -> int:
        """Load the newest good checkpoint, cut the journal back to it, and give its step; 0 on a fresh run."""
        targets, world = tensors_of(method, optimiser), self.run.world
        loaded = self.run.restore(targets)
        say = self.say if world.is_main else lambda text: None
        self.rollback = Rollback(self.settings.rollback, self.run.checkpoints, targets, say, self.run.metrics(), world)
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
        """One line of metrics.jsonl; the timings apart, because they cannot repeat."""
        journal = self.run.journal
        if journal is not None:
            back = self.rollback.after(record.step, record.applied)
            journal.log(record.step, record.to_json() | back)
            speed = {"step_seconds": seconds, "data_seconds": waiting, "samples_per_second": rows / seconds}
            journal.time(record.step, speed)
            self.tracking.tell(record.step)

    def skip(self, step: int, messages: tuple[str, ...]) -> None:
        """Rows that were replaced because they could not be read."""
        if self.run.journal is not None:
            self.run.journal.skip(step, messages)

    def checkpoint(self, step: int, method: Method, optimiser: torch.optim.Optimizer, score: float | None) -> None:
        """Save the state after `step`, unless that has just failed and there are steps to come."""
        if self.rollback.spoilt(step) and step < self.settings.steps:
            return
        self.run.save(
            step,
            tensors_of(method, optimiser),
            {"step": step},
            keep_last=self.settings.keep_last,
            keep_best=self.settings.keep_best,
            score=score,
        )
