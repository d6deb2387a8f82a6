"""Weighted language modelling against a loop, and its chance against every constant that could be tried."""

import math

import pytest
import torch

from multiway.losses.weighted_lm import weighted_lm


def test_it_is_the_sum_of_the_definition() -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, 5, dtype=torch.float64)
    target, weight = torch.tensor([0, 1, 1, 4, 2, 0, 3]), torch.tensor([1.0, 0.3, 0.3, 0.7, 0.7, 0.5, 0.5])
    want = 0.0
    for token in range(7):
        total = sum(math.exp(float(each)) for each in logits[token])
        want -= float(weight[token]) * math.log(math.exp(float(logits[token, target[token]])) / total) / 3
    found = weighted_lm(logits, target, weight.double(), 3)
    assert float(found.loss) == pytest.approx(want, rel=1e-12)
    right = sum(float(w) for w, t, row in zip(weight, target, logits) if int(row.argmax()) == int(t))
    assert float(found.accuracy) == pytest.approx(right / float(weight.sum()))


def test_chance_is_the_best_constant() -> None:
    target, weight = torch.tensor([0, 1, 1, 2]), torch.tensor([1.0, 0.5, 0.25, 0.25])

    def scored(p: torch.Tensor) -> float:
        return float(weighted_lm(p.log().double().expand(4, 3), target, weight, 2).loss)

    best = torch.tensor([1.0, 0.75, 0.25]) / 2
    found = weighted_lm(best.log().expand(4, 3), target, weight, 2)
    assert found.chance == pytest.approx(scored(best), rel=1e-6) and "1 weighted tokens" in found.formula
    others = torch.distributions.Dirichlet(10 * best).sample((200,))
    assert min(map(scored, others)) >= found.chance


def test_nothing_to_write_has_a_gradient_of_nothing() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    found = weighted_lm(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(0), 2)
    found.loss.backward()
    assert float(found.loss.detach()) == 0.0 and logits.grad is not None


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        weighted_lm(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64), torch.zeros(3), 1)
    with pytest.raises(ValueError, match="at least one question"):
        weighted_lm(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64), torch.zeros(2), 0)
