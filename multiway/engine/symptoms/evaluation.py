"""Training that goes well by its own numbers, and not by those of the evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from multiway.engine.history import Finding, History

__all__ = ["evaluation_at_chance", "overfitting"]

# Metrics for which less is better; all others are scores.
LESS_IS_BETTER = ("rank", "loss", "perplexity", "error")


def overfitting(run: History) -> Iterator[Finding]:
    """The training loss keeps falling while the evaluation has been getting worse since its best."""
    name = run.scored
    series = run.evaluation(name).finite
    loss = run.loss.finite
    if len(series) < 4 or len(loss) < 10:
        return
    sign = -1.0 if _less_is_better(name) else 1.0
    best = int(np.argmax(sign * series.values))
    after = sign * series.values[best + 1 :]
    if len(after) < 2:
        return
    peak = float(series.values[best])
    # Worse by more than the width of what chance alone does to the best value, at every evaluation since.
    margin = max(_half_width(run, name, series.steps[best]), 0.02 * abs(peak))
    if not (after[-2:] < sign * peak - margin).all():
        return
    here = loss.since(series.steps[best])
    then, now = here.head(0.2).median(), here.tail(0.2).median()
    if not now < then - 0.02 * abs(then):
        return
    yield Finding(
        "warning",
        name,
        "overfitting: the evaluation gets worse while the training loss falls",
        f"{name} was best at step {series.steps[best]:g} ({peak:.4g}) and is {series.values[-1]:.4g} at step {series.steps[-1]:g}; "
        f"the training loss went from {then:.4g} to {now:.4g} meanwhile",
        (
            "too many passes over too few data",
            "too little augmentation, weight decay or dropout",
            "the evaluated split is of another kind than the training data",
        ),
        (
            f"use the checkpoint of step {series.steps[best]:g}, and plan for about as many steps",
            "augment more, or raise the weight decay",
            "compare both splits with `multiway data check`",
        ),
    )


def evaluation_at_chance(run: History) -> Iterator[Finding]:
    """A term is well below its chance value, but the evaluation cannot be told from chance."""
    name = run.scored
    value, chance = run.evaluation(name).finite, run.evaluation(name, "chance").finite
    if len(value) < 2 or not len(chance) or len(run.evaluation(name, "low")) == 0:
        return
    low, high = run.evaluation(name, "low").values, run.evaluation(name, "high").values
    # Two evaluations in a row whose interval holds chance, or lies on its wrong side.
    wrong = high >= chance.values[-1] if _less_is_better(name) else low <= chance.values[-1]
    if not wrong[-2:].all():
        return
    for term in run.terms:
        reached = run.term(term).tail().median()
        constant = run.chance(term).tail().median()
        if not (math.isfinite(constant) and reached < 0.8 * constant):
            continue
        yield Finding(
            "warning",
            name,
            "the evaluation is at chance although the loss is not",
            f"{name} is {value.values[-1]:.4g} (95 % interval from {low[-1]:.4g} to {high[-1]:.4g}, chance {chance.values[-1]:.4g}), "
            f"while {term} has reached {reached:.4g} (chance {run.formula(term)})",
            (
                "the training pairs are learned by heart",
                "pictures or text are prepared differently for the evaluation: size, normalisation, tokeniser",
                "the loss has found a shortcut that tells rows of a batch apart, such as a file's border or the length of a text",
            ),
            (
                "evaluate on the training split: if that is good, it is memory; use more data",
                "compare one row as training and as evaluation see it",
                "change the augmentation, and look at what the model attends to",
            ),
        )
        return


def _less_is_better(name: str) -> bool:
    return any(word in name.lower() for word in LESS_IS_BETTER)


def _half_width(run: History, name: str, step: float) -> float:
    """Half of the 95 % interval of a metric at a step; 0 if it was logged without."""
    low, high = run.evaluation(name, "low"), run.evaluation(name, "high")
    at = np.flatnonzero(low.steps == step)
    return float(high.values[at[0]] - low.values[at[0]]) / 2 if len(at) and len(low) == len(high) else 0.0
