"""NT-Xent against loops in float64, at its identities, and with pictures that occur twice."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.nt_xent import nt_xent
from multiway.world import World

ALONE = World()


def draw(count, rows, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(count)]


def twin(views, temperature, image_id=None):
    """Every view against every other, a pair at a time."""
    points = [(v, i, F.normalize(view[i], dim=0)) for v, view in enumerate(views) for i in range(len(view))]
    losses, hits, logs = [], [], []
    for v, i, query in points:
        others = [
            (j, (query * each).sum() / temperature)
            for w, j, each in points
            if (w, j) != (v, i) and (j == i or image_id is None or image_id[j] != image_id[i])
        ]
        total = torch.logsumexp(torch.stack([score for _, score in others]), 0)
        losses.append(torch.stack([total - score for j, score in others if j == i]).mean())
        hits.append(max(others, key=lambda each: float(each[1].detach()))[0] == i)
        logs.append(math.log(len(others)))
    return torch.stack(losses).mean(), sum(hits) / len(hits), sum(logs) / len(logs)


@given(
    count=st.integers(2, 4),
    rows=st.integers(1, 6),
    temperature=st.sampled_from([0.1, 0.5]),
    chunk=st.sampled_from([None, 1, 3]),
)
@settings(max_examples=30, deadline=None)
def test_equals_the_definition_with_gradients(count, rows, temperature, chunk):
    mine, theirs = ([view.requires_grad_() for view in draw(count, rows)] for _ in range(2))
    found = nt_xent(mine, ALONE, temperature, chunk=chunk)
    loss, accuracy, chance = twin(theirs, temperature)
    torch.testing.assert_close(found.loss, loss, rtol=1e-10, atol=1e-12)
    assert float(found.accuracy) == pytest.approx(accuracy) and found.chance == pytest.approx(chance)
    for a, b in zip(torch.autograd.grad(found.loss, mine), torch.autograd.grad(loss, theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("count", [2, 3])
def test_rows_of_one_picture_are_not_told_apart(count):
    ids = torch.tensor([7, 3, 7, -2, 3, 7])
    mine, theirs = ([view.requires_grad_() for view in draw(count, 6)] for _ in range(2))
    found = nt_xent(mine, ALONE, 0.2, image_id=ids, chunk=4)
    loss, accuracy, chance = twin(theirs, 0.2, ids.tolist())
    torch.testing.assert_close(found.loss, loss, rtol=1e-10, atol=1e-12)
    assert float(found.accuracy) == pytest.approx(accuracy) and found.chance == pytest.approx(chance)
    torch.testing.assert_close(torch.autograd.grad(found.loss, mine), torch.autograd.grad(loss, theirs))
    # A view of a row that shows the same picture changes nothing for the others of it.
    assert not torch.allclose(found.loss, nt_xent(draw(count, 6), ALONE, 0.2).loss)


def test_collapsed_embeddings_score_chance() -> None:
    point = torch.randn(1, 8).expand(16, 8)
    found = nt_xent([point, point], ALONE, 0.1)
    assert found.formula == "ln 31" and float(found.loss) == pytest.approx(math.log(31), rel=1e-5)
    assert float(found.accuracy) <= 1 / 16
    three = nt_xent([point] * 3, ALONE, 0.1)
    assert float(three.loss) == pytest.approx(math.log(47), rel=1e-5)


def test_least_values() -> None:
    views = [torch.eye(8)] * 2
    assert float(nt_xent(views, ALONE, 0.02).loss) < 1e-6
    assert float(nt_xent([torch.eye(8)] * 4, ALONE, 0.02).loss) == pytest.approx(math.log(3), rel=1e-5)


def test_negatives_weigh_alike_when_hot_and_the_hardest_takes_all_when_cold() -> None:
    """The gradient of negative j is the softmax over candidates of s_j / tau: its entropy grows with tau."""
    query, *others = (F.normalize(each, dim=0) for each in draw(1, 6, 4)[0])
    scores = torch.stack([(query * each).sum() for each in others])
    entropies = []
    for temperature in (0.001, 0.05, 0.2, 1.0, 100.0):
        leaf = scores.clone().requires_grad_()
        (weight,) = torch.autograd.grad(torch.logsumexp(leaf / temperature, 0), leaf)
        weight = weight * temperature
        entropies.append(float(torch.special.entr(weight).sum()))
    assert entropies == sorted(entropies) and entropies[0] < 1e-6
    assert entropies[-1] == pytest.approx(math.log(5), abs=1e-4)


def test_autocast_and_half_precision_change_little() -> None:
    views = [view.float() for view in draw(2, 12, 16)]
    wanted = nt_xent(views, ALONE, 0.1).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nt_xent(views, ALONE, 0.1).loss, wanted)
        half = nt_xent([view.bfloat16() for view in views], ALONE, 0.1)
    assert half.loss.dtype == torch.float32 and float(half.loss) == pytest.approx(float(wanted), rel=2e-2)


def test_refusals() -> None:
    one, other = torch.randn(4, 3), torch.randn(5, 3)
    with pytest.raises(ValueError, match="1 views"):
        nt_xent([one], ALONE)
    with pytest.raises(ValueError, match=r"\(4, 3\), \(5, 3\)"):
        nt_xent([one, other], ALONE)
    with pytest.raises(ValueError, match="temperature is 0"):
        nt_xent([one, one], ALONE, 0.0)
    with pytest.raises(ValueError, match="4 rows"):
        nt_xent([one, one], ALONE, image_id=torch.arange(5))
