"""Ranks and hits against sorting by hand, ties against all orders, chance against drawing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.tasks import ranking
from multiway.tasks.ranking import Answers, chance_of_hit, chance_of_median_rank, hit_probability, rank


def unit(rows, width, seed):
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def random_answers(queries, gallery, seed):
    generator = np.random.default_rng(seed)
    return [generator.choice(gallery, generator.integers(1, 4), replace=False).tolist() for _ in range(queries)]


def test_ranks_agree_with_sorting():
    queries, gallery = unit(40, 6, 0), unit(30, 6, 1)
    right = random_answers(40, 30, 0)
    result = rank(queries, gallery, Answers.of(right))
    for q in range(40):
        scores = (queries[q].double() @ gallery.double().T).tolist()
        order = sorted(range(30), key=lambda item: -scores[item])
        first = min(order.index(item) for item in right[q])
        assert result.rank[q] == first + 1
        assert result.right[q] == order[first]
        assert result.right_score[q] == pytest.approx(scores[order[first]], abs=1e-6)
        assert result.top[q].tolist() == order[:5]
        assert [result.hits(k)[q] for k in (1, 5, 10, 30)] == [float(first < k) for k in (1, 5, 10, 30)]


def test_chunks_change_nothing(monkeypatch):
    queries, gallery, answers = unit(50, 4, 0), unit(23, 4, 1), Answers.of(random_answers(50, 23, 1))
    whole = rank(queries, gallery, answers)
    monkeypatch.setattr(ranking, "CHUNK", 23 * 7)
    parts = rank(queries, gallery, answers)
    assert (whole.rank == parts.rank).all() and (whole.top == parts.top).all() and (whole.right == parts.right).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 300), st.integers(1, 7), st.integers(0, 99))
def test_the_best_are_those_of_a_full_sort(rows, columns, keep, seed):
    """Few distinct scores, so that ties lie on both sides of every border."""
    scores = torch.randint(0, 40, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    keep = min(keep, columns)
    values, places = ranking._best(scores, keep)
    assert torch.equal(values, scores.sort(1, descending=True).values[:, :keep])
    assert torch.equal(scores.gather(1, places), values)
    assert all(len(set(row)) == keep for row in places.tolist())


@pytest.mark.parametrize("tile", [1, 5, 23, 100, 1 << 18])
def test_scores_above_a_bound_are_counted_whatever_the_tiles(monkeypatch, tile):
    scores = torch.randint(0, 9, (17, 23), generator=torch.Generator().manual_seed(0)).double()
    bounds = torch.arange(17).double() % 9
    monkeypatch.setattr(ranking, "_TILE", tile)
    found = ranking._count(scores, bounds)
    assert found.tolist() == [sum(each > bound for each in row) for row, bound in zip(scores, bounds, strict=True)]
    assert ranking._count(scores.T.contiguous().T, bounds).tolist() == found.tolist()


def test_great_scores_tie_with_themselves():
    """In float32 a millionth is lost beside a hundred: equal scores are ties all the same, and a lone best is a hit."""
    scores = torch.tensor([[100.0, 101.0, 99.0, 101.0], [100.0, 101.0, 102.0, 99.0]])
    result = ranking.rank_scores(lambda rows: scores[rows], 2, 4, Answers.of([[1], [2]]))
    assert result.tied.tolist() == [2, 1] and result.hits(1).tolist() == [0.5, 1.0]


def test_ties_count_as_every_order():
    # Items 1 to 4 score the same, item 0 more, item 5 less; items 2, 3 and 5 are right.
    gallery = F.normalize(torch.tensor([[1, 0.0], [1, 1], [1, 1], [1, 1], [1, 1], [0, 1]]), dim=1)
    result = rank(torch.tensor([[1.0, 0.0]]), gallery, Answers.of([[2, 3, 5]]))
    orders = [[0, *middle, 5] for middle in itertools.permutations([1, 2, 3, 4])]
    firsts = [min(order.index(item) for item in (2, 3)) for order in orders]
    for k in range(1, 7):
        assert result.hits(k)[0] == pytest.approx(np.mean([first < k for first in firsts]))
    assert result.rank[0] == pytest.approx(np.mean(firsts) + 1)


@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_a_constant_model_scores_chance_whatever_the_kernel_rounds(rounding):
    point = unit(1, 67, 3)
    # Kernels differ in how they add up at a matrix's edge; the noise stands for those that do.
    gallery = point * (1 + rounding * torch.randn(257, 1, generator=torch.Generator().manual_seed(0)))
    answers = Answers.of(random_answers(301, 257, 2))
    result = rank(point.repeat(301, 1), gallery, answers)
    for k in (1, 5, 10):
        assert result.hits(k).mean() == pytest.approx(chance_of_hit(answers, 257, k))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.data())
def test_hit_probability_is_hypergeometric(items, data):
    right = data.draw(st.integers(1, items))
    draws = data.draw(st.integers(0, items))
    expected = 1 - math.comb(items - right, draws) / math.comb(items, draws)
    assert hit_probability(items, right, draws) == pytest.approx(expected, abs=1e-12)


def test_chance_agrees_with_random_orders():
    answers = Answers.of([[0, 1, 2], [4], [5, 6], [9]])
    generator = np.random.default_rng(0)
    ranks = np.array(
        [
            [min(np.nonzero(np.isin(generator.permutation(11), answers[q]))[0]) + 1 for q in range(4)]
            for _ in range(4000)
        ]
    )
    for k in (1, 5, 10):
        assert chance_of_hit(answers, 11, k) == pytest.approx((ranks <= k).mean(), abs=0.015)
    assert chance_of_median_rank(answers, 11) == np.median(ranks)


def test_chance_of_the_plain_case():
    answers = Answers.of([[i] for i in range(400)])
    assert chance_of_hit(answers, 400, 10) == pytest.approx(10 / 400)
    assert chance_of_median_rank(answers, 400) == 200
    assert chance_of_hit(Answers.of([[0]]), 3, 10) == 1.0


def test_errors_name_what_was_given():
    with pytest.raises(ValueError, match="query 1 has none"):
        Answers.of([[0], []])
    with pytest.raises(ValueError, match="there are no queries"):
        Answers.of([])
    with pytest.raises(ValueError, match="answers for 1 queries up to item 7"):
        rank(unit(1, 4, 0), unit(3, 4, 0), Answers.of([[7]]))
