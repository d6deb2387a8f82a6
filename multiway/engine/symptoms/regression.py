"""Regression of a target that the network itself makes (BYOL, SimSiam), which says no more than the mean target.

Its chance value is the mean target's score. A loss at it has learned nothing, however small it is: where all targets are one
point, the best constant prediction is perfect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from multiway.engine.history import Finding, History
from multiway.engine.symptoms.chance import HOPELESS, NEAR, PATIENCE, Clue, last_stretch, moves, ratios
from multiway.engine.symptoms.collapse import POINT, few_directions

__all__ = ["predicts_the_mean"]

FALLING = 0.01  # of the ratio, over the run: such a term is on its way


def predicts_the_mean(run: History) -> Iterator[Finding]:
    """A prediction of another view that is no nearer to it than the mean of all targets, up to the last step."""
    if run.health("projected/std").tail().median() < POINT or any(few_directions(run)):
        return  # that says it better, and the ratio of two losses of about 0 is noise
    for name, ratio in ratios(run):
        if not moves(run, name):
            continue
        since = last_stretch(ratio, ratio.values >= 1.0 - NEAR)
        if since is None or run.last_step - max(since, run.warm) < PATIENCE:
            continue
        recent, before = ratio.tail(0.2).median(), ratio.since(run.warm).head(0.4).median()
        if recent < (1.0 - FALLING) * before:
            continue
        lasted = run.last_step - since
        clues = _clues(run)
        yield Finding(
            "illness" if lasted >= HOPELESS else "warning",
            name,
            "predicts no more than the mean target",
            f"{name} is {run.term(name).tail().median():.4g} over the last steps, {recent:.3g} times what the mean target alone "
            f"scores ({run.formula(name)}), and has not been below that for {lasted:g} steps (step {since:g} to {run.last_step})",
            tuple(cause for cause, _ in clues),
            tuple(remedy for _, remedy in clues),
        )


def _clues(run: History) -> list[Clue]:
    behind: Clue = (
        "the predictor does not keep up with targets that move: its learning rate is too low, or decays too early",
        "raise the rate of the predictor, or of all",
    )
    runs: Clue = (
        "the twin moves as fast as its student, and there is nothing steady to predict",
        "raise `--method.momentum`: 0.97 for runs of some dozens of epochs, 0.99 for hundreds, 0.996 for a thousand",
    )
    hard: Clue = (
        "two views of a picture have too little in common: crops are too small, colours are changed too strongly",
        "raise the least of `--views.views.0.scale`, and lower the jitter, until the term falls",
    )
    momentum = run.report("momentum").head().median()
    if math.isnan(momentum):
        return [behind, hard]  # no twin
    return [runs, behind, hard] if momentum < 0.95 else [behind, hard, runs]
