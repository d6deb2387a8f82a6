"""The doctor's symptoms: each a function from a run's history to findings. A new one is a function and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from multiway.engine.history import Finding, History
from multiway.engine.symptoms.bounds import at_its_bound
from multiway.engine.symptoms.chance import stuck_at_chance, worse_than_chance
from multiway.engine.symptoms.collapse import collapsed, few_directions
from multiway.engine.symptoms.evaluation import evaluation_at_chance, overfitting
from multiway.engine.symptoms.filling import exploding_once_filled
from multiway.engine.symptoms.gradients import dead_parameters, skipped_steps, vanishing
from multiway.engine.symptoms.matching import false_negatives, matching_at_its_prior, negatives_too_easy
from multiway.engine.symptoms.momentum import stale_queue, twin_too_far
from multiway.engine.symptoms.outputs import same_for_all, says_nothing, unused_outputs
from multiway.engine.symptoms.regression import predicts_the_mean
from multiway.engine.symptoms.shortcut import probe_left_behind, views_too_alike
from multiway.engine.symptoms.staleness import stale_memory
from multiway.engine.symptoms.temperature import temperature_off
from multiway.engine.symptoms.waiting import waiting_for_checkpoints, waiting_for_data

__all__ = ["SYMPTOMS", "Symptom"]

Symptom = Callable[[History], Iterator[Finding]]

# Those that a short run can show, too.
ACUTE: tuple[Symptom, ...] = (
    skipped_steps,
    exploding_once_filled,
    vanishing,
    dead_parameters,
    waiting_for_data,
    waiting_for_checkpoints,
)

# Those that need some training behind them.
CHRONIC: tuple[Symptom, ...] = (
    stuck_at_chance,
    worse_than_chance,
    matching_at_its_prior,
    negatives_too_easy,
    false_negatives,
    stale_queue,
    twin_too_far,
    stale_memory,
    same_for_all,
    says_nothing,
    unused_outputs,
    predicts_the_mean,
    temperature_off,
    views_too_alike,
    probe_left_behind,
    collapsed,
    few_directions,
    at_its_bound,
    overfitting,
    evaluation_at_chance,
)

SYMPTOMS: tuple[Symptom, ...] = ACUTE + CHRONIC
