"""Image-text matching (ITM) that does not learn, and mined negatives that are too easy or are no negatives at all.

What a method reports about its negatives (all optional; a name that was never logged silences what needs it):

    student_accuracy                 share of pictures whose own text scores highest in the batch; for methods without a
                                     queue `image_to_text_accuracy`, which elsewhere is among batch and queue
    positive_, negative_, random_cosine   mean cosine of pairs, of mined negatives, of rows that are no pairs
    negatives_above                  share of mined negatives whose cosine exceeds that of their own pair
    match_positive, match_negative   mean p(match) of pairs and of mined negatives
    hardness                         share of negatives that are mined by similarity rather than drawn evenly

Mining by similarity is of Li et al., ALBEF, 2021, arXiv 2107.07651, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from multiway.engine.history import Finding, History, Series
from multiway.engine.symptoms.chance import (
    HOPELESS,
    MISMATCHED,
    NEAR,
    PATIENCE,
    Clue,
    last_stretch,
    matches,
    rate_clues,
    rate_is_suspect,
    ratios,
    rises,
    still_falls,
)

__all__ = ["false_negatives", "matching_at_its_prior", "negatives_too_easy"]

ALIGNED = 0.5  # in-batch accuracy from which on the encoders tell pairs apart
UNALIGNED = 0.2  # and below which they hardly do
EASY, HARD = 0.1, 0.4  # where negatives lie between rows that are no pairs (0) and pairs (1), by mean cosine
LEARNED = 0.5  # of its chance value: a matching term below it is solved for its negatives
ABOVE = 0.25  # share of negatives above their own pair that is much, late in training
YOUNG = 0.25  # share of the planned steps in which alignment may take all the time
ALIGNING = 0.03  # fall of the contrastive term from fifth to fifth that is more than its noise
FALLING = 0.15  # fall from fifth to fifth that is more than the noise of shares of some hundred negatives
BELIEVED = 0.2  # p(match) of negatives that is much, late in training (1/3 is that of a head that knows nothing)


def matching_at_its_prior(run: History) -> Iterator[Finding]:
    """A matching term that has stayed within 2 % of the value of a head that looks at nothing."""
    for name, ratio in ratios(run):
        since = last_stretch(ratio, np.abs(ratio.values - 1.0) <= NEAR)
        if not matches(name) or since is None or run.last_step - max(since, run.warm) < PATIENCE:
            continue
        lasted = run.last_step - since
        clues = _ranked(run, ratio)
        waiting = _aligning(run, lasted)
        yield Finding(
            "note" if waiting else "illness" if lasted >= HOPELESS else "warning",
            name,
            "at its prior: pairs and negatives are not told apart" + ", before the encoders are aligned" * waiting,
            _prior(run, name)
            + f"it has been within {NEAR:.0%} of that for {lasted:g} steps (step {since:g} to {run.last_step})"
            + _beliefs(run),
            tuple(cause for cause, _ in clues),
            tuple(remedy for _, remedy in clues),
        )


def _prior(run: History, name: str) -> str:
    formula = run.formula(name)
    if formula.startswith("H(1/3)"):
        return f"{name} is at the prior {run.chance(name).finite.values[-1]:.4f} of one pair to two negatives ({formula}); "
    return f"{name} is at its prior ({formula}); "


def _beliefs(run: History) -> str:
    positive, negative = _now(run, "match_positive"), _now(run, "match_negative")
    if math.isnan(positive + negative):
        return ""
    return f"; pairs get p(match) {positive:.2f} and negatives {negative:.2f}"


def _now(run: History, name: str) -> float:
    return run.report(name).tail().median()


def _accuracy(run: History) -> float:
    """Share of pictures that find their text among those of the batch."""
    return _now(run, "student_accuracy" if len(run.report("student_accuracy")) else "image_to_text_accuracy")


def _reach(run: History) -> float:
    """Mean cosine of mined negatives, as a share of the way from random rows to pairs; nan if pairs don't stand out."""
    positive, negative, random = (_now(run, f"{kind}_cosine") for kind in ("positive", "negative", "random"))
    return (negative - random) / (positive - random) if positive - random > 0.05 else math.nan


def _aligning(run: History, lasted: float) -> bool:
    """Whether few pairs are found yet, in a young run or one whose contrastive term falls: matching can hardly have begun."""
    accuracy, planned = _accuracy(run), run.context.get("steps") or 0
    if accuracy < UNALIGNED and (lasted < HOPELESS or run.last_step < YOUNG * planned):
        return True  # the contrastive term may stand still: while the queue is stale, its age is learned first
    falling = any(name == "itc" and still_falls(ratio, ALIGNING) for name, ratio in ratios(run))
    return falling and accuracy < ALIGNED and run.last_step <= 10 * HOPELESS


def _ranked(run: History, ratio: Series) -> list[Clue]:
    """Causes of a matching term at its prior with their remedies, those that the numbers speak for first."""
    accuracy, above, reach = _accuracy(run), _now(run, "negatives_above"), _reach(run)
    idle = accuracy >= ALIGNED and not reach > HARD
    told = f": the encoders find {accuracy:.0%} of the texts by themselves, the fused head none" if idle else ""
    blind: Clue = (
        f"the fused head does not use the picture{told}; its attention to it is cut off or frozen, or its class token never "
        "reaches the head",
        "check that the picture's tokens are passed to the fused blocks, and the learning-rate rules for them",
    )
    early: Clue = (
        f"the encoders are not aligned yet: a picture finds its text in {accuracy:.0%} of cases, and what the towers do not "
        "tell apart, the fused head cannot compare",
        "train the contrastive term alone first (ALBEF: `--method.align 0.2`), and see that it falls",
    )
    pairs: Clue = (
        f"some negatives are pairs in truth: {above:.0%} of them score above their own pair",
        "look for repeated pictures and captions with `multiway data check`; rows that share one must share its id",
    )
    found = [(1.1, MISMATCHED), (3.2 if idle else 1.0, blind)]
    if accuracy < ALIGNED:
        found.append((3.0 if accuracy < UNALIGNED else 1.5, early))
    if above > ABOVE and accuracy >= UNALIGNED:
        found.append((1.6, pairs))
    found += _hard_from_the_start(run, reach, above)
    # A breakdown, a jump or an outlandish rate weighs more than anything the negatives say.
    found += [(4.0 if rate_is_suspect(run, ratio) else 1.2, clue) for clue in rate_clues(run, ratio)]
    return [clue for _, clue in sorted(found, key=lambda each: -each[0])]


def _hard_from_the_start(run: History, reach: float, above: float) -> list[tuple[float, Clue]]:
    series = run.report("hardness").finite
    hardness = series.tail().median()
    if hardness < 0.5 or (math.isnan(hardness) and not reach > HARD):
        return []
    early = bool(len(series)) and float(series.values[0]) >= 0.5
    numbers = [f"hardness {series.values[0]:.2f} at step {series.steps[0]:g}"] if len(series) else []
    if not math.isnan(reach):
        numbers.append(f"their cosine lies {reach:.0%} of the way from random rows to pairs")
    if not math.isnan(above):
        numbers.append(f"{above:.0%} of them lie above their own pair")
    # Negatives that are hard by name but no nearer than random ones cannot be what is too hard.
    weight = 1.5 if math.isnan(reach) else 3.1 if reach > HARD else 2.0 if reach > EASY else 1.05
    clue: Clue = (
        f"the negatives are {'hard from the start' if early else 'very hard'}: {', '.join(numbers)}",
        "draw them evenly at first and anneal towards hard ones (ALBEF: `--method.hard-until 0.5`), or let fewer be hard "
        "(`--method.hardness 0.5`)",
    )
    return [(weight + (0.05 if early else 0.0), clue)]


def negatives_too_easy(run: History) -> Iterator[Finding]:
    """Matching is solved, for negatives no harder than random rows, while a picture does not find its text."""
    if run.last_step - run.warm < PATIENCE:
        return
    reach, accuracy = _reach(run), _accuracy(run)
    if not (reach < EASY and accuracy < ALIGNED) or rises(run.report("hardness")):
        return
    for name, ratio in ratios(run):
        if not matches(name) or not ratio.tail().median() < LEARNED:
            continue
        value, hardness = run.term(name).tail().median(), _now(run, "hardness")
        even = hardness < 0.5
        causes = [
            (
                f"negatives are drawn evenly (hardness {hardness:.2f})",
                "mine them by similarity: raise the hardness towards 1 (ALBEF: `--method.hardness 1`)",
            ),
            (
                "the batch is too small to hold a hard negative",
                "enlarge the batch, or mine over all ranks and the queue",
            ),
            (
                "similarities of the encoders say little yet, and mining by them draws at random",
                "train on until the contrastive term has fallen; see its findings, if there are any",
            ),
        ]
        if not even:
            causes = causes[1:] if accuracy >= UNALIGNED else causes[:0:-1]
        yield Finding(
            "warning",
            name,
            "its negatives are too easy",
            f"{name} is {value:.3g} ({ratio.tail().median():.0%} of its prior), but a picture finds its text in only "
            f"{accuracy:.0%} of cases; mined negatives have mean cosine {_now(run, 'negative_cosine'):.3f}, rows that are no "
            f"pairs {_now(run, 'random_cosine'):.3f}, pairs {_now(run, 'positive_cosine'):.3f}",
            tuple(cause for cause, _ in causes),
            tuple(remedy for _, remedy in causes),
        )


def false_negatives(run: History) -> Iterator[Finding]:
    """Late in training, mined negatives keep scoring above their own pairs and keep being believed."""
    planned = run.context.get("steps") or 0
    above, believed = run.report("negatives_above").finite, run.report("match_negative").finite
    if run.last_step - run.warm < HOPELESS or run.last_step < 0.5 * planned or min(len(above), len(believed)) < 10:
        return
    if not (above.tail().median() > ABOVE and believed.tail().median() > BELIEVED):
        return
    # While negatives get harder, or the model still learns to reject them, it is too early to blame the data.
    learning = still_falls(above.smooth(), FALLING) or still_falls(believed.smooth(), FALLING)
    if _now(run, "hardness") < 0.5 or rises(run.report("hardness")) or learning:
        return
    # A model that has not learned to align finds everything as near as its own pair.
    if not any(name == "itc" and ratio.tail().median() < 0.6 for name, ratio in ratios(run)):
        return
    share, belief, positive = above.tail().median(), believed.tail().median(), _now(run, "match_positive")
    clues = [
        (
            "captions in the data fit several pictures, or pictures are there more than once under different ids",
            "look with `multiway data check`; give copies one id, or drop captions that say little",
        ),
        (
            "pairs differ in what the picture's size or the encoders do not resolve",
            "look at the confused pairs; use larger pictures, smaller patches or a wider model",
        ),
        (
            "mining draws only the very nearest rows",
            "let fewer negatives be hard (ALBEF: `--method.hardness 0.5`), or mine at a higher temperature",
        ),
    ]
    if belief < 0.5 * positive:
        clues = [clues[1], clues[0], clues[2]]
    yield Finding(
        "warning",
        next(filter(matches, run.terms), "itm"),
        "mined negatives look like pairs",
        f"{share:.0%} of the mined negatives have a higher cosine than their own pair, and they get p(match) {belief:.2f} "
        f"(pairs: {positive:.2f}); neither has fallen over the last fifths of {run.last_step} steps",
        tuple(cause for cause, _ in clues),
        tuple(remedy for _, remedy in clues),
    )
