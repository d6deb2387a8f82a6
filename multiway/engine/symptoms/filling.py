"""Runs whose task is not yet the one that they will have: a queue that fills, a bank of which most rows are still random."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from multiway.engine.history import Finding, History
from multiway.engine.symptoms import gradients

__all__ = ["exploding_once_filled", "filled_since"]


def filled_since(run: History) -> float:
    """The step from which on losses are of one and the same task; 0 where they have been from the start.

    A queue that begins empty makes the task harder until it is full, and its chance value says so. A bank begins as random
    directions, which are easy to tell apart, and holds what the network said once each row was seen: after the first epoch,
    for methods that report `freshness` and no `queue_age`.
    """
    since = 0.0
    for name in run.terms:
        chance = run.chance(name).finite
        # More candidates, more chance; other chance values move for other reasons.
        if "ln " in run.formula(name) and len(chance) and chance.values[0] < 0.9 * chance.values[-1]:
            since = max(since, float(chance.steps[np.argmax(chance.values >= 0.98 * chance.values[-1])]))
    if len(run.report("freshness")) and not len(run.report("queue_age")):
        later = [float(line["step"]) for line in run.metrics if int(line.get("epoch", 1)) > 0]
        since = max(since, later[0] if later else float(run.last_step))
    return since


def exploding_once_filled(run: History) -> Iterator[Finding]:
    """`gradients.exploding`, but for the time in which the task itself grows."""
    since = filled_since(run)
    if since == 0:
        return gradients.exploding(run)
    lines = [line for line in run.metrics if line["step"] >= since]
    return gradients.exploding(History(lines, run.timings, run.watched, run.context))
