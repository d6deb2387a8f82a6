"""Learning rate and weight decay as functions of the step alone, so that there is no scheduler whose state is saved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiway.engine.optim import OptimiserSpec

__all__ = ["schedule", "set_rates", "warm_up", "weight_decay_at"]


def warm_up(step: int, steps: int, spec: OptimiserSpec) -> float:
    """Share of the peak learning rate that warm-up allows, in (0, 1]; what has a constant rate follows this alone."""
    warmup = _count(spec.warmup, steps)
    return (step + 1) / (warmup + 1) if step < warmup else 1.0


def schedule(step: int, steps: int, spec: OptimiserSpec) -> float:
    """Share of the peak learning rate at a step, in (0, 1]: linear warm-up, then the decay to `floor`.

    Args:
        step: steps done so far.
        steps: at which the schedule ends; beyond it the rate stays where it is.
        spec: its shape.
    """
    warmup = _count(spec.warmup, steps)
    if step < warmup:
        return warm_up(step, steps, spec)
    if spec.decay == "constant":
        return 1.0
    if spec.decay == "steps":
        # Rounding up with a little play: 0.07 of 100 steps is 7.000000000000001 of them.
        return spec.factor ** sum(step >= math.ceil(_count(each, steps) - 1e-6) for each in spec.steps)
    progress = min(1.0, (step - warmup) / max(1.0, steps - warmup))
    share = 0.5 * (1.0 + math.cos(math.pi * progress)) if spec.decay == "cosine" else 1.0 - progress
    return spec.floor + (1.0 - spec.floor) * share


def weight_decay_at(step: int, steps: int, spec: OptimiserSpec) -> float:
    """Weight decay at a step: along half a cosine from `weight_decay` to `weight_decay_end`, or the same throughout.

    DINO's code (Caron et al., 2021, arXiv 2104.14294) goes from 0.04 to 0.4, without a warm-up.
    """
    if spec.weight_decay_end is None:
        return spec.weight_decay
    share = 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / steps)))
    return spec.weight_decay_end + (spec.weight_decay - spec.weight_decay_end) * share


def set_rates(groups: Iterable[dict[str, Any]], step: int, steps: int, lr: float, spec: OptimiserSpec) -> None:
    """Give every group of `parameter_groups` its learning rate and weight decay of a step.

    Args:
        groups: of the optimiser; changed in place.
        step: steps done so far.
        steps: at which the schedule ends.
        lr: the peak.
        spec: the schedule.
    """
    share, warm = schedule(step, steps, spec), warm_up(step, steps, spec)
    decay = weight_decay_at(step, steps, spec)
    for group in groups:
        group["lr"] = lr * group["factor"] * (warm if group["constant"] else share)
        if not group["exempt"]:
            group["weight_decay"] = decay


def _count(value: float, steps: int) -> float:
    """A number of steps, which a value below 1 says as a share of all."""
    return value * steps if value < 1 else value
