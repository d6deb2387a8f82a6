"""Embeddings that no longer tell their inputs apart."""

from __future__ import annotations

import math
from collections.abc import Iterator

from multiway.engine.history import Finding, History

__all__ = ["collapsed", "few_directions"]

RATE = "divide the learning rate by 10, with a longer warm-up"
POINT = 0.1  # of the deviation of an even spread; mean cosine is then about 0.99
PLANE = 0.05  # of the directions that batch and width allow
MIN_DIRECTIONS = 40  # below so many possible directions a small share of them means little


def collapsed(run: History) -> Iterator[Finding]:
    """All rows map to about one point: deviation near 0, mean cosine near 1."""
    for name in run.watched_features:
        deviation = run.health(f"{name}/std").tail().median()
        if not deviation < POINT:
            continue
        clues = [
            (
                "nothing in the loss pushes different rows apart: a missing stop-gradient, predictor, centring or negatives",
                "check which branch is detached and that negatives reach the loss",
            ),
            (
                "the learning rate is too high, and the encoder saturated",
                RATE,
            ),
            (
                "the encoder's input is constant: blank pictures, or everything masked",
                "look at a batch with `multiway data show`",
            ),
        ]
        if run.jump:
            clues.pop(1)
            clues.insert(
                0,
                (f"the learning rate is too high: the loss jumped to {run.jump:.3g}, and the encoder saturated", RATE),
            )
        cosine = run.health(f"{name}/mean_cosine").tail().median()
        shown = (
            "" if math.isnan(cosine) else f", and the mean cosine between different rows is {cosine:.3f} (collapse: 1)"
        )
        yield Finding(
            "illness",
            name,
            "the embeddings have collapsed to a point",
            f"the deviation of {name} per dimension is {deviation:.3g} of that of an even spread (collapse: 0, even: 1){shown}",
            tuple(cause for cause, _ in clues),
            tuple(remedy for _, remedy in clues),
        )


def few_directions(run: History) -> Iterator[Finding]:
    """Dimensional collapse (Jing et al. 2022, arXiv 2110.09348): rows differ, but along a few directions only."""
    for name in run.watched_features:
        rank = run.health(f"{name}/rank").tail().median()
        limit = run.health(f"{name}/rank_limit").tail().median()
        if run.health(f"{name}/std").tail().median() < POINT:
            continue  # `collapsed` says it better
        if not (limit >= MIN_DIRECTIONS and rank < PLANE * limit):
            continue
        yield Finding(
            "warning",
            name,
            "the embeddings use only a few directions",
            f"the effective rank of {name} is {rank:.3g} of at most {limit:g} (exp of the entropy of the singular values)",
            (
                "the augmentation removes what would tell rows apart, or is so weak that one feature suffices",
                "the projection head is too narrow, or its weight decay too strong",
                "the data hold only a few kinds of rows",
            ),
            (
                "change the strength of the augmentation, and watch the rank",
                "widen the projection head, or lower the weight decay on it",
                "compare with the number of distinct captions or classes (`multiway data check`)",
            ),
        )
