"""Self-supervision that is solved by something which labels do not ask for.

What is read: the term `probe`, a linear classifier on the side (`methods/probed.py`), and the report `alignment`, the squared
distance of two views of one picture. Crops of one picture share its colours, and a network that compares histograms has solved
the task; so colours have to be changed (Chen et al., SimCLR, 2020, arXiv 2002.05709, section 3.1 and figure 6).
"""

from __future__ import annotations

from collections.abc import Iterator

from multiway.engine.history import Finding, History
from multiway.engine.symptoms.chance import HOPELESS, NEAR, Clue, is_probe, ratios
from multiway.engine.symptoms.collapse import POINT
from multiway.engine.symptoms.outputs import same_for_all

__all__ = ["probe_left_behind", "views_too_alike"]

SOLVED = 0.7  # of chance: the method's own term has learned
UNDONE = 1.25  # the probe's loss over its least: so much is no noise
ALIKE = 0.15  # distance of two views over that of two pictures; crops and colours begin at about 0.75
FIRST = 10  # the steps that show what an untrained network makes of views


def probe_left_behind(run: History) -> Iterator[Finding]:
    """The method's own term has fallen well below chance while a probe reads no more than before, or less than it did."""
    if run.last_step - run.warm < HOPELESS or _collapsed(run):
        return
    every = dict(ratios(run))
    own = [(name, ratio) for name, ratio in every.items() if not is_probe(name) and ratio.tail().median() < SOLVED]
    probe = next((ratio for name, ratio in every.items() if is_probe(name)), None)
    if probe is None or not own:
        return
    now, least = probe.tail().median(), float(probe.values.min())
    at_chance = now >= 1.0 - NEAR
    if not at_chance and not now > UNDONE * least:
        return
    name, ratio = own[0]
    told = (
        f"the probe is at {now:.0%} of its chance value"
        if at_chance
        else f"the probe was at {least:.0%} of its chance value at step {probe.steps[probe.values.argmin()]:g} and is at {now:.0%}"
    )
    clues = _clues(run)
    yield Finding(
        "warning",
        "probe",
        "labels cannot be read off what the network learns",
        f"{name} has come to {ratio.tail().median():.0%} of its chance value, while {told}",
        tuple(cause for cause, _ in clues),
        tuple(remedy for _, remedy in clues),
    )


def _collapsed(run: History) -> bool:
    """Whether the loss fell because everything is alike, which others say."""
    return run.health("projected/std").tail().median() < POINT or any(same_for_all(run))


def _clues(run: History) -> list[Clue]:
    broken: Clue = (
        "the probe itself does not learn: wrong labels, or a learning rate that is too high for it",
        "look at the pictures and labels with `multiway data show`, and measure with `multiway evaluate RUN --task knn`",
    )
    other: Clue = (
        "the task is solved by what labels do not ask for, such as texture, position or a border",
        "look at the nearest neighbours of some pictures, and take away by augmentation what they share",
    )
    if not len(run.report("alignment")):
        return [other, broken]
    colours: Clue = (
        "a shortcut: two crops of a picture share its colours, and comparing histograms is enough",
        "change colours: `--views.views.0.jitter 0.8 --views.views.0.grey 0.2`, of every view",
    )
    easy: Clue = (
        "crops overlap so much that there is nothing to learn",
        "lower the least of `--views.views.0.scale`, to 0.2 or 0.08",
    )
    return [colours, easy, other, broken]


def views_too_alike(run: History) -> Iterator[Finding]:
    """Views of one picture that an untrained network already finds alike: there is nothing to learn from them."""
    apart = run.report("alignment").finite
    if not len(apart) or apart.steps[0] > FIRST or run.last_step - run.warm < HOPELESS or _collapsed(run):
        return
    seen = next((name for name in ("projected", "targets") if name in run.watched_features), "projected")
    cosine = run.health(f"{seen}/mean_cosine").finite
    if not len(cosine) or cosine.steps[0] != apart.steps[0] or not cosine.values[0] < 0.99:
        return
    share = float(apart.values[0]) / (2.0 - 2.0 * float(cosine.values[0]))
    if share >= ALIKE:
        return
    yield Finding(
        "warning",
        "views",
        "views of a picture are alike from the start",
        f"at step {apart.steps[0]:g}, before anything was learned, the squared distance of two views of a picture was {share:.0%} of "
        "that of two pictures (crops with changed colours: about 75%)",
        (
            "crops are nearly the whole picture, and little else is changed",
            "the same view is there twice: an augmentation is switched off",
        ),
        (
            "lower the least of `--views.views.0.scale`, to 0.2 or 0.08, and change colours: `--views.views.0.jitter 0.8`, of every "
            "view",
            "compare the views of one row with `multiway data show`",
        ),
    )
