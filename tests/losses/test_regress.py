"""BYOL's and SimSiam's loss: ranges, the stop-gradient, and a chance value that shows collapse."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.regress import regress
from multiway.world import World

ALONE = World()


def draw(seed=0, rows=6):
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_views_are_the_papers_equations() -> None:
    p, z = [draw(0), draw(1)], [draw(2), draw(3)]
    distances = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean() for a, b in ((p[0], z[1]), (p[1], z[0]))
    ]
    torch.testing.assert_close(regress(p, z, ALONE).loss, sum(distances) / 2)
    cosine = -(F.cosine_similarity(p[0], z[1]).mean() / 2 + F.cosine_similarity(p[1], z[0]).mean() / 2)
    torch.testing.assert_close(regress(p, z, ALONE, "cosine").loss, cosine)


def test_more_views_than_targets() -> None:
    p, z = [draw(n) for n in range(4)], [draw(7), draw(8)]
    pairs = [(i, j) for i in range(4) for j in range(2) if i != j]
    assert len(pairs) == 2 * 4 - 2
    wanted = sum(-F.cosine_similarity(p[i], z[j]).mean() for i, j in pairs) / 6
    torch.testing.assert_close(regress(p, z, ALONE, "cosine").loss, wanted)


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_ranges(seed):
    p, z = [draw(seed), draw(seed + 1)], [draw(seed + 2), draw(seed + 3)]
    assert 0.0 <= float(regress(p, z, ALONE).loss) <= 4.0 and -1.0 <= float(regress(p, z, ALONE, "cosine").loss) <= 1.0


def test_ends_of_the_ranges() -> None:
    p = [draw(0), draw(1)]
    same, away = [3 * p[1], 2 * p[0]], [-p[1], -p[0]]
    assert float(regress(p, same, ALONE).loss) == pytest.approx(0.0, abs=1e-12)
    assert float(regress(p, away, ALONE).loss) == pytest.approx(4.0)
    assert float(regress(p, same, ALONE, "cosine").loss) == pytest.approx(-1.0)
    assert float(regress(p, away, ALONE, "cosine").loss) == pytest.approx(1.0)


@pytest.mark.parametrize("form", ["byol", "cosine"])
def test_no_gradient_passes_the_stop(form):
    p, z = ([draw(n).requires_grad_() for n in ns] for ns in ((0, 1), (2, 3)))
    regress(p, z, ALONE, form).loss.backward()
    assert all(each.grad is not None for each in p) and all(each.grad is None for each in z)
    regress(p, z, ALONE, form, stop_gradient=False).loss.backward()
    assert all(float(each.grad.abs().sum()) > 0 for each in z)


@pytest.mark.parametrize("form", ["byol", "cosine"])
def test_chance_is_the_best_constant_and_collapse_sits_on_it(form):
    z = [draw(2) + 0.5, draw(3) + 0.5]
    guess = torch.randn(5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([guess], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = regress([guess.expand(6, 5)] * 2, z, ALONE, form).loss
        loss.backward()
        return loss

    optimiser.step(closure)
    found = regress([guess.detach().expand(6, 5)] * 2, z, ALONE, form)
    assert float(found.loss) == pytest.approx(found.chance, abs=1e-8)
    point = torch.ones(6, 5)
    collapsed = regress([point] * 2, [point] * 2, ALONE, form)
    assert float(collapsed.loss) == pytest.approx(collapsed.chance, abs=1e-6)
    learned = regress(z[::-1], z, ALONE, form)
    assert float(learned.loss) < learned.chance - 0.1


def test_refusals() -> None:
    with pytest.raises(ValueError, match="two views"):
        regress([draw()], [draw()], ALONE)
    with pytest.raises(ValueError, match="expected equal"):
        regress([draw(), draw()], [draw(rows=5)] * 2, ALONE)
    with pytest.raises(ValueError, match="form is 'l2'"):
        regress([draw()] * 2, [draw()] * 2, ALONE, "l2")
