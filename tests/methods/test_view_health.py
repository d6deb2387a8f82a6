"""Figures of methods on views: against definitions, at their limits, and that they change nothing of the step."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multiway.methods.view_health import QUERIES, freshness, of_views, pressure, winners


def points(rows: int, width: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(2, 12), st.floats(0.05, 2.0), st.integers(0, 9))
def test_pressure_is_what_the_gradient_of_info_nce_says(rows: int, count: int, tau: float, seed: int) -> None:
    """A slow twin: the derivative of the loss by each negative's similarity, as a share of all negatives'."""
    query, negatives, key = points(rows, 4, seed), points(count, 4, seed + 1), points(rows, 4, seed + 2)
    found = pressure(query, negatives, tau)
    hardest, felt = [], []
    for q, k in zip(F.normalize(query, dim=1).double(), F.normalize(key, dim=1).double(), strict=True):
        s = torch.stack([k @ q, *(n @ q for n in F.normalize(negatives, dim=1).double())]).requires_grad_()
        F.cross_entropy(s[None] / tau, torch.tensor([0])).backward()
        assert s.grad is not None
        share = (s.grad[1:] / s.grad[1:].sum()).tolist()
        hardest.append(max(share))
        felt.append(math.exp(-sum(p * math.log(p) for p in share if p > 0)) / count)
    assert float(found["hardest_weight"]) == pytest.approx(sum(hardest) / rows, rel=1e-4)
    assert float(found["negatives_felt"]) == pytest.approx(sum(felt) / rows, rel=1e-4)


def test_the_temperature_decides_how_many_negatives_are_felt() -> None:
    query, negatives = points(32), points(100, seed=1)
    felt = [float(pressure(query, negatives, tau)["negatives_felt"]) for tau in (1e-3, 0.03, 0.1, 0.5, 100.0)]
    assert felt == sorted(felt)
    assert felt[0] == pytest.approx(0.01, abs=1e-3) and felt[-1] == pytest.approx(1.0, abs=1e-4)


def test_own_pictures_are_no_negatives_and_nothing_is_nan() -> None:
    query, ids = points(6), torch.tensor([0, 0, 1, 2, 3, 4])
    others = torch.cat([query, points(3, seed=1)])
    other_ids = torch.cat([ids, torch.tensor([7, 8, 9])])
    found = pressure(query, others, 0.01, ids, other_ids)
    each = [
        float(pressure(query[i : i + 1], others[other_ids != ids[i]], 0.01)["hardest_weight"]) for i in range(len(ids))
    ]
    assert float(found["hardest_weight"]) == pytest.approx(sum(each) / len(each), rel=1e-5)
    own = pressure(query, others[None].expand(6, -1, -1), 0.01, ids, other_ids.expand(6, -1))
    torch.testing.assert_close(own, found)
    assert math.isnan(float(pressure(query, others[:0], 0.1)["hardest_weight"]))
    assert math.isnan(float(pressure(query[:2], query[:2], 0.1, ids[:2], ids[:2])["negatives_felt"]))


def test_freshness_is_of_the_same_pictures_alone() -> None:
    fresh, ids = points(4), torch.tensor([5, 6, 7, 8])
    stored = torch.cat([-fresh[:1], fresh[1:2] * 3.0, points(2, seed=3)])
    assert float(freshness(fresh, ids, stored, torch.tensor([5, 6, 0, 1]))) == pytest.approx(0.0, abs=1e-6)
    assert float(freshness(fresh, ids, stored, torch.tensor([9, 6, 0, 1]))) == pytest.approx(1.0)
    assert math.isnan(float(freshness(fresh, ids, stored, torch.tensor([9, 9, 9, 9]))))
    many = points(QUERIES + 5)
    rows = torch.arange(len(many))
    assert float(freshness(many, rows, many, rows)) == pytest.approx(1.0)


def test_winners() -> None:
    one = torch.zeros(200, 50)
    one[:, 3] = 1.0
    assert float(winners([one])) == pytest.approx(1 / 50 / (1 - (1 - 1 / 50) ** 200), rel=1e-5)
    even = torch.rand(4000, 50, generator=torch.Generator().manual_seed(0))
    assert float(winners([even[:2000], even[2000:]])) == pytest.approx(1.0)
    few = torch.rand(40, 1000, generator=torch.Generator().manual_seed(0))
    assert float(winners([few])) == pytest.approx(1.0, abs=0.05)


def test_alignment_and_what_a_predictor_adds() -> None:
    z, other = points(5), points(5, seed=1)
    reps = {"projected/0": z, "projected/1": other, "predicted/0": other, "target/0": z, "target/1": other}
    found = of_views(reps, twin=False)
    cosine = F.cosine_similarity(z, other).mean()
    assert float(found["alignment"]) == pytest.approx(float(2 - 2 * cosine), rel=1e-5)
    assert float(found["predictor_gain"]) == pytest.approx(float(1 - cosine), rel=1e-5)
    # MoCo's student sees one view, its twin the other; a bank's key is of the same view and says nothing.
    alone = {"projected/0": z, "target/0": other}
    assert of_views(alone, twin=True) == {"alignment": found["alignment"]}
    assert of_views(alone, twin=False) == {}
