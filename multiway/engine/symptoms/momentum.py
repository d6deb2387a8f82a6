"""Momentum twins that have lost their student, and queues that hold what nobody would say any more.

What a method reports (all optional; a name that was never logged silences what needs it):

    twin_gap            ||theta - twin|| / ||theta||, taken before the twin's step: 0 at the first
    student_accuracy    share of pictures whose own text scores highest in the batch, by the student's features
    twin_accuracy       likewise by the twin's, in the same batch
    queue_age           steps since the oldest entry of the queue was made
    queue_gap           distance between the mean cosines to fresh and to queued candidates, in deviations of the former
    momentum            m of the twin; its memory is 1 / (1 - m) steps

He et al., MoCo, 2020, arXiv 1911.05722, section 3.2: a queue is consistent only if the encoder that fills it moves slowly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from multiway.engine.history import Finding, History
from multiway.engine.symptoms.chance import HIGH_LR, HOPELESS, Clue, still_falls

__all__ = ["stale_queue", "twin_too_far"]

STALE, ROTTEN = 0.6, 1.5  # deviations between fresh and queued candidates, late in training
HEALING = 0.3  # a gap that falls by so much from fifth to fifth is that of a fast beginning
MEMORIES = 3.0  # memories of the twin, after which little of what it was is left
BEHIND = 0.7  # of the student's accuracy
MARGIN = 0.05  # and this far below it: accuracies of one batch are noisy
LINES = 10  # so many lines of them are compared at least
UNPLANNED = 1000  # steps after which a run of unknown length counts as half over
FAR = 0.5  # of the student's norm, late in training
APART = 0.1  # twins begin as copies: such a gap in the first steps is none that training made


def stale_queue(run: History) -> Iterator[Finding]:
    """Queued candidates that differ in kind from fresh ones, when training should have slowed down.

    The loss can then tell candidates by their age. In the first hundreds of steps that is so in every run: a model that
    leaves its initial state moves faster than any twin, and the queue holds what it was (gaps of 20 deviations heal).
    """
    if not _late(run):
        return
    gaps = run.report("queue_gap").finite
    gap, age = gaps.tail().median(), run.report("queue_age").tail().median()
    memory = _memory(run)
    old = age > MEMORIES * memory
    if not (gap > STALE or (old and not gap < STALE / 2)) or still_falls(gaps.smooth(), HEALING):
        return
    numbers = []
    if not math.isnan(gap):
        numbers.append(
            f"cosines to the queue differ from those to the twin's features of the batch by {gap:.2g} deviations (fresh: 0)"
        )
    if not math.isnan(age):
        within = f", where the twin remembers about {memory:.0f}" if not math.isnan(memory) else ""
        numbers.append(f"its oldest entry is {age:.0f} steps old{within}")
    clues = _queue_clues(run, age, memory)
    yield Finding(
        "illness" if gap > ROTTEN else "warning",
        "queue",
        "its entries are stale",
        "; ".join(numbers) + f", at step {run.last_step}",
        tuple(cause for cause, _ in clues),
        tuple(remedy for _, remedy in clues),
    )


def _queue_clues(run: History, age: float, memory: float) -> list[Clue]:
    old, peak = age > MEMORIES * memory, _peak(run)
    long: Clue = (
        f"the queue is too long for this twin: it spans {age / memory:.1f} of its memories"
        if old
        else "the queue is long",
        f"shorten the queue to {MEMORIES * memory / age:.0%} of its length"
        if old
        else "shorten the queue (ALBEF: `--method.queue`); a larger batch renews it faster",
    )
    fast: Clue = (
        "the twin moves too fast for its queue: its momentum is too low",
        "raise the momentum: 0.99 for some hundreds of steps, 0.995 for some thousands, 0.999 beyond",
    )
    hot: Clue = (
        "the model itself moves too fast" + (f": the learning rate reached {peak:.2g}" if peak > 0 else ""),
        "divide the learning rate by 3, and let it decay",
    )
    if old:
        return [long, hot, fast] if peak >= HIGH_LR else [long, fast, hot]
    return [hot, fast, long] if peak >= HIGH_LR else [fast, hot, long]


def twin_too_far(run: History) -> Iterator[Finding]:
    """A twin that finds fewer pairs than its student, or is far from it, once training should have slowed down."""
    if not _late(run):
        return
    gaps = run.report("twin_gap").finite
    gap = gaps.tail().median()
    twin, student = _accuracies(run)
    worse = twin < BEHIND * student and student - twin > MARGIN
    # A gap that shrinks is the end of a fast beginning.
    distant = gap > FAR and len(gaps) >= LINES and gap > 0.9 * gaps.smooth().tail(0.5).head(0.4).median()
    if not (worse or distant):
        return
    numbers = []
    if not math.isnan(gap):
        numbers.append(f"it is {gap:.2g} of the student's norm away")
    if not math.isnan(twin):
        numbers.append(f"it finds {twin:.0%} of the texts of a batch, its student {student:.0%}")
    clues = _twin_clues(run, gap)
    yield Finding(
        "illness" if worse and twin < 0.5 * student else "warning",
        "twin",
        "too far from its student",
        "; ".join(numbers) + f", at step {run.last_step}",
        tuple(cause for cause, _ in clues),
        tuple(remedy for _, remedy in clues),
    )


def _accuracies(run: History) -> tuple[float, float]:
    """The twin's accuracy over the last fifth, and what the student's was: nan if there are too few lines.

    A twin lags behind a student that learns quickly, which is no illness; the student's is the lower of its last two fifths.
    """
    twin, student = run.report("twin_accuracy").finite, run.report("student_accuracy").finite
    count = max(LINES, math.ceil(0.2 * len(student)))
    if len(twin) < count or len(student) < 2 * count:
        return math.nan, math.nan
    now, before = np.median(student.values[-count:]), np.median(student.values[-2 * count : -count])
    return float(np.median(twin.values[-count:])), float(min(now, before))


def _twin_clues(run: History, gap: float) -> list[Clue]:
    """Causes of a distant twin with their remedies, those that the numbers speak for first."""
    gaps, memory, peak = run.report("twin_gap").finite, _memory(run), _peak(run)
    slow = memory > 0.2 * run.last_step
    shown = f": it reached {peak:.2g}" if not math.isnan(peak) else ""
    follows = (
        f"the twin averages over about {memory:.0f} of {run.last_step} steps" if slow else "the momentum is too high"
    )
    ranked: list[tuple[float, Clue]] = [
        (
            2.0 if slow else 1.0,
            (follows, "lower the momentum: 0.99 for some hundreds of steps, 0.995 for some thousands"),
        ),
        (2.5 if peak >= HIGH_LR else 0.9, (f"the learning rate is too high{shown}", "divide it by 3 to 10")),
    ]
    if len(gaps) and gaps.values[0] > APART and gaps.steps[0] <= 10:
        apart: Clue = (
            f"it did not begin as a copy: at step {gaps.steps[0]:g} it was {gaps.values[0]:.2g} away already",
            "copy the student into the twin after weights are loaded (`nn.twin.copy_weights`)",
        )
        ranked.append((3.0, apart))
    if len(gaps) >= LINES and gap > 0.9 * float(gaps.values.max()):
        alone: Clue = (
            "it hardly follows: the distance has only grown",
            "check that `after_step` moves the twin, and that it is in no learning-rate rule",
        )
        ranked.append((1.5, alone))
    return [clue for _, clue in sorted(ranked, key=lambda each: -each[0])]


def _late(run: History) -> bool:
    """Whether so much of the training is over that the model should change slowly."""
    planned = run.context.get("steps")
    trained = run.last_step - run.warm
    return trained >= HOPELESS and run.last_step >= 0.5 * planned if planned else trained >= UNPLANNED


def _memory(run: History) -> float:
    """Steps over which the twin averages; nan if the momentum was not logged."""
    momentum = run.report("momentum").tail().median()
    if math.isnan(momentum):
        return math.nan
    return 1.0 / (1.0 - momentum) if momentum < 1.0 else math.inf


def _peak(run: History) -> float:
    """The highest learning rate that was logged; nan if none was."""
    lr = run.lr.finite.values
    return float(lr.max()) if len(lr) else math.nan
