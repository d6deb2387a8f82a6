"""Gradient caching, planned: a few micro-batches are run, and counted as often as there are such."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from multiway.batch import Batch
from multiway.engine.cached import CachedStep
from multiway.engine.cached_leaves import Leaf
from multiway.engine.settings import Settings
from multiway.methods.method import Losses, Method, Reps, Step
from multiway.workflows.plan_meter import BACKWARD, FORWARD, LOSSES, TRACED, Meter
from multiway.world import World

__all__ = ["PlannedCachedStep"]


class PlannedCachedStep(CachedStep):
    """Gradient caching of a few micro-batches, which stand for all, and of the loss over all rows."""

    def __init__(self, method: Method, settings: Settings, world: World, meter: Meter, gpu: bool) -> None:
        # One rank with its own rows: there is nobody to send weights to. Losses alone see the others.
        super().__init__(method, replace(settings, batch=settings.batch // world.size), World(), lambda text: None)
        self.meter, self.gpu = meter, gpu
        self.begun = True  # the first step holds features against each other, which have no values here
        count = self.settings.batch // self.settings.cache
        self.share = count / min(count, TRACED)
        method.encode = partial(self._encode, method.encode)  # type: ignore[method-assign]
        for name in ("mine", "across", "losses"):
            setattr(method, name, partial(self._over_all, getattr(method, name), world))

    def micro_batches(self, rows: int) -> range:
        """The first few."""
        return range(0, rows, self.settings.cache)[:TRACED]

    def _encode(self, own: Any, batch: Batch, step: Step) -> Reps:
        self.meter.times = self.share
        self.meter.phase, self.meter.label = FORWARD, LOSSES
        return own(batch, step)  # type: ignore[no-any-return]

    def _over_all(self, own: Any, others: World, reps: Reps, *args: Any) -> Any:
        """A stage that sees all rows: with the other ranks in place of none, which come before the step."""
        self.meter.times = 1.0
        self.meter.label = LOSSES
        return own(reps, *args[:-2], others, args[-1])

    def _leaves(self, first: Reps, rows: int) -> dict[str, Leaf]:
        self.meter.label = "gradient cache"
        found = super()._leaves(first, rows)
        for leaf in found.values():
            if self.gpu and leaf.apart and self.settings.cache_on_cpu:
                for each in (leaf.value, leaf.gradient):
                    if each is not None:
                        self.meter.elsewhere(each)
        return found

    def _within(self, *args: Any) -> Losses:
        self.meter.times, self.meter.label = self.share, LOSSES
        return super()._within(*args)

    def _replay(self, *args: Any) -> None:
        self.meter.times = self.share
        self.meter.phase = self.meter.label = BACKWARD
        super()._replay(*args)
        self.meter.phase = FORWARD
