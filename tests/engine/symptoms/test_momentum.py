"""Twins that lost their student and queues that are stale, from journals that are sick in one way each."""

from __future__ import annotations

import pytest
from albef_journal import HEALTHY, between, run
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.engine.doctor import render
from multiway.engine.symptoms.momentum import stale_queue, twin_too_far

SEEDS = pytest.mark.parametrize("seed", range(4))


def found(history):
    return [*stale_queue(history), *twin_too_far(history)]


# Healthy runs


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([5, 10, 25]),
    st.integers(600, 4000),
    st.floats(0.05, 1.0),
    st.booleans(),
    st.sampled_from([{}, {"momentum": 0.99}, {"momentum": 0.995}]),
)
def test_a_healthy_run_has_none_at_any_time(seed, every, steps, until, planned, logged):
    until = until if planned else 1.0  # a run of unknown length is taken at its end
    seen = found(run(planned, steps, every=every, seed=seed, until=until, **logged))
    assert seen == [], render(seen)


@SEEDS
@pytest.mark.parametrize("lag", [0.03, 0.06, 0.1])
def test_a_twin_that_lags_behind_a_quick_student_is_healthy(lag, seed):
    """It averages over the past; that is its use."""
    student = between(0.02, 0.9, 0.3, 0.9)
    for until in (0.5, 0.6, 0.7, 0.8, 1.0):
        history = run(student_accuracy=student, twin_accuracy=lambda p: student(p - lag), until=until, seed=seed)
        assert found(history) == []


@SEEDS
def test_accuracy_among_the_queue_has_no_part_in_it(seed):
    """Student and twin agree in the batch; that either finds less among batch and queue says nothing about the twin."""
    for share in (0.1, 0.95):
        assert found(run(student_accuracy=0.5, twin_accuracy=0.5, image_to_text_accuracy=share, seed=seed)) == []
    # And a twin far behind is seen, though it finds more in the batch than its student in batch and queue.
    assert found(run(student_accuracy=0.9, twin_accuracy=0.5, image_to_text_accuracy=0.3, seed=seed))


def test_in_the_first_half_every_queue_is_stale():
    early = run(queue_gap=6.0, until=0.4)
    assert found(early) == []
    assert found(run(queue_gap=6.0, until=0.6))
    # Of unknown length, a thousand steps count as half of it.
    assert found(run(False, 4000, queue_gap=6.0, until=0.25)) == []
    assert found(run(False, 4000, queue_gap=6.0, until=0.5))


# The queue


@SEEDS
@pytest.mark.parametrize("every", [5, 10, 30])
@pytest.mark.parametrize(("gap", "severity"), [(3.0, "illness"), (0.9, "warning")])
def test_queued_candidates_of_another_kind(gap, severity, every, seed):
    (finding,) = found(run(queue_gap=between(2 * gap, gap, 0.0, 0.6), every=every, seed=seed))
    assert (finding.severity, finding.term, finding.what) == (severity, "queue", "its entries are stale")
    assert "deviations (fresh: 0); its oldest entry is 64 steps old, at step 1500" in finding.evidence
    assert finding.causes[0].startswith("the twin moves too fast for its queue")
    assert len(finding.causes) == len(finding.tries) == 3


def test_a_gap_that_heals_is_left_alone():
    def gap(p):
        return 200 * 0.04 ** (p / 0.4)

    assert gap(0.6) > 1.5
    assert found(run(queue_gap=gap, until=0.6, noise=0.2)) == []
    assert found(run(queue_gap=gap(0.6), until=0.6, noise=0.2))


def test_a_queue_longer_than_the_twin_remembers():
    (finding,) = found(run(queue_gap=0.5, momentum=0.9, noise=0.2))
    assert "64 steps old, where the twin remembers about 10" in finding.evidence
    assert finding.causes[0] == "the queue is too long for this twin: it spans 6.4 of its memories"
    assert finding.tries[0] == "shorten the queue to 47% of its length"
    assert found(run(queue_gap=0.5, momentum=0.99, noise=0.2)) == []
    # A queue that is long but of one kind with the batch is harmless.
    assert found(run(queue_gap=0.1, momentum=0.9, noise=0.2)) == []


def test_a_hot_model_comes_first():
    (finding,) = stale_queue(run(queue_gap=2.0, lr=5e-3))
    assert finding.causes[0] == "the model itself moves too fast: the learning rate reached 0.005"


# The twin


@SEEDS
@pytest.mark.parametrize("every", [5, 10, 30])
@pytest.mark.parametrize(("accuracy", "severity"), [(0.03, "illness"), (0.5, "warning")])
def test_a_twin_that_finds_less_than_its_student(accuracy, severity, every, seed):
    (finding,) = found(run(student_accuracy=0.9, twin_accuracy=accuracy, every=every, seed=seed))
    assert (finding.severity, finding.term, finding.what) == (severity, "twin", "too far from its student")
    assert "of the texts of a batch, its student " in finding.evidence
    assert finding.causes[0] == "the momentum is too high"


@pytest.mark.parametrize(
    ("bent", "clue"),
    [
        ({"momentum": 0.9999}, "the twin averages over about 10000 of 1500 steps"),
        ({"momentum": 1.0}, "the twin averages over about inf of 1500 steps"),
        ({"twin_gap": between(0.0, 0.9)}, "it hardly follows: the distance has only grown"),
        ({"twin_gap": lambda p: 1.4 - 0.5 * p}, "it did not begin as a copy: at step 10 it was 1.4 away already"),
        ({"lr": 1e-2}, "the learning rate is too high: it reached 0.01"),
    ],
)
def test_the_likeliest_cause_comes_first(bent, clue):
    (finding,) = twin_too_far(run(twin_accuracy=0.05, **bent))
    assert finding.causes[0] == clue, finding.causes
    assert len(finding.causes) == len(finding.tries)


def test_distance_alone_warns_unless_it_shrinks():
    (finding,) = found(run(twin_gap=between(0.0, 0.8, 0.0, 0.4)))
    assert finding.severity == "warning"
    assert "it is 0.8 of the student's norm away" in finding.evidence
    assert found(run(twin_gap=lambda p: 0.0 if p < 0.01 else 1.4 - 0.8 * p)) == []


# What was not logged


@pytest.mark.parametrize(
    ("symptom", "bent", "names"),
    [
        (stale_queue, {"queue_gap": 3.0}, ["queue_gap"]),
        (twin_too_far, {"twin_accuracy": 0.05}, ["twin_accuracy", "student_accuracy"]),
        (twin_too_far, {"twin_gap": between(0.0, 0.9)}, ["twin_gap"]),
    ],
)
def test_without_what_it_needs_a_symptom_is_silent(symptom, bent, names):
    assert list(symptom(run(**bent)))
    for name in names:
        assert list(symptom(run(**bent, without=[name]))) == [], name


def test_of_a_method_without_twin_and_queue_nothing_is_said():
    names = [name for name in HEALTHY if name.startswith(("twin", "queue", "student"))] + ["queue_age"]
    assert found(run(without=names)) == []


def test_evidence_leaves_out_what_was_not_logged():
    queue = list(stale_queue(run(queue_gap=3.0, without=["queue_age"])))
    twin = list(twin_too_far(run(twin_accuracy=0.05, without=["twin_gap"])))
    far = list(twin_too_far(run(twin_gap=between(0.0, 0.9), without=["student_accuracy"])))
    assert len(queue) == len(twin) == len(far) == 1
    assert "nan" not in render([*queue, *twin, *far])


def test_a_twin_a_little_behind_is_healthy():
    assert found(run(student_accuracy=0.9, twin_accuracy=0.75)) == []
    assert found(run(twin_gap=0.3)) == []
    assert found(run(student_accuracy=0.06, twin_accuracy=0.02)) == []  # both find nothing


def test_lines_too_few_to_compare_accuracies_say_nothing():
    assert found(run(student_accuracy=0.9, twin_accuracy=0.05, every=100)) == []
