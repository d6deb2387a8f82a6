"""Embeddings that no longer tell their inputs apart."""

from __future__ import annotations

import math
from collections.abc import Iterator

from multiway.engine.history import Finding, History
from multiway.engine.symptoms.chance import BACKBONE, NO_EMBEDDINGS, Clue
from multiway.engine.symptoms.outputs import same_for_all
from multiway.engine.symptoms.view_causes import (
    RATE,
    agreed_without_negatives,
    of_line,
    of_point,
    sees_views,
    unpredicted,
)

__all__ = ["POINT", "collapsed", "few_directions"]

POINT = 0.1  # of the deviation of an even spread; mean cosine is then about 0.99
# Features before a projector have much in common, an untrained transformer's a cosine of 0.97 and more: this is 0.9999.
POINT_BELOW = 0.01
PLANE = 0.05  # of the directions that batch and width allow
AGREED_PLANE = 0.1  # likewise where nothing but agreement was asked for, and is reached or has no predictor in its way
LINE = 2.0  # directions: with a batch norm at the end, which takes the mean away, collapse is to a line
MIN_DIRECTIONS = 40  # below so many possible directions a small share of them means little


def collapsed(run: History) -> Iterator[Finding]:
    """All rows map to about one point: deviation near 0, mean cosine near 1."""
    for name in run.watched_features:
        deviation = run.health(f"{name}/std").tail().median()
        if name in NO_EMBEDDINGS or not deviation < POINT or (name == "projected" and any(same_for_all(run))):
            continue
        clues = of_point(run) if sees_views(run) else _usual()
        if run.jump:
            clues = [clue for clue in clues if clue[1] != RATE]
            clues.insert(
                0,
                (f"the learning rate is too high: the loss jumped to {run.jump:.3g}, and the encoder saturated", RATE),
            )
        cosine = run.health(f"{name}/mean_cosine").tail().median()
        shown = (
            "" if math.isnan(cosine) else f", and the mean cosine between different rows is {cosine:.3f} (collapse: 1)"
        )
        # The backbone is what is kept; it may have been spared.
        below = run.health(f"{BACKBONE}/std").tail().median() if name == "projected" else math.nan
        if not math.isnan(below):
            shown += f"; that of the backbone's features is {below:.3g}" + (
                ": only the projector has collapsed" if below >= POINT_BELOW else ": the backbone has collapsed with it"
            )
        yield Finding(
            "illness",
            name,
            "the projections have collapsed to a point, the backbone's features have not"
            if below >= POINT_BELOW
            else "the embeddings have collapsed to a point",
            f"the deviation of {name} per dimension is {deviation:.3g} of that of an even spread (collapse: 0, even: 1){shown}",
            tuple(cause for cause, _ in clues),
            tuple(remedy for _, remedy in clues),
        )


def _usual() -> list[Clue]:
    return [
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


def few_directions(run: History) -> Iterator[Finding]:
    """Dimensional collapse (Jing et al. 2022, arXiv 2110.09348): rows differ, but along a few directions only."""
    for name in run.watched_features:
        rank = run.health(f"{name}/rank").tail().median()
        limit = run.health(f"{name}/rank_limit").tail().median()
        if run.health(f"{name}/std").tail().median() < POINT:
            continue  # `collapsed` says it better
        # Without negatives a loss can be solved along few directions, which views that are as good as one tell, or a missing predictor.
        suspect = name == "projected" and (agreed_without_negatives(run) or unpredicted(run))
        allowed = AGREED_PLANE if suspect else PLANE
        if name in NO_EMBEDDINGS or not (limit >= MIN_DIRECTIONS and rank < allowed * limit):
            continue
        if name == "projected" and any(same_for_all(run)):
            continue
        clues = of_line(run) if sees_views(run) else _narrow()
        line = rank < LINE
        yield Finding(
            "illness" if line else "warning",
            name,
            "the embeddings have collapsed to a line" if line else "the embeddings use only a few directions",
            f"the effective rank of {name} is {rank:.3g} of at most {limit:g} (exp of the entropy of the singular values)",
            tuple(cause for cause, _ in clues),
            tuple(remedy for _, remedy in clues),
        )


def _narrow() -> list[Clue]:
    return [
        (
            "the augmentation removes what would tell rows apart, or is so weak that one feature suffices",
            "change the strength of the augmentation, and watch the rank",
        ),
        (
            "the projection head is too narrow, or its weight decay too strong",
            "widen the projection head, or lower the weight decay on it",
        ),
        (
            "the data hold only a few kinds of rows",
            "compare with the number of distinct captions or classes (`multiway data check`)",
        ),
    ]
