"""Word-patch alignment: IPOT against a loop in fp64 and the exact optimum, its marginals, and what padding must not do."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.wpa import cosine_cost, inner_words, ipot, transport_distance, wpa


def slow_plan(cost: list[list[float]], beta: float, outer: int, inner: int) -> list[list[float]]:
    """One row of a batch, without padding, number by number."""
    from math import exp

    n, m = len(cost), len(cost[0])
    plan = [[1.0] * m for _ in range(n)]
    column = [1.0 / m] * m
    for _ in range(outer):
        step = [[exp(-cost[i][j] / beta) * plan[i][j] for j in range(m)] for i in range(n)]
        for _ in range(inner):
            row = [1.0 / n / sum(step[i][j] * column[j] for j in range(m)) for i in range(n)]
            column = [1.0 / m / sum(step[i][j] * row[i] for i in range(n)) for j in range(m)]
        plan = [[row[i] * step[i][j] * column[j] for j in range(m)] for i in range(n)]
    return plan


def rows_with_padding(seed: int = 0, dtype: torch.dtype = torch.float64):
    torch.manual_seed(seed)
    words, patches = torch.randn(4, 5, 8, dtype=dtype), torch.randn(4, 7, 8, dtype=dtype)
    word_mask = torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]
    patch_mask = torch.arange(7) < torch.tensor([7, 2, 6, 1])[:, None]
    return words, patches, word_mask, patch_mask


@pytest.mark.parametrize("beta, outer, inner", [(0.5, 50, 1), (0.5, 3, 1), (1.0, 10, 4), (0.1, 20, 2)])
def test_plan_equals_a_loop(beta: float, outer: int, inner: int) -> None:
    words, patches, word_mask, patch_mask = rows_with_padding()
    cost = cosine_cost(words, patches, word_mask, patch_mask)
    plan = ipot(cost, word_mask, patch_mask, beta, outer, inner)
    for row in range(4):
        n, m = int(word_mask[row].sum()), int(patch_mask[row].sum())
        slow = torch.tensor(slow_plan(cost[row, :n, :m].tolist(), beta, outer, inner), dtype=torch.float64)
        torch.testing.assert_close(plan[row, :n, :m], slow, rtol=1e-9, atol=1e-12)
        assert plan[row, n:].sum() == 0 == plan[row, :, m:].sum()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 6), m=st.integers(1, 9), seed=st.integers(0, 1000))
def test_marginals_are_uniform(n: int, m: int, seed: int) -> None:
    """Columns exactly, rows once the iteration has converged."""
    torch.manual_seed(seed)
    cost = 2 * torch.rand(1, n, m, dtype=torch.float64)
    every = torch.ones(1, n, dtype=torch.bool), torch.ones(1, m, dtype=torch.bool)
    plan = ipot(cost, *every, outer=400, inner=2)
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(1)[0], torch.full((m,), 1 / m, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(plan.sum(2)[0], torch.full((n,), 1 / n, dtype=torch.float64), rtol=0.02, atol=1e-4)


def test_cost_approaches_the_exact_optimum() -> None:
    """With as many words as patches the optimum is the best assignment, found by trying all of them."""
    torch.manual_seed(3)
    cost = torch.rand(6, 5, 5, dtype=torch.float64)
    every = torch.ones(6, 5, dtype=torch.bool)
    found = (ipot(cost, every, every, outer=2000) * cost).sum((1, 2))
    best = torch.tensor([min(sum(c[i, p[i]] for i in range(5)) / 5 for p in permutations(range(5))) for c in cost])
    torch.testing.assert_close(found, best.double(), rtol=1e-3, atol=1e-3)
    # Fewer steps, the published fifty, cost more, and never less than the optimum.
    fifty = (ipot(cost, every, every) * cost).sum((1, 2))
    assert (fifty >= best - 5e-3).all() and (fifty - best).mean() < 0.02


def test_identical_tokens_are_moved_onto_each_other() -> None:
    torch.manual_seed(0)
    words = torch.linalg.qr(torch.randn(2, 8, 8, dtype=torch.float64)).Q[:, :6]
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    every = torch.ones(2, 6, dtype=torch.bool)
    plan = ipot(cosine_cost(words, words[:, order], every, every), every, every)
    wanted = torch.zeros(6, 6, dtype=torch.float64)
    wanted[order, torch.arange(6)] = 1 / 6
    torch.testing.assert_close(plan, wanted.expand(2, -1, -1), rtol=1e-6, atol=1e-6)
    assert transport_distance(words, words[:, order], every, every).abs().max() < 1e-6


def test_padding_changes_nothing_to_the_bit() -> None:
    words, patches, word_mask, patch_mask = rows_with_padding(dtype=torch.float32)
    first = transport_distance(words, patches, word_mask, patch_mask)
    words = torch.where(word_mask[..., None], words, torch.full_like(words, torch.inf))
    patches = torch.where(patch_mask[..., None], patches, torch.randn_like(patches) * 100)
    assert torch.equal(transport_distance(words, patches, word_mask, patch_mask), first)


def test_gradient_is_of_the_cosines_under_the_plan() -> None:
    """No gradient through the plan: the loss is linear in the costs, with the plan as its slope."""
    words, patches, word_mask, patch_mask = rows_with_padding()
    words.requires_grad_()
    transport_distance(words, patches, word_mask, patch_mask).sum().backward()
    got, words.grad = words.grad, None
    plan = ipot(cosine_cost(words.detach(), patches, word_mask, patch_mask), word_mask, patch_mask)
    cosines = torch.nn.functional.cosine_similarity(words[:, :, None], patches[:, None], dim=-1)
    (plan * (1 - cosines)).sum().backward()
    torch.testing.assert_close(got, words.grad)
    assert (got[~word_mask] == 0).all() and got[word_mask].abs().sum() > 0


def test_rows_without_words_cost_nothing() -> None:
    words, patches, word_mask, patch_mask = rows_with_padding()
    word_mask[1] = False
    distance = transport_distance(words, patches, word_mask, patch_mask)
    assert distance[1] == 0 and torch.isfinite(distance).all() and (distance[[0, 2, 3]] > 0).all()


def test_loss_signs_and_chance() -> None:
    result = wpa(torch.tensor([0.2, 0.4, 0.6, 0.9]), torch.tensor([True, True, False, False]))
    assert float(result.loss) == pytest.approx((0.6 - 1.5) / 4)
    assert (float(result.positive), float(result.negative)) == pytest.approx((0.3, 0.75))
    assert result.chance == 0.0
    # A constant distance scores chance, whatever the balance.
    uneven = wpa(torch.full((5,), 0.7), torch.tensor([True, False, False, False, False]))
    assert uneven.chance == pytest.approx(float(uneven.loss)) == pytest.approx(-0.6 * 0.7)


def test_inner_words_leave_out_the_first_and_last_real_token() -> None:
    mask = torch.arange(5) < torch.tensor([5, 3, 2, 1])[:, None]
    assert inner_words(mask).int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_errors_name_what_was_given() -> None:
    every = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        ipot(torch.zeros(2, 3, 4), every, every)
    with pytest.raises(ValueError, match="beta"):
        ipot(torch.zeros(2, 3, 3), every, every, beta=0.0)
    with pytest.raises(ValueError, match=r"\(B,\) twice"):
        wpa(torch.zeros(3), torch.ones(2, dtype=torch.bool))
