"""Terms that have learned nothing: at the value of the best constant prediction, or above it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from multiway.engine.history import Finding, History, Series
from multiway.engine.symptoms.filling import filled_since

__all__ = [
    "BACKBONE",
    "HIGH_LR",
    "HOPELESS",
    "MISMATCHED",
    "NEAR",
    "NO_EMBEDDINGS",
    "PATIENCE",
    "Clue",
    "is_probe",
    "last_stretch",
    "matches",
    "moves",
    "of_outputs",
    "rate_clues",
    "rate_is_suspect",
    "ratios",
    "rises",
    "still_falls",
    "stuck_at_chance",
    "worse_than_chance",
]

# Features before a projector have much in common, and targets over K outputs are nearly all zero: the spread of neither is that of
# an embedding. `collapse.py` and `outputs.py` judge them otherwise.
BACKBONE = "backbone"
NO_EMBEDDINGS = (BACKBONE, "targets")

NEAR = 0.02  # a term within 2 % of chance is at chance
PATIENCE = 100  # steps at chance after the warm-up that are nothing unusual
HOPELESS = 300  # steps at chance from which on it is called an illness
Clue = tuple[str, str]  # a cause and its remedy

MISMATCHED: Clue = (
    "inputs and targets are not paired: shuffled captions, wrong labels, blank pictures",
    "look at the pairs with `multiway data show`",
)

HIGH_LR, LOW_LR = 3e-3, 1e-6  # peaks beyond these are unusual for AdamW; they only order the causes


def stuck_at_chance(run: History) -> Iterator[Finding]:
    """A term that has stayed within 2 % of its chance value up to the last step."""
    for name, ratio in ratios(run):
        since = last_stretch(ratio, np.abs(ratio.values - 1.0) <= NEAR)
        if matches(name) or _told_elsewhere(run, name):
            continue  # `matching_at_its_prior` knows more about it
        if since is None or run.last_step - max(since, run.warm) < PATIENCE:
            continue
        lasted = run.last_step - since
        clues = list(_clues(run, ratio))
        yield Finding(
            "illness" if lasted >= HOPELESS else "warning",
            name,
            "at its chance value: nothing has been learned",
            f"{name} has been within {NEAR:.0%} of {run.formula(name)} for {lasted:g} steps "
            f"(step {since:g} to {run.last_step}), the value of the best constant prediction",
            tuple(cause for cause, _ in clues),
            tuple(remedy for _, remedy in clues),
        )


def worse_than_chance(run: History) -> Iterator[Finding]:
    """A term that a constant prediction would beat, and that is not on its way down."""
    for name, ratio in ratios(run):
        if _told_elsewhere(run, name):
            continue
        since = last_stretch(ratio, ratio.values > 1.0 + NEAR)
        if since is None or run.last_step - max(since, run.warm, filled_since(run)) < PATIENCE:
            continue
        recent, before = ratio.tail(0.2).median(), ratio.since(run.warm).head(0.4).median()
        if recent < 0.98 * before:
            continue  # still falling towards chance: token losses start at ln of the vocabulary
        clues = [
            *rate_clues(run, ratio),
            (
                "the logits are too large for features that are not trained yet: the temperature is too low",
                "start from a higher temperature (CLIP: 0.07) and keep it bounded",
            ),
            MISMATCHED,
        ]
        yield Finding(
            "illness" if recent > 1.5 else "warning",
            name,
            "worse than a constant prediction",
            f"{name} is {recent:.3g} times its chance value ({run.formula(name)}) over the last steps, and not falling "
            f"since step {since:g}",
            tuple(cause for cause, _ in clues),
            tuple(remedy for _, remedy in clues),
        )


def matches(name: str) -> bool:
    """Whether a term is one of image-text matching, by its name: `itm`, or `itm_` and something."""
    return name == "itm" or name.startswith("itm_")


def is_probe(name: str) -> bool:
    """Whether a term is that of a probe on the side, of which the method learns nothing."""
    return name == "probe"


def moves(run: History, name: str) -> bool:
    """Whether a term's chance value moves with targets that the network makes itself, by its formula (`losses/regress.py`)."""
    return "mean target" in run.formula(name)


def of_outputs(run: History, name: str) -> bool:
    """Whether a term is the cross entropy of targets over K outputs (`losses/cross_view.py`), whose entropy is reported."""
    return len(run.report("target_entropy")) > 0 and not is_probe(name) and run.formula(name).startswith("ln ")


def _told_elsewhere(run: History, name: str) -> bool:
    """Whether `shortcut.py`, `regression.py` or `outputs.py` knows more about a term at its chance value."""
    return is_probe(name) or moves(run, name) or of_outputs(run, name)


def ratios(run: History) -> Iterator[tuple[str, Series]]:
    """Value over chance, smoothed, of each term that has a chance value; enough lines to say anything."""
    for name in run.terms:
        value, chance = run.term(name), run.chance(name)
        both, at, of = np.intersect1d(value.steps, chance.steps, return_indices=True)
        if len(both) == 0:
            continue
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = Series(both, value.values[at] / chance.values[of]).finite
        if len(ratio) >= 5:
            yield name, ratio.smooth()


def last_stretch(series: Series, holds: np.ndarray) -> float | None:
    """The step since which `holds` has been true without a break, to the end."""
    if not holds[-1]:
        return None
    breaks = np.flatnonzero(~holds)
    return float(series.steps[0 if len(breaks) == 0 else breaks[-1] + 1])


def still_falls(series: Series, by: float = 0.01) -> bool:
    """Whether the last fifth is lower than the fifth before it by more than a share of that; `by` keeps noise out."""
    count = max(3, len(series) // 5)
    before, last = series.values[-2 * count : -count], series.values[-count:]
    return len(before) == count and bool(np.median(last) < (1.0 - by) * np.median(before))


def rises(series: Series) -> bool:
    """Whether a schedule has gone up over the last two fifths of its lines."""
    values = series.finite.values
    return len(values) >= 5 and bool(values[-1] > values[-1 - 2 * len(values) // 5] + 0.01)


def rate_is_suspect(run: History, ratio: Series) -> bool:
    """Whether the journal bears evidence against the learning rate, rather than none for it."""
    peak = float(run.lr.finite.values.max(initial=0.0)) if len(run.lr.finite) else LOW_LR * 2
    return not LOW_LR < peak < HIGH_LR or run.jump > 0 or bool(ratio.values.min() < 0.9)


def rate_clues(run: History, ratio: Series) -> Iterator[Clue]:
    """What the journal says about the learning rate; without any evidence, that it may be at fault."""
    lr = run.lr.finite
    peak = float(lr.values.max()) if len(lr) else float("nan")
    if peak == 0.0:
        yield (
            "the learning rate is 0 in every logged step",
            "set a learning rate, and check the rules that freeze parameters",
        )
    elif peak <= LOW_LR:
        yield (
            f"the learning rate is too low: it never exceeded {peak:.2g}",
            "multiply the learning rate by 100; AdamW from scratch wants 1e-4 to 1e-3",
        )
    elif ratio.values.min() < 0.9:
        best = ratio.steps[int(np.argmin(ratio.values))]
        yield (
            f"training broke down after step {best:g}, where the term was at {ratio.values.min():.0%} of chance: "
            "the learning rate is too high",
            "resume from a checkpoint before that with a third of the learning rate, or clip the gradient at 1",
        )
    elif run.jump:
        yield (
            f"the learning rate is too high: the loss jumped to {run.jump:.3g} before it settled",
            "divide the learning rate by 10 and warm up over more steps",
        )
    elif peak >= HIGH_LR:
        yield f"the learning rate is too high: it reached {peak:.2g}", "divide the learning rate by 10"
    else:
        shown = f" (its peak was {peak:.2g})" if np.isfinite(peak) else ""
        yield (
            f"the learning rate does not fit{shown}: both too high and too low end here",
            "try a third and three times of it for as many steps",
        )


def _clues(run: History, ratio: Series) -> Iterator[Clue]:
    """Causes of standing still with their remedies, likeliest first: what the run bears evidence for, then the usual."""
    recent = run.grad_norm.tail().median()
    flat = [
        name
        for name in run.watched_features
        if name not in NO_EMBEDDINGS and run.health(f"{name}/std").tail().median() < 0.1
    ]
    if flat:
        yield (
            f"the embeddings are constant ({', '.join(flat)}): no candidate can be told from another",
            "see the findings about embeddings first",
        )
    silent = recent < 1e-4
    if not silent:
        yield from rate_clues(run, ratio)
    else:
        rates = list(rate_clues(run, ratio))
        # A gradient that never was is stronger evidence than a high rate, and weaker than a breakdown or a rate of 0.
        strong = run.jump > 0 or ratio.values.min() < 0.9 or bool(run.lr.finite.values.max(initial=1.0) <= LOW_LR)
        silence = (
            f"hardly any gradient arrives (its norm is {recent:.2g}): parts are frozen, detached or saturated",
            "check the learning-rate rules, and that no feature is detached before this term",
        )
        yield from [*rates, silence] if strong else [silence, *rates]
    yield MISMATCHED
    yield (
        "the batch holds too few or only indistinguishable candidates, or the task is too hard for so early a time",
        "check for repeated captions with `multiway data check`; "
        "train on 32 rows until the term falls, which proves the code path",
    )
