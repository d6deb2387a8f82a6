"""NCE by its published fractions, against the full softmax that it stands in for, and its constant prediction."""

import math

import pytest
import torch
import torch.nn.functional as F

from multiway.losses.nce import log_partition, nce, proximal
from multiway.world import World

ALONE = World()


def draw(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "each its own"])
def test_equals_the_fractions_of_the_paper(own):
    query = draw(4, 6).requires_grad_()
    bank = draw(50, 6, seed=1)
    positive, noise = bank[:4], bank[torch.arange(4 * 7).view(4, 7)] if own else bank[10:17]
    log_z = log_partition(query, positive, noise, 50, ALONE, 0.1)
    found = nce(query, positive, noise, 50, log_z, 0.1)
    total, scores, unit = 0.0, [], F.normalize(query, dim=1)
    for i in range(4):
        others = noise[i] if own else noise
        exps = [torch.exp((unit[i] * v).sum() / 0.1) for v in (positive[i], *others)]
        scores += exps
        p = [each / float(log_z.exp()) for each in exps]
        h = [each / (each + 7 / 50) for each in p]
        total = total - torch.log(h[0]) - sum(torch.log(1 - each) for each in h[1:])
    torch.testing.assert_close(found.loss, total / 4)
    torch.testing.assert_close(log_z.exp(), 50 * torch.stack(scores).mean().detach())
    torch.testing.assert_close(*(torch.autograd.grad(each, query)[0] for each in (found.loss, total / 4)))
    torch.testing.assert_close(found.data + found.noise, found.loss.detach())


def test_noise_over_everything_has_the_gradient_of_the_full_softmax() -> None:
    """With the true Z of each query and ever more noise, NCE's gradient becomes that of the softmax over all instances."""
    bank, query = draw(12, 5, seed=1), draw(1, 5).requires_grad_()
    full = F.cross_entropy(F.normalize(query, dim=1) @ bank.t() / 0.5, torch.tensor([3]))
    (wanted,) = torch.autograd.grad(full, query)
    log_z = torch.logsumexp(query.detach() @ bank.t() / 0.5, 1)[0]
    apart = []
    for times in (1, 10, 1000):
        loss = nce(query, bank[3:4], bank.repeat(times, 1), 12, log_z, 0.5).loss
        (gradient,) = torch.autograd.grad(loss, query)
        apart.append(float((gradient - wanted).norm() / wanted.norm()))
    assert apart == sorted(apart, reverse=True) and apart[-1] < 2e-3 < 0.05 < apart[0]


def test_chance_is_the_best_constant() -> None:
    found = nce(draw(3, 4), draw(3, 4, seed=1), draw(3, 9, 4, seed=2), 40, 5.0)
    # u is the one logit of h that everything shares.
    least = min(-math.log(h) - 9 * math.log(1 - h) for h in (n / 10000 for n in range(1, 10000)))
    assert found.chance == pytest.approx(least, rel=1e-6) and found.formula == "10 H(1/10)"
    # A collapsed model at Z of its own, n e^(1/tau), has h = 1 / (1 + m): exactly there.
    point = torch.ones(3, 4).double()
    log_z = log_partition(point, point, torch.ones(9, 4).double(), 40, ALONE)
    assert float(log_z) == pytest.approx(math.log(40) + 1 / 0.07)
    collapsed = nce(point, point, torch.ones(9, 4).double(), 40, log_z)
    assert float(collapsed.loss) == pytest.approx(collapsed.chance) and float(collapsed.accuracy) == 0.0


def test_only_the_query_learns() -> None:
    query, own, noise = (draw(*shape).requires_grad_() for shape in ((3, 4), (3, 4), (5, 4)))
    (nce(query, own, noise, 10, 3.0).loss + proximal(query, own)).backward()
    assert query.grad is not None and own.grad is None and noise.grad is None


def test_nothing_overflows_in_float32() -> None:
    query = torch.eye(4)
    found = nce(query, query, -query, 10**6, 0.0, temperature=0.005)
    assert bool(found.loss.isfinite()) and float(found.accuracy) == 1.0


def test_proximal_term() -> None:
    a, b = draw(5, 4), draw(5, 4, seed=1)
    torch.testing.assert_close(proximal(3 * a, b), sum((x - y).square().sum() for x, y in zip(a, b, strict=True)) / 5)
    assert float(proximal(a, 2 * a)) == pytest.approx(0.0, abs=1e-12)


def test_refusals() -> None:
    x = torch.randn(3, 4)
    with pytest.raises(ValueError, match="at least one of each"):
        nce(x, x, x[:0], 10, 0.0)
    with pytest.raises(ValueError, match="noise is"):
        nce(x, x, torch.randn(2, 5, 4), 10, 0.0)
    with pytest.raises(ValueError, match="two equal"):
        nce(x, x[:2], x, 10, 0.0)
    with pytest.raises(ValueError, match="stored ones"):
        proximal(x, x[:2])
