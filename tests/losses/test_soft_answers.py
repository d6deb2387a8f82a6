"""Soft answers against the definition in float64, number by number."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.losses.soft_answers import soft_answers


def twin(logits: torch.Tensor, targets: torch.Tensor) -> float:
    total = 0.0
    for row, own in zip(logits.double().tolist(), targets.double().tolist(), strict=True):
        for score, right in zip(row, own, strict=True):
            yes = 1 / (1 + math.exp(-score))
            total -= right * math.log(yes) + (1 - right) * math.log(1 - yes)
    return total / len(logits)


@given(rows=st.integers(1, 6), answers=st.integers(1, 9), seed=st.integers(0, 99), scale=st.floats(0.1, 5))
@settings(max_examples=40, deadline=None)
def test_equals_the_twin(rows: int, answers: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, answers, generator=generator)
    targets = torch.rand(rows, answers, generator=generator)
    result = soft_answers(logits, targets)
    assert float(result.loss) == pytest.approx(twin(logits, targets), rel=1e-5)
    best = logits.argmax(1)
    assert float(result.score) == pytest.approx(sum(targets[i, a].item() for i, a in enumerate(best)) / rows, rel=1e-5)


def test_chance_is_the_loss_of_the_best_constant() -> None:
    torch.manual_seed(0)
    targets = torch.rand(40, 5) * (torch.rand(40, 5) < 0.4)
    targets[:, 4] = 0  # an answer that nobody ever gives
    mean = targets.mean(0).clamp(1e-9, 1)
    constant = (mean / (1 - mean)).log()
    result = soft_answers(constant.expand(40, 5), targets)
    assert float(result.loss) == pytest.approx(result.chance, rel=1e-5)
    for step in (-0.3, 0.3):
        assert soft_answers((constant + step).expand(40, 5), targets).loss > result.chance


def test_gradient_and_precision() -> None:
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(4, 6)
    loss = soft_answers(logits, targets).loss
    loss.backward()
    torch.testing.assert_close(logits.grad, (logits.detach().sigmoid() - targets.double()) / 4)
    assert loss.dtype == torch.float64
    half = logits.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert soft_answers(half, targets).loss.dtype == torch.float32


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits are \(2, 3\) and targets \(2,\)"):
        soft_answers(torch.zeros(2, 3), torch.zeros(2))
