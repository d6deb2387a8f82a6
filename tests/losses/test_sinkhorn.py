"""Sinkhorn's codes against the plain algorithm on exponentials, and where that one fails."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.sinkhorn import sinkhorn
from multiway.world import World

ALONE = World()


def scores(rows=8, count=5, seed=0):
    return torch.rand(rows, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def twin(s, epsilon, iterations):
    """SwAV's algorithm 1 on K x B, in numpy."""
    q = np.exp(s.numpy() / epsilon).T
    q /= q.sum()
    count, rows = q.shape
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True) * count
        q /= q.sum(0, keepdims=True) * rows
    return torch.from_numpy((q / q.sum(0, keepdims=True)).T)


@given(
    rows=st.integers(1, 12), count=st.integers(2, 9), iterations=st.integers(0, 5), epsilon=st.sampled_from([0.05, 0.3])
)
@settings(max_examples=40, deadline=None)
def test_equals_the_algorithm(rows, count, iterations, epsilon):
    s = scores(rows, count)
    torch.testing.assert_close(sinkhorn(s, ALONE, epsilon, iterations), twin(s, epsilon, iterations))


def test_rows_sum_to_one_and_prototypes_to_their_share() -> None:
    s, apart = scores(30, 6), []
    for iterations in (1, 3, 30, 300):
        codes = sinkhorn(s, ALONE, 0.1, iterations)
        torch.testing.assert_close(codes.sum(1), torch.ones(30, dtype=torch.float64))
        apart.append(float((codes.sum(0) - 30 / 6).abs().max()))
    assert apart == sorted(apart, reverse=True) and apart[-1] < 1e-6


def test_is_the_optimal_transport_in_the_limit() -> None:
    """With as many rows as prototypes and little entropy the codes are the best assignment, found by trying all."""
    from itertools import permutations

    s = scores(5, 5, seed=3)
    best = max(permutations(range(5)), key=lambda order: float(sum(s[i, j] for i, j in enumerate(order))))
    assert sinkhorn(s, ALONE, 0.01, 500).argmax(1).tolist() == list(best)


def test_no_overflow_and_no_dead_prototype() -> None:
    s = scores(6, 4).float()
    s[:, 3] = -1.0
    for epsilon in (0.05, 1e-3, 1e-5):
        codes = sinkhorn(s, ALONE, epsilon)
        assert bool(codes.isfinite().all())
        torch.testing.assert_close(codes.sum(1), torch.ones(6))
    with torch.autocast("cpu", torch.bfloat16):
        assert sinkhorn(s.bfloat16(), ALONE).dtype == torch.float32


def test_constant_scores_give_even_codes_without_gradient() -> None:
    codes = sinkhorn(torch.zeros(4, 8, requires_grad=True), ALONE)
    assert torch.allclose(codes, torch.full((4, 8), 1 / 8)) and not codes.requires_grad


def test_refusals() -> None:
    with pytest.raises(ValueError, match="epsilon 0"):
        sinkhorn(scores(), ALONE, 0.0)
    with pytest.raises(ValueError, match=r"expected \(b, K\)"):
        sinkhorn(scores()[0], ALONE)
