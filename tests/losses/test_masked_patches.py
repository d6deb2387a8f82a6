"""iBOT's loss at hidden patches against loops over views and patches."""

import math

import pytest
import torch

from multiway.losses.masked_patches import masked_patches


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MASK = torch.tensor([[1, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]).bool()


def test_equals_loops() -> None:
    student, teacher, center = draw(3, 5, 6).requires_grad_(), draw(3, 5, 6, seed=1), draw(6, seed=2)
    found = masked_patches(student[MASK], teacher[MASK], MASK, center, 0.2, 0.1)
    total = 0.0
    for i in range(3):
        hidden = [p for p in range(5) if MASK[i, p]]
        for p in hidden:
            aim = torch.softmax((teacher[i, p] - center) / 0.1, 0)
            total = total - (aim * torch.log_softmax(student[i, p] / 0.2, 0)).sum() / len(hidden)
    torch.testing.assert_close(found.loss, total / 3)
    torch.testing.assert_close(*(torch.autograd.grad(each, student)[0] for each in (found.loss, total / 3)))
    assert found.chance == pytest.approx(2 / 3 * math.log(6)) and found.formula == "0.667 x ln 6"


def test_visible_patches_change_nothing() -> None:
    student, teacher = draw(3, 5, 6), draw(3, 5, 6, seed=1)
    before = masked_patches(student[MASK], teacher[MASK], MASK, None).loss
    changed = torch.where(MASK[:, :, None], student, 99.0)
    assert torch.equal(masked_patches(changed[MASK], teacher[MASK], MASK, None).loss, before)


def test_constant_outputs_score_chance() -> None:
    found = masked_patches(torch.zeros(4, 16), torch.zeros(4, 16), MASK, torch.zeros(16))
    assert float(found.loss) == pytest.approx(found.chance) and float(found.target_entropy) == pytest.approx(
        math.log(16)
    )


def test_nothing_hidden_and_refusals() -> None:
    student = torch.randn(0, 6, requires_grad=True)
    found = masked_patches(student, student, torch.zeros(2, 5, dtype=torch.bool), None)
    found.loss.backward()
    assert float(found.loss.detach()) == 0.0 and student.grad is not None
    with pytest.raises(ValueError, match="4 hidden patches"):
        masked_patches(torch.randn(3, 6), torch.randn(3, 6), MASK, None)
    with pytest.raises(ValueError, match="student_temperature"):
        masked_patches(torch.randn(4, 6), torch.randn(4, 6), MASK, None, 0.0)
