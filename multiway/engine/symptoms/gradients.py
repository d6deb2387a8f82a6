"""Gradients that are too large, too small, not finite, or absent."""

from __future__ import annotations

import math
from collections.abc import Iterator

from multiway.engine.history import Finding, History

__all__ = ["dead_parameters", "exploding", "skipped_steps", "vanishing"]

GROWN = 10.0  # the gradient norm has multiplied by this since the warm-up
BLOWN_UP = 2.0  # the loss has multiplied by this since the start
TINY = 1e-6
DEAD = 0.5  # share of parameters without gradient


def skipped_steps(run: History) -> Iterator[Finding]:
    """Steps that were left out because loss or gradient was nan or inf."""
    if not run.skipped:
        return
    count, last = len(run.skipped), run.last_step
    logged = [int(line["step"]) for line in run.metrics]
    stopped = len(logged) >= 3 and set(logged[-3:]) <= set(run.skipped)
    share = count / max(1, last)
    terms = [name for name in run.terms if not all(map(math.isfinite, run.term(name).values))]
    broken = [name for name in run.watched_features if run.health(f"{name}/nonfinite").values.any()]
    where = (
        f"; not finite: {', '.join(terms)}" if terms else "; the terms were finite, so it arose in the backward pass"
    )
    where += f"; embeddings with nan or inf: {', '.join(broken)}" if broken else ""
    yield Finding(
        "illness" if stopped else "warning" if share > 0.01 else "note",
        "gradient",
        "no step succeeds any more" if stopped else "steps were skipped",
        f"{count} of {last} steps were skipped because loss or gradient was nan or inf, first {run.skipped[0]}, last {run.skipped[-1]}{where}",
        (
            "the learning rate is too high" if stopped or share > 0.01 else "a rare batch overflows",
            "an operation overflows in low precision, or divides by zero or takes the logarithm of zero on an empty or blank row",
            "the weights already hold nan: a finite loss cannot come back",
        ),
        (
            "resume from the last checkpoint before it with a third of the learning rate",
            "run some steps with --precision fp32; if that is clean, the loss needs fp32 inside",
            "check the newest checkpoint for nan, and pass over it",
        ),
    )


def exploding(run: History) -> Iterator[Finding]:
    """A loss that has grown, or a gradient norm that has multiplied since the warm-up."""
    loss, norm = run.loss.finite, run.grad_norm.finite
    remedies = (
        "divide the learning rate by 3 to 10",
        "warm up over more steps, and clip the gradient at 1",
        "bound the temperature, and watch its value in the report",
    )
    causes = (
        "the learning rate is too high",
        "the warm-up is too short, or the gradient is not clipped",
        "the scale of the logits has run away",
    )
    if len(loss) >= 5:
        # A loss can blow up within the first lines: their median would hide it.
        first, recent = min(float(loss.values[0]), loss.head().median()), loss.tail().median()
        if first > 0 and recent > BLOWN_UP * first:
            evidence = f"the loss has grown from {first:.4g} (first steps) to {recent:.4g} (last steps)"
            yield Finding("illness", "run", "the loss explodes", evidence, causes, remedies)
            return
    after = norm.since(run.warm)
    if len(after) >= 10:
        first, recent = after.head(0.2).median(), after.tail().median()
        if first > 0 and recent > GROWN * first:
            learning = len(loss) >= 10 and loss.tail().median() < 0.9 * loss.since(run.warm).head(0.2).median()
            evidence = (
                f"the norm of the gradient before clipping went from {first:.3g} after the warm-up to {recent:.3g}"
            )
            if learning:
                evidence += "; the loss is still falling"
            yield Finding(
                "note" if learning else "warning", "gradient", "the gradient grows", evidence, causes, remedies
            )


def vanishing(run: History) -> Iterator[Finding]:
    """A gradient of about zero although there is loss left to remove."""
    norm, loss = run.grad_norm.finite, run.loss.finite
    if len(norm) < 5 or len(loss) < 5:
        return
    recent = norm.tail().median()
    left = loss.tail().median()
    if recent > TINY or abs(left) < 0.05 * abs(loss.head().median()):
        return  # a loss that is nearly solved has no gradient either
    yield Finding(
        "illness",
        "gradient",
        "no gradient arrives" if recent == 0 else "the gradient vanishes",
        f"the norm of the gradient is {recent:.2g} over the last steps, while the loss is {left:.4g}",
        (
            "all parameters that matter are frozen, or the features are detached from the loss",
            "activations or a softmax are saturated: weights or logits have become very large",
            "the embeddings have collapsed, where contrastive losses are flat",
        ),
        (
            "check the learning-rate rules, and stop-gradients in the method",
            "restart with a lower learning rate; check the initial temperature",
            "see the findings about embeddings, if there are any",
        ),
    )


def dead_parameters(run: History) -> Iterator[Finding]:
    """More than half of what is trained receives a gradient of exactly zero (logged by `gradient_health`)."""
    series = run.health("gradient/zero_share")
    share = series.tail().median()
    if len(series) >= 3 and share > DEAD:
        yield Finding(
            "warning",
            "gradient",
            "most parameters receive no gradient",
            f"{share:.0%} of the trained parameters had a gradient of exactly zero over the last steps",
            (
                "a tower or head takes no part in the loss",
                "units died: ReLU after too large a step",
                "an embedding table is far larger than the data",
            ),
            (
                "freeze what takes no part (multiplier 0)",
                "lower the learning rate, or use GELU",
                "train the vocabulary on these captions",
            ),
        )
