"""A contrast's temperature that is so low that one negative counts, or so high that all count alike.

What a method reports:

    hardest_weight   share of the negatives' gradient that the hardest has
    negatives_felt   exp of the entropy of these shares over the number of negatives: 1 where all weigh alike

tau -> 0 gives all weight to the hardest negative, tau -> infinity the same to each (Wang and Liu 2021, arXiv 2012.09740, section
3.2); both are worse than what lies between, and the hardest may show the same thing as the query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from multiway.engine.history import Finding, History
from multiway.engine.symptoms.chance import HOPELESS, is_probe, ratios
from multiway.engine.symptoms.collapse import POINT

__all__ = ["temperature_off"]

ALONE = 0.6  # of the gradient: one negative outweighs all others together
ALIKE = 0.998  # of the negatives are felt
ENOUGH = math.log(32)  # chance of a contrast among so few is no measure
LEARNED = 0.8  # of chance: a term below it does without advice


def temperature_off(run: History) -> Iterator[Finding]:
    """Negatives of which one has most of the gradient, or all the same, with the loss far from learned in the latter case."""
    if run.last_step - run.warm < HOPELESS or run.health("projected/std").tail().median() < POINT:
        return  # of one point all negatives are alike, at any temperature
    hardest, felt = run.report("hardest_weight").tail().median(), run.report("negatives_felt").tail().median()
    contrasts = [(name, ratio) for name, ratio in ratios(run) if "ln " in run.formula(name) and not is_probe(name)]
    # What is not a softmax among candidates (NCE's sum, InvaSpread's) is judged by the shares alone.
    few = bool(contrasts) and all(run.chance(name).tail().median() < ENOUGH for name, _ in contrasts)
    if hardest > ALONE and not few:
        yield Finding(
            "warning",
            "negatives",
            "one negative has most of the gradient: the temperature is too low",
            f"the hardest negative of a query has {hardest:.0%} of the gradient of all, and as many are felt as {felt:.2%} of them",
            (
                "the temperature is too low: similarities that hardly differ are blown up",
                "pictures are there more than once under different ids, and a copy is the hardest negative",
            ),
            (
                "raise `--method.temperature` by half, and again until the share is below a half (0.1 to 0.5 with few negatives, "
                "0.07 to 0.2 with thousands)",
                "look with `multiway data check`; give copies one id",
            ),
        )
    elif felt > ALIKE and any(ratio.tail().median() > LEARNED for _, ratio in contrasts):
        yield Finding(
            "warning",
            "negatives",
            "all negatives weigh alike: the temperature is too high",
            f"as many negatives are felt as {felt:.2%} of them, and the hardest has {hardest:.2%} of the gradient",
            (
                "the temperature is too high: hard negatives count no more than easy ones",
                "similarities do not differ yet: the projections have not spread, or nothing has been learned",
            ),
            (
                "halve `--method.temperature`, and again until the loss falls (0.1 to 0.5 with few negatives, 0.07 to 0.2 with "
                "thousands)",
                "see the findings about chance and embeddings first, if there are any",
            ),
        )
