"""KoLeo and the meters of alignment and uniformity against loops over rows."""

import math

import pytest
import torch
import torch.nn.functional as F

from multiway.losses.koleo import koleo
from multiway.world import World

ALONE = World()


def draw(rows=7, width=4, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equals_the_nearest_neighbour_by_loops() -> None:
    x = draw().requires_grad_()
    found = koleo(x, ALONE)
    y = F.normalize(x, dim=1)
    wanted = -torch.stack(
        [
            torch.log(min(((y[i] - y[j]).norm() for j in range(7) if j != i), key=lambda d: float(d.detach())))
            for i in range(7)
        ]
    ).mean()
    torch.testing.assert_close(found.loss, wanted, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        *(torch.autograd.grad(each, x)[0] for each in (found.loss, wanted)), rtol=1e-5, atol=1e-6
    )


def test_it_pushes_neighbours_apart() -> None:
    x = (draw(16, 3) + 4.0).requires_grad_()
    before = koleo(x, ALONE)
    for _ in range(30):
        (gradient,) = torch.autograd.grad(koleo(x, ALONE).loss, x)
        x = (x - 0.5 * gradient).detach().requires_grad_()
    assert float(koleo(x, ALONE).distance) > 2 * float(before.distance)


def test_collapse_scores_chance_and_stays_finite() -> None:
    found = koleo(torch.ones(5, 9), ALONE)
    assert float(found.loss) == pytest.approx(found.chance, rel=1e-3) and math.isfinite(found.chance)
    assert found.chance > float(koleo(torch.eye(5), ALONE).loss)
    with pytest.raises(ValueError, match="two rows"):
        koleo(torch.ones(1, 3), ALONE)


def test_autocast_keeps_float32() -> None:
    x = draw().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            torch.equal(koleo(x, ALONE).loss, koleo(x, ALONE).loss)
            and koleo(x.bfloat16(), ALONE).loss.dtype == torch.float32
        )
