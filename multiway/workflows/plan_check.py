"""A plan held against what happens: a few steps of the real loop, their memory and their time."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from multiway.batch import Batch
from multiway.engine.device import choose_device
from multiway.engine.loop import StepRecord, train
from multiway.engine.settings import Settings
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import prepare
from multiway.world import World

__all__ = ["Measured", "measured", "trained_peak"]


@dataclass(frozen=True)
class Measured:
    """What a few steps took.

    Attributes:
        peak: bytes on the device, parameters and batch included.
        seconds: of a step, the median, without waiting for data.
    """

    peak: int
    seconds: float


class _Given:
    """Batches that were made beforehand."""

    def __init__(self, made: list[Batch]) -> None:
        self.made = made

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        return iter(self.made[start:stop])

    def epoch(self, step: int) -> float:
        return 0.0


class _Nobody:
    """Journals that keep nothing."""

    failed = False

    def say(self, text: str) -> None:
        """Nothing."""

    def resume(self, method: Any, optimiser: Any) -> int:
        return 0

    def log(self, record: StepRecord, seconds: float, waiting: float, rows: int) -> None:
        """Nothing."""

    def skip(self, step: int, messages: tuple[str, ...]) -> None:
        """Nothing."""

    def checkpoint(self, step: int, method: Any, optimiser: Any, score: float | None) -> None:
        """Nothing."""

    def settle(self) -> None:
        """Nothing."""


def measured(recipe: Recipe, steps: int = 6) -> Measured:
    """Train a few steps twice: once to see the memory, once for the time, which watching would lengthen.

    Args:
        recipe: precision decided; its data are at hand.
        steps: that are timed, after the first.

    Raises:
        DataError: if the data cannot be read.
    """
    peak = trained_peak(recipe)
    run, _ = _prepared(recipe, World(), steps + 1)
    taken: list[float] = []
    run(lambda record, seconds, waiting, rows: taken.append(seconds - waiting))
    return Measured(peak, statistics.median(taken[1:]))


def trained_peak(recipe: Recipe, world: World | None = None, steps: int = 3) -> int:
    """Bytes at the peak of a few steps of the loop, parameters and a batch included.

    On a processor by the profiler's record of every allocation, on a GPU by torch's own count.
    """
    run, there = _prepared(recipe, world or World(), steps)
    gc.collect()
    if choose_device(recipe.settings.device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(None)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        run(None)
    total = peak = there
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    events = [each for each in profiled.profiler.kineto_results.events() if each.name() == "[memory]"]
    for each in sorted(events, key=lambda each: each.start_ns()):
        total += each.nbytes()
        peak = max(peak, total)
    return peak


def _prepared(recipe: Recipe, world: World, steps: int) -> tuple[Callable[[Any], None], int]:
    """Something that trains the first steps, and the bytes of what is there before it does."""
    ready = prepare(recipe, world)
    batches = [ready.loader.batch(step) for step in range(steps)]
    # Schedules as in the whole run; nothing is logged, since that measures on its own.
    settings: Settings = replace(
        recipe.settings, steps=steps, horizon=recipe.settings.end_of_schedule, log_every=steps + 1
    )
    there = [*ready.method.parameters(), *ready.method.buffers()]
    there += [each for each in vars(batches[0]).values() if isinstance(each, torch.Tensor)]

    def run(progress: Any) -> None:
        train(ready.method, _Given(batches), settings, world, _Nobody(), finish=ready.finish, progress=progress)

    return run, sum(each.untyped_storage().nbytes() for each in there)
