"""Masked words: the loss against its definition, its chance value, and the teacher's share."""

import math

import pytest
import torch

from multiway.losses.mlm import mlm


def draw(positions: int = 7, vocabulary: int = 11) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    logits, teacher = torch.randn(2, positions, vocabulary, dtype=torch.float64)
    return logits, torch.randint(0, vocabulary, (positions,)), teacher


@pytest.mark.parametrize("soft", [0.0, 0.4, 1.0])
def test_loss_is_the_definition(soft: float) -> None:
    logits, target, teacher = draw()
    slow = 0.0
    for row in range(len(target)):
        p, q = logits[row].softmax(0), teacher[row].softmax(0)
        for word in range(logits.shape[1]):
            y = soft * float(q[word]) + (1 - soft) * (word == target[row])
            slow -= y * math.log(float(p[word])) / len(target)
    assert float(mlm(logits, target, teacher, soft).loss) == pytest.approx(float(slow), rel=1e-6)


def test_distillation_differs_from_kl_by_a_constant_only() -> None:
    """The gradient is that of (1 - a) CE + a KL(q || p), the paper's equation 7."""
    logits, target, teacher = draw()
    logits.requires_grad_()
    (got,) = torch.autograd.grad(mlm(logits, target, teacher, 0.4).loss, logits)
    logp, q = logits.log_softmax(-1), teacher.softmax(-1)
    kl = (q * (q.log() - logp)).sum(-1).mean()
    (want,) = torch.autograd.grad(0.6 * torch.nn.functional.nll_loss(logp, target) + 0.4 * kl, logits)
    torch.testing.assert_close(got, want.to(got), atol=1e-6, rtol=1e-5)


def test_no_gradient_reaches_the_teacher() -> None:
    logits, target, teacher = draw()
    teacher.requires_grad_()
    mlm(logits.requires_grad_(), target, teacher, 0.4).loss.backward()
    assert teacher.grad is None and logits.grad is not None


def test_the_unigram_model_scores_chance() -> None:
    target = torch.tensor([0, 0, 0, 1, 1, 4])
    frequencies = torch.bincount(target, minlength=6).float() / 6
    logits = frequencies.clamp(min=1e-12).log().expand(6, 6)
    result = mlm(logits, target)
    assert float(result.loss) == pytest.approx(result.chance, abs=1e-5)
    assert float(result.accuracy) == pytest.approx(0.5)


def test_nothing_masked_is_zero_with_a_gradient() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    result = mlm(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5), 0.4)
    result.loss.backward()
    assert float(result.loss) == 0.0 and logits.grad is not None


def test_refuses_what_does_not_fit() -> None:
    logits, target, teacher = draw()
    with pytest.raises(ValueError, match="expected"):
        mlm(logits, target[:3])
    with pytest.raises(ValueError, match="expected"):
        mlm(logits, target, teacher[:, :4], 0.4)
    with pytest.raises(ValueError, match="soft"):
        mlm(logits, target, None, 0.4)
