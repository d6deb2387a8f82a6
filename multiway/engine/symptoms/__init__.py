"""The doctor's symptoms: each a function from a run's history to findings. A new one is a function and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from multiway.engine.history import Finding, History
from multiway.engine.symptoms.bounds import at_its_bound
from multiway.engine.symptoms.chance import stuck_at_chance, worse_than_chance
from multiway.engine.symptoms.collapse import collapsed, few_directions
from multiway.engine.symptoms.evaluation import evaluation_at_chance, overfitting
from multiway.engine.symptoms.gradients import dead_parameters, exploding, skipped_steps, vanishing
from multiway.engine.symptoms.matching import false_negatives, matching_at_its_prior, negatives_too_easy
from multiway.engine.symptoms.momentum import stale_queue, twin_too_far
from multiway.engine.symptoms.waiting import waiting_for_data

__all__ = ["SYMPTOMS", "Symptom"]

Symptom = Callable[[History], Iterator[Finding]]

# Those that a short run can show, too.
ACUTE: tuple[Symptom, ...] = (skipped_steps, exploding, vanishing, dead_parameters, waiting_for_data)

# Those that need some training behind them.
CHRONIC: tuple[Symptom, ...] = (
    stuck_at_chance,
    worse_than_chance,
    matching_at_its_prior,
    negatives_too_easy,
    false_negatives,
    stale_queue,
    twin_too_far,
    collapsed,
    few_directions,
    at_its_bound,
    overfitting,
    evaluation_at_chance,
)

SYMPTOMS: tuple[Symptom, ...] = ACUTE + CHRONIC
