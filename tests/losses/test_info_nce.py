"""InfoNCE against cross entropy over written-out logits: given negatives, shared or per row, and keys of the batch."""

import math

import pytest
import torch
import torch.nn.functional as F

from multiway.losses.info_nce import info_nce
from multiway.losses.nt_xent import nt_xent
from multiway.world import World

ALONE = World()


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(x):
    return F.normalize(x, dim=-1)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "each its own"])
def test_given_negatives(own):
    query, key = draw(5, 4).requires_grad_(), draw(5, 4, seed=1).requires_grad_()
    negatives = draw(5, 9, 4, seed=2) if own else draw(9, 4, seed=2)
    found = info_nce(query, key, ALONE, 0.2, negatives)
    q, k, n = unit(query), unit(key), unit(negatives)
    logits = torch.cat([(q * k).sum(1, keepdim=True), torch.einsum("bd,bmd->bm", q, n.expand(5, 9, 4))], 1) / 0.2
    wanted = F.cross_entropy(logits, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(found.loss, wanted)
    assert float(found.accuracy) == pytest.approx(float((logits.argmax(1) == 0).double().mean()))
    assert found.formula == "ln 10"
    mine, slow = (torch.autograd.grad(loss, [query, key]) for loss in (found.loss, wanted))
    torch.testing.assert_close(mine, slow)


def test_negatives_of_the_own_picture_are_left_out() -> None:
    query, key, negatives = draw(3, 4), draw(3, 4, seed=1), draw(6, 4, seed=2)
    key_id, negative_id = torch.tensor([0, 1, 2]), torch.tensor([1, 0, 5, 0, 6, 7])
    found = info_nce(query, key, ALONE, 0.1, negatives, key_id, negative_id)
    each = [
        info_nce(query[i : i + 1], key[i : i + 1], ALONE, 0.1, negatives[negative_id != key_id[i]]) for i in range(3)
    ]
    torch.testing.assert_close(found.loss, torch.stack([one.loss for one in each]).mean())
    assert found.chance == pytest.approx((math.log(5) + math.log(6) + math.log(7)) / 3)
    leaf = query.clone().requires_grad_()
    alone = info_nce(leaf, key, ALONE, 0.1, negatives[:1], torch.zeros(3).long(), torch.zeros(1).long())
    alone.loss.backward()
    assert float(alone.loss.detach()) == 0.0 and alone.chance == 0.0 and bool((leaf.grad == 0).all())


def test_an_empty_queue_asks_nothing() -> None:
    query = draw(3, 4).requires_grad_()
    found = info_nce(query, draw(3, 4, seed=1), ALONE, 0.1, torch.empty(0, 4, dtype=torch.float64))
    found.loss.backward()
    assert float(found.loss.detach()) == 0.0 and found.chance == 0.0 and bool(query.grad.isfinite().all())


@pytest.mark.parametrize("scaled", [False, True])
def test_keys_of_the_batch(scaled):
    query, key = draw(6, 4).requires_grad_(), draw(6, 4, seed=1).requires_grad_()
    found = info_nce(query, key, ALONE, 0.2, scaled=scaled, chunk=4)
    logits = unit(query) @ unit(key).t() / 0.2
    factor = 0.4 if scaled else 1.0
    wanted = factor * F.cross_entropy(logits, torch.arange(6))
    torch.testing.assert_close(found.loss, wanted)
    assert found.chance == pytest.approx(factor * math.log(6)) and found.formula.endswith("ln 6")
    ours, theirs = (torch.autograd.grad(each, query, retain_graph=True)[0] for each in (found.loss, wanted))
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(RuntimeError, match="not have been used"):  # a momentum encoder's keys learn nothing
        torch.autograd.grad(found.loss, key)
    both = info_nce(query, key, ALONE, 0.2, gradient="global", scaled=scaled)
    torch.testing.assert_close(torch.autograd.grad(both.loss, [query, key]), torch.autograd.grad(wanted, [query, key]))


def test_rows_of_one_picture_in_the_batch() -> None:
    query, key, ids = draw(4, 3), draw(4, 3, seed=1), torch.tensor([5, 6, 5, 8])
    found = info_nce(query, key, ALONE, 0.3, key_id=ids)
    logits = unit(query) @ unit(key).t() / 0.3
    logits[0, 2] = logits[2, 0] = -torch.inf
    torch.testing.assert_close(found.loss, F.cross_entropy(logits, torch.arange(4)))
    assert found.chance == pytest.approx((2 * math.log(3) + 2 * math.log(4)) / 4)


def test_collapse_scores_ln_of_candidates() -> None:
    point = torch.ones(4, 8)
    found = info_nce(point, point, ALONE, 0.07, torch.ones(100, 8))
    assert float(found.loss) == pytest.approx(math.log(101), rel=1e-5)
    assert found.chance == pytest.approx(math.log(101))
    assert float(info_nce(point, point, ALONE, 0.07).loss) == pytest.approx(math.log(4), rel=1e-5)


def test_a_winning_positive_keeps_its_digits() -> None:
    """e^-90 is far below what a difference of float32 numbers near 50 can show."""
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    found = info_nce(query, torch.tensor([[1.0, 0.0]]), ALONE, 0.02, torch.tensor([[-0.8, 0.6]]))
    assert float(found.loss.detach()) == pytest.approx(math.exp(-90), rel=1e-3)


def test_bf16_and_autocast() -> None:
    query, key, bank = (draw(*shape, seed=n).float() for n, shape in enumerate([(5, 16), (5, 16), (30, 16)]))
    wanted = info_nce(query, key, ALONE, 0.1, bank).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(info_nce(query, key, ALONE, 0.1, bank).loss, wanted)


def test_nt_xent_of_two_views_is_info_nce_with_the_rest_as_negatives() -> None:
    a, b = draw(5, 4), draw(5, 4, seed=1)
    total = 0.0
    for query, key in ((a, b), (b, a)):
        for i in range(5):
            rest = torch.cat([query[torch.arange(5) != i], key[torch.arange(5) != i]])
            total = total + info_nce(query[i : i + 1], key[i : i + 1], ALONE, 0.1, rest).loss / 10
    torch.testing.assert_close(nt_xent([a, b], ALONE, 0.1).loss, total)


def test_refusals() -> None:
    query = torch.randn(3, 4)
    with pytest.raises(ValueError, match="two equal"):
        info_nce(query, query[:2], ALONE)
    with pytest.raises(ValueError, match=r"expected \(K, 4\)"):
        info_nce(query, query, ALONE, 0.1, torch.randn(2, 5))
    with pytest.raises(ValueError, match="one of key_id and negative_id"):
        info_nce(query, query, ALONE, 0.1, torch.randn(2, 4), torch.arange(3))
    with pytest.raises(ValueError, match="one per negative"):
        info_nce(query, query, ALONE, 0.1, torch.randn(2, 4), torch.arange(3), torch.arange(3))
    with pytest.raises(ValueError, match="without negatives"):
        info_nce(query, query, ALONE, negative_id=torch.arange(3))
    with pytest.raises(ValueError, match="temperature"):
        info_nce(query, query, ALONE, -1.0)
