"""Token buckets against a slow count, and limits that mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.config import ConfigError
from multiway.serve.limits import Limits, TokenBuckets


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0, 3), min_size=1, max_size=60),
    st.floats(0.5, 20),
    st.integers(1, 10),
)
def test_no_window_has_more_than_its_share(gaps: list[float], rate: float, burst: int) -> None:
    now = [0.0]
    buckets = TokenBuckets(rate, burst, clock=lambda: now[0])
    taken = []
    for gap in gaps:
        now[0] += gap
        wait = buckets.take("a")
        if wait == 0:
            taken.append(now[0])
        else:
            # After the time that was stated there is a token.
            later = TokenBuckets(rate, burst, clock=lambda: now[0])
            later._kept = buckets._kept.copy()
            now[0] += wait * 1.001 + 1e-9
            assert later.take("a") == 0
            now[0] -= wait * 1.001 + 1e-9
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - taken[first]) + 1e-6
    assert len(taken) >= min(burst, len(gaps))


def test_clients_have_buckets_of_their_own_and_old_ones_are_forgotten() -> None:
    now = [0.0]
    buckets = TokenBuckets(1.0, 1, clients=3, clock=lambda: now[0])
    assert [buckets.take(client) for client in "abc"] == [0, 0, 0]
    assert buckets.take("a") == pytest.approx(1.0)
    assert buckets.take("d") == 0 and len(buckets) == 3
    assert buckets.take("a") > 0  # came last, so that it was kept; b was forgotten
    assert buckets.take("b") == 0
    assert all(TokenBuckets(0, 1).take("a") == 0 for _ in range(5))


@pytest.mark.parametrize(
    "wrong", [{"body": 0}, {"rate": -1.0}, {"latency_ms": float("nan")}, {"wait_ms": 20_000.0}, {"queue": -3}]
)
def test_limits_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong)).replace('_', '-')} "):
        Limits(**wrong)  # type: ignore[arg-type]
