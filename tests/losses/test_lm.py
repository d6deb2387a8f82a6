"""Language modelling: the loss against its definition and torch's, its chance value, and where nothing is written."""

import math

import pytest
import torch

from multiway.losses.lm import lm


def draw(tokens: int = 9, vocabulary: int = 13) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(tokens, vocabulary, dtype=torch.float64), torch.randint(0, vocabulary, (tokens,))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_loss_is_the_definition_and_torchs(smoothing: float) -> None:
    logits, target = draw()
    slow = 0.0
    for row in range(len(target)):
        p = logits[row].softmax(0)
        for word in range(logits.shape[1]):
            q = (1 - smoothing) * (word == target[row]) + smoothing / logits.shape[1]
            slow -= float(q) * math.log(float(p[word])) / len(target)
    result = lm(logits, target, smoothing)
    assert float(result.loss) == pytest.approx(slow, rel=1e-6)
    peer = torch.nn.functional.cross_entropy(logits, target, label_smoothing=smoothing)
    assert float(result.loss) == pytest.approx(float(peer), rel=1e-6)
    assert float(result.hard) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, target)), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chance_is_what_the_best_constant_scores(smoothing: float) -> None:
    """A constant prediction, trained, ends at the chance value and never below it."""
    _, target = draw(60, 7)
    constant = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([constant], max_iter=200)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(constant.expand(60, 7), target, label_smoothing=smoothing)
        loss.backward()
        return loss

    optimiser.step(closure)
    result = lm(constant.detach().expand(60, 7), target, smoothing)
    assert float(result.loss) == pytest.approx(result.chance, rel=1e-5)
    assert ("smoothed by 0.1" in result.formula) == (smoothing > 0)


def test_accuracy_counts_the_likeliest() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 2.0], [1.0, 0.0, 0.0]])
    assert float(lm(logits, torch.tensor([0, 2, 2, 0])).accuracy) == 0.75


def test_nothing_to_write_is_zero_with_a_graph() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    result = lm(logits, torch.zeros(0, dtype=torch.int64), 0.1)
    assert float(result.loss.detach()) == 0.0 and result.loss.requires_grad


def test_refusals() -> None:
    logits, target = draw()
    with pytest.raises(ValueError, match="expected \\(P, V\\)"):
        lm(logits, target[:-1])
    with pytest.raises(ValueError, match="smoothing is 1"):
        lm(logits, target, 1.0)
