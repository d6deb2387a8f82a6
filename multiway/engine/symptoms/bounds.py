"""Learned scalars that sit at the end of their allowed range."""

from __future__ import annotations

import math
from collections.abc import Iterator

from multiway.engine.history import Finding, History

__all__ = ["at_its_bound"]

NEAR = 0.01


def at_its_bound(run: History) -> Iterator[Finding]:
    """A watched number (`Method.watched`), such as the scale of a temperature, at its clamp."""
    for name, (low, high) in run.watched.items():
        series = run.report(name).finite
        if len(series) < 5:
            continue
        value = series.tail().median()
        for bound, which in ((low, "lower"), (high, "upper")):
            # A bound of 0 has no 1 % of its own; take that of the range.
            slack = NEAR * (abs(bound) or (high - low))
            if not math.isfinite(bound) or abs(value - bound) > slack:
                continue
            learning = any(
                run.term(term).tail().median() < 0.8 * run.chance(term).tail().median()
                for term in run.terms
                if len(run.chance(term))
            )
            yield Finding(
                "note" if learning and which == "upper" else "warning",
                name,
                f"at its {which} bound",
                f"{name} is {value:.4g} over the last steps; its bounds are {low:g} to {high:g}",
                (
                    ("large contrastive runs end there: the loss wants sharper logits than are allowed",)
                    if which == "upper"
                    else ("the loss has given up telling candidates apart, and flattens its logits",)
                )
                + (
                    "the learning rate of this scalar is too high",
                    "the data repeat, and the loss can be driven to zero",
                ),
                (
                    "if evaluation still improves, leave it"
                    if which == "upper"
                    else "see whether a term is at its chance value",
                    "give it a lower learning-rate multiplier",
                    "compare training and evaluation; use more data or augmentation",
                ),
            )
