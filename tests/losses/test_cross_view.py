"""SwAV's and DINO's cross entropy between views against loops over pairs, and the two ways to collapse."""

import math

import pytest
import torch

from multiway.losses.cross_view import cross_view
from multiway.losses.self_distillation import self_distillation, sharpen
from multiway.losses.sinkhorn import sinkhorn
from multiway.losses.swapped import swapped
from multiway.world import World

ALONE = World()


def draw(views, rows=4, count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, count, generator=generator, dtype=torch.float64) for _ in range(views)]


@pytest.mark.parametrize(("views", "targets"), [(2, 2), (2, 1), (6, 2), (5, 3)])
def test_equals_loops_over_pairs(views, targets):
    mine, slow = ([each.requires_grad_() for each in draw(views)] for _ in range(2))
    aims = [each.softmax(1) for each in draw(targets, seed=1)]
    found = cross_view(mine, aims, 0.3, ALONE)
    total, terms, hits = 0.0, 0, 0.0
    for t, aim in enumerate(aims):
        for v, each in enumerate(slow):
            if v != t:
                total = total - (aim * torch.log(torch.softmax(each / 0.3, 1))).sum(1).mean()
                hits += float((each.argmax(1) == aim.argmax(1)).double().mean())
                terms += 1
    torch.testing.assert_close(found.loss, total / terms)
    assert found.terms == terms and float(found.accuracy) == pytest.approx(hits / terms)
    for a, b in zip(mine, slow, strict=True):
        theirs = torch.autograd.grad(total / terms, b, retain_graph=True, allow_unused=True)[0]
        ours = torch.autograd.grad(found.loss, a, retain_graph=True, allow_unused=True)[0]
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("small", [0, 4, 8])
def test_number_of_terms(small):
    found = self_distillation(draw(2 + small), draw(2), None, ALONE)
    assert found.terms == 2 * (2 + small) - 2


def test_a_view_is_never_its_own_target() -> None:
    """Of one target and two views, the target's own view does not matter."""
    logits, aim = draw(2), draw(1, seed=1)[0].softmax(1)
    first = cross_view(logits, [aim], 0.1, ALONE).loss
    assert torch.equal(first, cross_view([logits[0] + torch.randn(4, 6), logits[1]], [aim], 0.1, ALONE).loss)
    assert not torch.allclose(first, cross_view([logits[0], logits[0]], [aim], 0.1, ALONE).loss)


def test_the_teacher_learns_nothing_here() -> None:
    student, teacher = draw(3), [each.requires_grad_() for each in draw(2, seed=1)]
    leaves = [each.requires_grad_() for each in student]
    self_distillation(leaves, teacher, None, ALONE).loss.backward()
    assert all(each.grad is not None for each in leaves) and all(each.grad is None for each in teacher)


@pytest.mark.parametrize(("count", "value"), [(3000, 8.006), (65536, 11.09)])
def test_a_constant_output_scores_ln_k(count, value):
    constant = [torch.zeros(2, count)] * 2
    codes = [sinkhorn(each, ALONE) for each in constant]
    found = swapped(constant, codes, ALONE)
    assert float(found.loss) == pytest.approx(found.chance, rel=1e-5) and found.chance == pytest.approx(value, abs=1e-3)
    assert found.formula == f"ln {count}"
    taught = self_distillation(constant, constant, torch.zeros(count), ALONE)
    assert float(taught.loss) == pytest.approx(value, abs=1e-3)


def test_the_two_collapses_can_be_told_apart() -> None:
    """Centring alone: even targets. Sharpening alone: one output for all. In both the student has nothing left to learn."""
    rows, count = 32, 8
    biased = [torch.zeros(rows, count).index_fill_(1, torch.tensor([3]), 1.0)] * 2
    centre = biased[0].mean(0)
    even = self_distillation([torch.zeros(rows, count)] * 2, biased, centre, ALONE, 0.1, 0.04)
    assert float(even.target_entropy) == pytest.approx(math.log(count)) and float(even.divergence) == pytest.approx(
        0, abs=1e-5
    )
    one = self_distillation(biased, biased, None, ALONE, 0.02, 0.02)
    assert float(one.target_entropy) < 1e-3 and float(one.usage) < 1e-3 and float(one.divergence) < 1e-3
    healthy = [torch.eye(count).repeat(4, 1)] * 2
    fine = self_distillation(healthy, healthy, torch.zeros(count), ALONE, 0.1, 0.04)
    assert float(fine.target_entropy) < 1e-3 and float(fine.usage) == pytest.approx(math.log(count), abs=1e-4)
    assert float(fine.accuracy) == 1.0


def test_sharpening_is_the_softmax_of_what_is_above_the_centre() -> None:
    logits, center = draw(1)[0], draw(1, rows=1, seed=2)[0][0]
    torch.testing.assert_close(sharpen(logits, center, 0.04), torch.softmax((logits - center) / 0.04, 1))
    assert sharpen(logits.bfloat16(), None, 0.04).dtype == torch.float32
    # Lower temperatures are sharper.
    entropies = [float(torch.special.entr(sharpen(logits, center, t)).sum()) for t in (0.02, 0.07, 0.5)]
    assert entropies == sorted(entropies)


def test_autocast_keeps_float32() -> None:
    student, teacher = ([each.float() for each in draw(2, seed=n)] for n in (0, 1))
    wanted = self_distillation(student, teacher, None, ALONE).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(self_distillation(student, teacher, None, ALONE).loss, wanted)


def test_refusals() -> None:
    a = draw(2)
    with pytest.raises(ValueError, match="1 views, 1 targets"):
        cross_view(a[:1], a[:1], 0.1, ALONE)
    with pytest.raises(ValueError, match="2 views, 0 targets"):
        cross_view(a, [], 0.1, ALONE)
    with pytest.raises(ValueError, match="expected equal"):
        cross_view(a, [each[:, :3] for each in a], 0.1, ALONE)
    with pytest.raises(ValueError, match="centre"):
        self_distillation(a, a, torch.zeros(5), ALONE)
