"""The run folder as the loop sees it: metrics in, checkpoints out, and the state to resume from."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

from multiway.engine import checkpoint
from multiway.engine.journal import Journal
from multiway.engine.loop import StepRecord
from multiway.engine.run import Run
from multiway.engine.settings import Settings
from multiway.engine.state import tensors_of
from multiway.methods.method import Method
from multiway.world import World

__all__ = ["Recorder"]


class Recorder:
    """`loop.Journals` over a run folder.

    Args:
        run: open for writing.
        settings: how many checkpoints to keep.
        world: all ranks take part in checkpoints; the main one writes the journal.

    Attributes:
        said: where sentences for people go (a checkpoint that was passed over, a resume).
    """

    def __init__(self, run: Run, settings: Settings, world: World) -> None:
        self.run, self.settings, self.world = run, settings, world
        self.said: Callable[[str], None] = lambda text: None
        self._journal: Journal | None = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._journal is not None:
            self._journal.close()

    def resume(self, method: Method, optimiser: torch.optim.Optimizer) -> int:
        """Load the newest good checkpoint, cut the journal back to it, and give its step; 0 on a fresh run."""
        loaded = checkpoint.load_latest(self.run.checkpoints, tensors_of(method, optimiser), self.world)
        step = loaded.step if loaded else 0
        if self.world.is_main:
            if loaded:
                for path, why in loaded.rejected:
                    self.said(f"checkpoint {path.name} is damaged ({why}); the one before it is used")
                self.said(f"resuming at step {step}")
            self._journal = Journal(self.run.path)
            self._journal.cut_back(step)
        return step

    def log(self, record: StepRecord, seconds: float, waiting: float, rows: int) -> None:
        """One line of metrics.jsonl, and the timings apart, because they cannot repeat."""
        if self._journal is None:
            return
        self._journal.log(record.step, record.to_json())
        self._journal.time(
            record.step,
            {"step_seconds": seconds, "data_seconds": waiting, "samples_per_second": rows / seconds},
        )

    def skip(self, step: int, messages: tuple[str, ...]) -> None:
        """Rows that were replaced because they could not be read."""
        with self.run.skipped_file.open("a", encoding="utf-8") as file:
            for message in messages:
                file.write(json.dumps({"step": step, "rank": self.world.rank, "why": message}) + "\n")

    def checkpoint(self, step: int, method: Method, optimiser: torch.optim.Optimizer, score: float | None) -> None:
        """Save the state after `step`; the journal is on disk before it, so a checkpoint never outruns its lines."""
        if self._journal is not None:
            self._journal.flush()
        checkpoint.save(
            self.run.checkpoints,
            step,
            tensors_of(method, optimiser),
            {"step": step},
            self.world,
            keep_last=self.settings.keep_last,
            keep_best=self.settings.keep_best,
            score=score,
        )
