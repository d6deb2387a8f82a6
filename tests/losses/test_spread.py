"""InvaSpread's loss against loops over its probabilities."""

import math

import pytest
import torch
import torch.nn.functional as F

from multiway.losses.nt_xent import nt_xent
from multiway.losses.spread import spread
from multiway.world import World

ALONE = World()


def draw(rows=4, seed=0, dtype=torch.float64):
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def twin(first, second, temperature, weight=1.0, image_id=None, detach=True):
    points = F.normalize(torch.cat([first, second]), dim=1)
    rows, total = len(first), 0.0
    for i in range(2 * rows):
        seen = [
            j
            for j in range(2 * rows)
            if j != i and (image_id is None or j % rows == i % rows or image_id[j % rows] != image_id[i % rows])
        ]
        others = points.detach() if detach else points
        e = {j: torch.exp((points[i] * others[j]).sum() / temperature) for j in seen}
        p = {j: e[j] / sum(e.values()) for j in seen}
        positive = (i + rows) % (2 * rows)
        total = total - torch.log(p[positive]) - weight * sum(torch.log(1 - p[j]) for j in seen if j != positive)
    return total / (2 * rows)


@pytest.mark.parametrize("gradient", ["none", "global"])
@pytest.mark.parametrize("ids", [None, torch.tensor([4, 9, 4, 1])])
def test_equals_the_definition_with_gradients(gradient, ids):
    mine, slow = ([draw().requires_grad_(), draw(seed=1).requires_grad_()] for _ in range(2))
    found = spread(*mine, ALONE, 0.3, 0.7, ids, gradient)
    wanted = twin(*slow, 0.3, 0.7, None if ids is None else ids.tolist(), gradient == "none")
    torch.testing.assert_close(found.loss, wanted)
    torch.testing.assert_close(torch.autograd.grad(found.loss, mine), torch.autograd.grad(wanted, slow))


def test_without_spreading_it_is_nt_xent() -> None:
    a, b = draw(), draw(seed=1)
    found = spread(a, b, ALONE, 0.2, weight=0.0)
    torch.testing.assert_close(found.loss, nt_xent([a, b], ALONE, 0.2).loss)
    torch.testing.assert_close(found.invariance, found.loss)
    assert float(found.accuracy) == float(nt_xent([a, b], ALONE, 0.2).accuracy)


def test_collapse_scores_chance() -> None:
    point = torch.ones(6, 3).double()
    found = spread(point, point, ALONE, 0.1)
    assert float(found.loss) == pytest.approx(found.chance)
    assert found.chance == pytest.approx(math.log(11) - 10 * math.log(10 / 11)) and found.formula.endswith("K = 11")


def test_a_negative_that_takes_all_stays_finite() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    second = torch.tensor([[-1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    found = spread(first, second, ALONE, 0.01)
    found.loss.backward()
    assert bool(found.loss.detach().isfinite()) and bool(first.grad.isfinite().all()) and float(found.spreading) > 1.0


def test_log_of_the_rest_keeps_its_digits() -> None:
    from multiway.losses.spread import _log_of_rest

    p = torch.tensor([1e-12, 1e-3, 0.3, 0.5, 0.7, 0.999], dtype=torch.float64)
    torch.testing.assert_close(_log_of_rest(p.log().float()).double(), torch.log1p(-p), rtol=1e-4, atol=0.0)


def test_a_single_pair() -> None:
    found = spread(draw(1), draw(1, 1), ALONE)
    assert float(found.loss) == pytest.approx(0.0, abs=1e-9) and found.chance == 0.0
    with pytest.raises(ValueError, match="temperature"):
        spread(draw(), draw(), ALONE, 0.0)
