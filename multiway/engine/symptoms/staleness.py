"""Banks and queues that no longer hold what the network says of a picture.

What a method reports:

    freshness   cosine of what is stored of a picture and its fresh feature, where the picture is met again
    alignment   squared distance of two views of a picture now: 2 - 2 cos
    queue_age   steps since the oldest key was made; with `momentum` it is `momentum.stale_queue` that judges it

A stored feature is of another view, and cannot be nearer than two views are now; rows of other pictures, at the mean cosine of
the batch, are what it has become when nothing is left of it. `Freshness` lies between: He et al., MoCo, 2020, arXiv 1911.05722,
section 3.2, on why keys have to be consistent; Wu et al., InstDisc, 2018, arXiv 1805.01978, whose rows are an epoch old.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from multiway.engine.history import Finding, History
from multiway.engine.symptoms.chance import HIGH_LR, HOPELESS, Clue
from multiway.engine.symptoms.momentum import UNPLANNED, stale_queue

__all__ = ["late", "stale_memory"]

STALE, ROTTEN = 0.4, 0.15  # of the way from other pictures' features to what two views have in common now
STALE_BANK, ROTTEN_BANK = 0.2, 0.05  # likewise where two views are not compared: views of one picture differ, too
APART = 0.05  # by so much two views of a picture have to be nearer than two pictures, for there to be a way


def late(run: History) -> bool:
    """Whether so much of the training is over that the network should move slowly."""
    planned = run.context.get("steps")
    trained = run.last_step - run.warm
    return trained >= HOPELESS and run.last_step >= 0.5 * planned if planned else trained >= UNPLANNED


def stale_memory(run: History) -> Iterator[Finding]:
    """Late in training, what is stored of a picture is hardly nearer to it than what is stored of others."""
    fresh = run.report("freshness").finite
    if len(fresh) < 5 or not late(run) or any(stale_queue(run)):
        return
    queued = len(run.report("queue_age")) > 0
    if not queued and int(run.metrics[-1].get("epoch", 0)) < 2:
        return  # rows are met again from the second epoch on
    other, apart = run.health("projected/mean_cosine").tail().median(), run.report("alignment").tail().median()
    now = 1.0 if math.isnan(apart) else 1.0 - apart / 2.0
    if not now - other > APART:
        return
    left = (fresh.tail().median() - other) / (now - other)
    stale, rotten = (STALE_BANK, ROTTEN_BANK) if math.isnan(apart) else (STALE, ROTTEN)
    if not left < stale:
        return
    clues = _queue(run) if queued else _bank(run)
    views = "" if math.isnan(apart) else f", two of its views now {now:.2f}"
    yield Finding(
        "illness" if left < rotten else "warning",
        "queue" if queued else "bank",
        "what it holds of a picture is stale",
        f"what is stored of a picture and its fresh feature have a mean cosine of {fresh.tail().median():.2f}{views}, different "
        f"pictures {other:.2f}: {max(0.0, left):.0%} of what a picture's feature says is left, at step {run.last_step}",
        tuple(cause for cause, _ in clues),
        tuple(remedy for _, remedy in clues),
    )


def _queue(run: History) -> list[Clue]:
    age, momentum = run.report("queue_age").tail().median(), run.report("momentum").tail().median()
    moved = f": over the queue's {age:.0f} steps it goes {1.0 - momentum**age:.0%} of the way" if age < math.inf else ""
    return [
        (
            f"the twin that makes the keys moves too fast{moved}",
            "raise `--method.momentum` and `--method.momentum-end`: 0.99 for some hundreds of steps, 0.999 beyond",
        ),
        ("the queue is too long for this pace", "halve `--method.queue`, or enlarge the batch, which renews it faster"),
        _rate(run),
    ]


def _bank(run: History) -> list[Clue]:
    epochs = int(run.metrics[-1].get("epoch", 0))
    seen = (
        f"a row is renewed once an epoch, every {run.last_step / epochs:.0f} steps, and the network moves on in between"
    )
    slow: Clue = (
        seen,
        "hold features to their rows with `--method.proximal 30`, or use keys of a twin: `multiway train moco`",
    )
    mixed: Clue = (
        "too much of the old feature stays in a row",
        "lower `--method.mix` (0.5: half of each)",
    )
    rate = _rate(run)
    return [rate, slow, mixed] if _peak(run) >= HIGH_LR else [slow, rate, mixed]


def _rate(run: History) -> Clue:
    peak = _peak(run)
    shown = f": its rate reached {peak:.2g}" if peak > 0 else ""
    return f"the network itself moves too fast{shown}", "divide the learning rate by 3, and let it decay"


def _peak(run: History) -> float:
    return float(run.lr.finite.values.max(initial=0.0))
