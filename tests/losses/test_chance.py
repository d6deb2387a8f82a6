"""Chance values against the losses they belong to, at the best constant prediction that a search can find."""

import math

import pytest
import torch
import torch.nn.functional as F

from multiway.losses import chance


def test_uniform_is_cross_entropy_of_equal_logits():
    value, formula = chance.uniform(128)
    assert formula == "ln 128"
    assert value == pytest.approx(float(F.cross_entropy(torch.zeros(4, 128), torch.arange(4))))


def test_uniform_over_rows():
    value, formula = chance.uniform_over_rows(torch.tensor([4, 2, 4]))
    assert value == pytest.approx((2 * math.log(4) + math.log(2)) / 3)
    assert "2 to 4" in formula
    assert chance.uniform_over_rows(torch.tensor([8, 8])) == chance.uniform(8)


def test_matching_with_two_negatives_for_each_positive():
    value, formula = chance.binary(1 / 3)
    assert value == pytest.approx(0.6365, abs=5e-5)
    assert formula == "H(1/3)"
    assert chance.binary(0.0).value == chance.binary(1.0).value == 0.0
    assert chance.binary(0.3).formula == "H(0.3)"


def best_constant(loss, logits):
    """The least loss over constant logits, found by descent."""
    logits = logits.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_change=1e-14, line_search_fn="strong_wolfe")

    def step():
        optimiser.zero_grad()
        value = loss(logits)
        value.backward()
        return value

    optimiser.step(step)
    return float(loss(logits.detach()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_entropy_is_the_best_constant(smoothing):
    counts = torch.tensor([5, 1, 2])
    labels = torch.repeat_interleave(torch.arange(3), counts)

    def loss(logits):
        return F.cross_entropy(logits.expand(8, 3), labels, label_smoothing=smoothing)

    least = best_constant(loss, torch.zeros(3, dtype=torch.float64))
    assert chance.label_entropy(counts, smoothing).value == pytest.approx(least, rel=1e-6)


def test_sigmoid_pairs_is_the_best_constant_logit():
    sign = 2 * torch.eye(128, dtype=torch.float64) - 1

    def loss(logit):
        return -F.logsigmoid(sign * logit).sum() / 128

    value, formula = chance.sigmoid_pairs(128, 1)
    assert value == pytest.approx(best_constant(loss, torch.zeros((), dtype=torch.float64)), rel=1e-6)
    assert value == pytest.approx(5.85, abs=5e-3)
    assert formula == "128 H(1/128)"


def test_unigram_counts_only_tokens_in_use():
    value, formula = chance.unigram([3, 0, 3, 0])
    assert value == pytest.approx(math.log(2))
    assert formula == "unigram entropy over 2 tokens in use"


@pytest.mark.parametrize(
    "call",
    [
        lambda: chance.uniform(0),
        lambda: chance.binary(1.5),
        lambda: chance.binary(math.nan),
        lambda: chance.label_entropy([0.0, 0.0]),
        lambda: chance.label_entropy([1.0, -1.0]),
        lambda: chance.label_entropy([math.nan, 1.0]),
        lambda: chance.label_entropy([1.0, 1.0], smoothing=2.0),
        lambda: chance.sigmoid_pairs(4, 5),
        lambda: chance.uniform_over_rows(torch.tensor([0, 3])),
    ],
)
def test_refuses_what_has_no_chance_value(call):
    with pytest.raises(ValueError):
        call()
