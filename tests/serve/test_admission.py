"""Who is let in, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.serve.admission import Admission, Overloaded


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Iterator[Admission]:
    made = Admission(clock)
    # One row after another, 0.1 s each: that is the pace.
    for _ in range(200):
        with made.enter("embed", 1, 9):
            clock.now += 0.1
    yield made


def test_who_would_be_late_is_refused_and_told_when(admission: Admission) -> None:
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(admission.enter("embed", 2, 1.21))  # 8 rows, 0.8 s, and half of that for safety
        inside.enter_context(admission.enter("embed", 1, 1.36))
        with (
            pytest.raises(Overloaded, match=r"may take 1\.5 s, and 1 s are") as refused,
            admission.enter("embed", 1, 1.0),
        ):
            pass
        assert refused.value.seconds == pytest.approx(0.5)
        with pytest.raises(Overloaded), admission.enter("other", 1, 1.3):  # whatever it asks for, it waits for these
            pass
        with admission.enter("other", 1, 1.4):  # what was never measured is tried
            pass
    with admission.enter("embed", 100, 0.001):  # with nothing inside, everybody is let in
        pass


def test_the_pace_follows_what_leaves(admission: Admission, clock: Clock) -> None:
    """Ten rows that leave together after 0.1 s are ten times as fast."""
    assert admission._pace("embed") == pytest.approx(0.1)
    for _ in range(200):
        with ExitStack() as batch:
            for _ in range(10):
                batch.enter_context(admission.enter("embed", 1, 9))
            clock.now += 0.1
    assert admission._pace("embed") == pytest.approx(0.01, rel=0.05)


def test_idle_time_and_failures_are_no_measurement(admission: Admission, clock: Clock) -> None:
    clock.now += 1000
    with admission.enter("embed", 1, 9):
        clock.now += 0.1
    assert admission._pace("embed") == pytest.approx(0.1)
    with pytest.raises(ZeroDivisionError), admission.enter("embed", 1, 9):
        clock.now += 50
        raise ZeroDivisionError
    assert admission._pace("embed") == pytest.approx(0.1) and not admission._inside.total()


@settings(deadline=None, max_examples=50)
@given(
    st.floats(0.001, 0.05),
    st.floats(0.0, 0.1),
    st.floats(0.2, 2.0),
    st.lists(st.integers(0, 40), min_size=20, max_size=60),
)
def test_whoever_is_let_in_is_answered_in_time(per_row: float, fixed: float, limit: float, arrivals: list[int]) -> None:
    """A server simulated step by step: all who are inside share one pass, which takes so long and a bit for each row.

    Whatever comes, nobody who was let in waits longer than the limit, or, where a pass costs most of it even when empty, longer
    than what is left of it after the margin and one such pass; and as soon as there is room, somebody is let in.
    """
    clock = Clock()
    admission = Admission(clock)
    for _ in range(100):
        with admission.enter("embed", 1, 9):
            clock.now += fixed + per_row
    for count in arrivals:
        with ExitStack() as batch:
            entered = 0
            for _ in range(count):
                try:
                    batch.enter_context(admission.enter("embed", 1, limit))
                    entered += 1
                except Overloaded:
                    break
            began = clock.now
            clock.now += fixed + per_row * entered if entered else 0.01
            assert entered >= min(count, 1)
            assert clock.now - began <= max(limit / 1.5, per_row) + fixed + 0.02
