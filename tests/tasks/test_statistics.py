"""Intervals: against resampling by hand, against Wilson's closed form, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.tasks.statistics import balanced_mean, joint_mean, mean, median, wilson


def slow_bootstrap(statistic, units, values, resamples=1500, seed=1):
    """The textbook: draw units, take all their values, compute, repeat."""
    generator = np.random.default_rng(seed)
    number = np.unique(units)
    draws = []
    for _ in range(resamples):
        chosen = generator.choice(number, len(number))
        draws.append(statistic(np.concatenate([values[units == each] for each in chosen])))
    return np.percentile(draws, [2.5, 97.5])


def test_mean_agrees_with_resampling_by_hand():
    values = np.random.default_rng(0).exponential(size=60)
    interval = mean(values)
    assert interval.value == pytest.approx(values.mean())
    assert interval[1:] == pytest.approx(slow_bootstrap(np.mean, np.arange(60), values), rel=0.03)


@pytest.mark.parametrize(("statistic", "twin"), [(mean, np.mean), (median, lambda v: np.sort(v)[(len(v) - 1) // 2])])
def test_units_are_resampled_whole(statistic, twin):
    generator = np.random.default_rng(0)
    units = generator.integers(0, 25, size=120)
    values = np.round(generator.normal(size=25)[units] + 0.2 * generator.normal(size=120), 1)
    clustered, alone = statistic(values, units), statistic(values)
    assert clustered[1:] == pytest.approx(slow_bootstrap(twin, units, values), abs=0.11)
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)


def test_mean_of_a_share_agrees_with_wilson():
    hits = np.repeat([1.0, 0.0], [130, 270])
    interval = mean(hits)
    assert interval[1:] == pytest.approx(wilson(130, 400), abs=0.006)


def test_wilson_against_published_values():
    # Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_all_hits_is_not_certainty():
    assert mean(np.ones(50))[1:] == wilson(50, 50)
    assert mean(np.zeros(50))[1:] == wilson(0, 50)
    # 50 captions of 10 pictures are 10 observations.
    assert mean(np.ones(50), np.arange(50) % 10)[1:] == pytest.approx(wilson(10, 10))


def test_coverage_is_about_the_level():
    generator = np.random.default_rng(0)
    covered = [
        low <= 0.3 <= high for _, low, high in (mean(generator.random(150) < 0.3, resamples=400) for _ in range(300))
    ]
    assert 0.90 <= np.mean(covered) <= 0.99


def test_joint_mean_keeps_units_together():
    generator = np.random.default_rng(0)
    there = (generator.random(200) < 0.5).astype(float)
    same = joint_mean([there, there], [None, None])
    opposite = joint_mean([there, 1 - there], [None, None])
    assert same == pytest.approx(mean(there))
    assert opposite.value == 0.5
    assert opposite.high - opposite.low < 1e-9  # the two always sum to one


def test_joint_mean_weighs_parts_not_values():
    assert joint_mean([[1.0], [0.0, 0.0, 0.5]], [[0], [0, 1, 2]]).value == pytest.approx((1 + 1 / 6) / 2)


def test_balanced_mean_counts_classes_alike():
    values, classes = np.array([1.0] * 90 + [0, 1] * 5), np.array([0] * 90 + [1] * 10)
    interval = balanced_mean(values, classes)
    assert interval.value == pytest.approx(0.75)
    # Only the ten rows of the small class vary: sd = 0.5 sqrt(0.25 / 10).
    assert (interval.low, interval.high) == pytest.approx((0.75 - 0.155, 0.75 + 0.155), abs=0.03)


def test_balanced_mean_with_one_row_per_class_has_a_width():
    interval = balanced_mean([1.0, 0.0, 1.0, 0.0], [3, 5, 8, 9])
    assert interval.low < 0.5 < interval.high


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 5), st.integers(0, 3))
def test_intervals_are_ordered_seeded_and_bounded(values, clusters, seed):
    units = np.arange(len(values)) % clusters
    for statistic in (mean, median, balanced_mean):
        interval = statistic(values, units, resamples=200, seed=seed)
        assert min(values) <= interval.low <= interval.high <= max(values) or set(values) == {1}
        assert min(values) <= interval.value <= max(values)
        assert interval == statistic(values, units, resamples=200, seed=seed)


def test_chunks_of_resamples_hold_as_many_in_all(monkeypatch):
    monkeypatch.setattr("multiway.tasks.statistics._CHUNK", 700)
    values = np.random.default_rng(0).normal(size=100)
    assert mean(values)[1:] == pytest.approx((values.mean() - 0.197, values.mean() + 0.197), abs=0.06)
    assert np.isfinite(median(values)).all()


def test_errors_name_what_was_given():
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        mean([])
    with pytest.raises(ValueError, match=r"units \(2,\)"):
        mean([1.0, 2.0, 3.0], [0, 1])
    with pytest.raises(ValueError, match="7 successes of 5"):
        wilson(7, 5)
    with pytest.raises(ValueError, match="at least one"):
        joint_mean([], [])
