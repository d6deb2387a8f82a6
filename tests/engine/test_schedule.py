import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multiway.engine.optim import OptimiserSpec
from multiway.engine.schedule import schedule, set_rates, warm_up, weight_decay_at


def test_schedule_warms_up_peaks_and_lands() -> None:
    spec = OptimiserSpec(warmup=0.1, decay="cosine", floor=0.1)
    rates = [schedule(step, 100, spec) for step in range(101)]
    assert all(a < b for a, b in itertools.pairwise(rates[:10])) and rates[0] > 0
    assert rates[10] == pytest.approx(1.0) and rates[55] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    assert schedule(10_000, 100, spec) == pytest.approx(0.1)  # beyond the horizon the rate stays at its floor
    linear = OptimiserSpec(warmup=10, decay="linear")
    assert schedule(55, 100, linear) == pytest.approx(0.5) and schedule(4, 100, linear) == pytest.approx(5 / 11)
    assert {schedule(step, 100, OptimiserSpec(warmup=0, decay="constant")) for step in range(100)} == {1.0}


def test_steps_are_moco_s_of_every_epoch() -> None:
    """The loop of MoCo v1's code: 200 epochs, a tenth from 120 on, a hundredth from 160 on; here of 37 steps each."""
    spec = OptimiserSpec(warmup=0, decay="steps", steps=(0.6, 0.8))
    for step in range(200 * 37 + 50):
        slow = 1.0
        for milestone in (120, 160):
            slow *= 0.1 if step // 37 >= milestone else 1.0
        assert schedule(step, 200 * 37, spec) == pytest.approx(slow, rel=1e-12), step


@given(st.integers(1, 99), st.integers(1, 5000))
@example(7, 100)
@example(55, 100)
def test_a_share_is_the_first_step_that_reaches_it(percent: int, steps: int) -> None:
    """Exact arithmetic decides, whatever the share's binary fraction is: 0.07 of 100 steps is 7, not 8."""
    first = -(-percent * steps // 100)
    spec = OptimiserSpec(warmup=0, decay="steps", steps=(percent / 100,), factor=0.5)
    assert schedule(first, steps, spec) == 0.5
    assert schedule(first - 1, steps, spec) == 1.0


def test_steps_by_number_and_after_a_warm_up() -> None:
    spec = OptimiserSpec(warmup=5, decay="steps", steps=(8, 3, 8.0), factor=0.5)
    rates = [schedule(step, 10, spec) for step in range(12)]
    assert rates[:5] == pytest.approx(
        [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6]
    )  # a step within the warm-up waits for its end
    assert rates[5:] == [0.5, 0.5, 0.5, 0.125, 0.125, 0.125, 0.125]


def test_weight_decay_rises_along_half_a_cosine() -> None:
    """The values that DINO's code tabulates before training, by its formula."""
    spec = OptimiserSpec(weight_decay=0.04, weight_decay_end=0.4, warmup=0.1)
    table = [0.4 + 0.5 * (0.04 - 0.4) * (1 + math.cos(math.pi * step / 300)) for step in range(300)]
    assert [weight_decay_at(step, 300, spec) for step in range(300)] == pytest.approx(table, rel=1e-12)
    assert weight_decay_at(300, 300, spec) == weight_decay_at(1000, 300, spec) == pytest.approx(0.4)
    assert {weight_decay_at(step, 300, OptimiserSpec(weight_decay=0.04)) for step in range(301)} == {0.04}


def test_groups_get_what_is_theirs() -> None:
    spec = OptimiserSpec(weight_decay=0.2, weight_decay_end=0.0, warmup=2, decay="cosine")
    groups = [
        {"factor": 1.0, "constant": False, "exempt": False},
        {"factor": 0.1, "constant": False, "exempt": True, "weight_decay": 0.0},
        {"factor": 2.0, "constant": True, "exempt": False},
    ]
    set_rates(groups, 50, 98, 0.3, spec)
    share = schedule(50, 98, spec)
    assert [group["lr"] for group in groups] == pytest.approx([0.3 * share, 0.03 * share, 0.6]) and share < 0.6
    middle = weight_decay_at(50, 98, spec)
    assert [group["weight_decay"] for group in groups] == [middle, 0.0, middle] and 0 < middle < 0.2
    set_rates(groups, 0, 98, 0.3, spec)  # what is not decayed is warmed up all the same
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.01, 0.2]) and warm_up(0, 98, spec) == 1 / 3
    set_rates(groups, 5000, 98, 0.3, spec)
    assert [group["lr"] for group in groups] == pytest.approx([0.0, 0.0, 0.6])
