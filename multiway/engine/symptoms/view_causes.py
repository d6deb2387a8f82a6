"""Why a method on several views of a picture collapses, likeliest first, by what its journal bears evidence for.

Without negatives, collapse is the best that a loss can reach, and only the build of the method keeps it away: a predictor and a
stop-gradient (Chen and He, SimSiam, 2020, arXiv 2011.10566, 4.1 and 4.2), or a predictor and a slow twin (Grill et al., BYOL, 2020,
arXiv 2006.07733, 5).
"""

from __future__ import annotations

import math

from multiway.engine.history import History
from multiway.engine.symptoms.chance import Clue, moves

__all__ = ["RATE", "agreed_without_negatives", "of_line", "of_point", "sees_views", "unpredicted"]

RATE = "divide the learning rate by 10, with a longer warm-up"
AGREED = 0.05  # distance of two views over that of two pictures
FAST = 0.95  # momentum of a twin below which it is hardly steadier than its student

_PREDICTOR: Clue = (
    "there is no predictor: both branches may go to one point together",
    "leave out `--method.no-predict`",
)
_STOP: Clue = (
    "gradients enter through the target: both branches go to one point together",
    "leave out `--method.no-stop-gradient`",
)
_NORM: Clue = (
    "no batch norm in the heads keeps the projections of a batch apart",
    "`--method.projector.hidden-norm batch`",
)
_RATE: Clue = ("the learning rate is too high", RATE)


def sees_views(run: History) -> bool:
    """Whether the run is of a method on several views of a picture."""
    return len(run.report("alignment")) > 0 or _without_negatives(run)


def agreed_without_negatives(run: History) -> bool:
    """Whether two views of a picture are as good as one, where no negatives keep pictures apart."""
    apart, cosine = run.report("alignment").tail().median(), run.health("projected/mean_cosine").tail().median()
    return _without_negatives(run) and apart < AGREED * (2.0 - 2.0 * cosine)


def unpredicted(run: History) -> bool:
    """Whether a method without negatives reports figures on its views and none of a predictor, without which it is known to collapse."""
    return _without_negatives(run) and len(run.report("alignment")) > 0 and not len(run.report("predictor_gain"))


def of_point(run: History) -> list[Clue]:
    """Why projections of all pictures are alike."""
    if not _without_negatives(run):
        blank: Clue = ("views are blank or all the same", "look at a batch with `multiway data show`")
        return [_RATE, _NORM, blank]
    return [*_build(run), _NORM, _RATE]


def of_line(run: History) -> list[Clue]:
    """Why projections lie along few directions: with a batch norm at the end, which takes their mean away, a collapse shows so."""
    views: Clue = (
        "views of a picture have too little in common, or one feature is enough to find them",
        "change the least of `--views.views.0.scale`, or the jitter, and watch the rank",
    )
    head: Clue = (
        "the projector's weight decay is too strong, or its learning rate too high",
        "lower `--optimiser.weight-decay`, and divide the learning rate by 3",
    )
    kinds: Clue = (
        "the data hold only a few kinds of pictures",
        "compare with the number of classes: `multiway data check`",
    )
    return [*(_build(run) if _without_negatives(run) else []), views, head, kinds]


def _without_negatives(run: History) -> bool:
    return any(moves(run, name) for name in run.terms)


def _build(run: History) -> list[Clue]:
    """What may be missing of a method without negatives."""
    # Who has a predictor reports what it adds. Journals from before these figures say nothing either way.
    figures, predictor = len(run.report("alignment")) > 0, len(run.report("predictor_gain")) > 0
    momentum = run.report("momentum").head().median()
    absent = [] if predictor else [_PREDICTOR]
    if math.isnan(momentum):
        return [*absent, _STOP] if figures else [_STOP, *absent]
    if absent and momentum >= FAST:
        return absent  # a slow twin is not to blame for what the predictor was to do
    fast: Clue = (
        f"the twin follows its student too fast: its momentum is {momentum:.3g}",
        f"raise `--method.momentum` to {'0.99 (0.996 is for a thousand epochs)' if momentum < 0.99 else '0.996, and train longer'}",
    )
    return [*absent, fast] if figures else [fast, *absent]
