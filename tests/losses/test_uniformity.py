"""Alignment and uniformity against the paper's pairwise distances."""

import pytest
import torch
import torch.nn.functional as F

from multiway.losses.uniformity import alignment, uniformity
from multiway.world import World

ALONE = World()


def draw(rows=7, width=4, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_is_that_of_all_pairs(t):
    x = draw()
    wanted = torch.pdist(F.normalize(x, dim=1)).square().mul(-t).exp().mean().log()
    torch.testing.assert_close(uniformity(x, ALONE, t), wanted)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_alignment_is_that_of_pairs(alpha):
    x, y = draw(), draw(seed=1)
    total = sum(
        float((F.normalize(a, dim=0) - F.normalize(b, dim=0)).norm()) ** alpha for a, b in zip(x, y, strict=True)
    )
    assert float(alignment(x, y, ALONE, alpha)) == pytest.approx(total / 7)


def test_ends() -> None:
    point = torch.ones(6, 3).double()
    assert float(uniformity(point, ALONE)) == pytest.approx(0.0, abs=1e-9)
    assert float(alignment(draw(), 5 * draw(), ALONE)) == pytest.approx(0.0, abs=1e-12)
    # In many dimensions independent directions are at right angles: exp(-t 2).
    assert float(uniformity(draw(200, 2000), ALONE)) == pytest.approx(-4.0, abs=0.02)
    assert not uniformity(draw().requires_grad_(), ALONE).requires_grad
    with pytest.raises(ValueError, match="two rows"):
        uniformity(point[:1], ALONE)
    with pytest.raises(ValueError, match="equal"):
        alignment(point, point[:2], ALONE)
