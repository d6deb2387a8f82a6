"""The loss over regions against the definition in float64, number by number."""

import math

import pytest
import torch

from multiway.losses.right_regions import right_regions


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor([5, 1, 3, 2, 0, 4])
    mask = torch.arange(5) < counts[:, None]
    targets = (torch.rand(6, 5, generator=generator) < 0.4).float() * mask
    return 2 * torch.randn(6, 5, generator=generator), targets, mask


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_twin(seed: int) -> None:
    logits, targets, mask = drawn(seed)
    losses, right = [], []
    for row in range(6):
        own = [(logits[row, k].item(), targets[row, k].item()) for k in range(5) if mask[row, k]]
        if own:
            each = [-math.log(1 / (1 + math.exp(-score if s else score))) for score, s in own]
            losses.append(sum(each) / len(each))
            right.append(max(own)[1])
    result = right_regions(logits, targets, mask)
    assert float(result.loss) == pytest.approx(sum(losses) / 5, rel=1e-5)
    assert float(result.score) == pytest.approx(sum(right) / 5)


def test_what_is_not_there_counts_for_nothing() -> None:
    logits, targets, mask = drawn()
    other = torch.where(mask, logits, torch.full_like(logits, 1e4)).requires_grad_()
    result = right_regions(other, torch.where(mask, targets, 1.0), mask)
    result.loss.backward()
    assert torch.equal(result.loss, right_regions(logits, targets, mask).loss)
    assert result.score == right_regions(logits, targets, mask).score
    assert torch.equal(other.grad != 0, mask)


def test_chance_is_the_loss_of_the_best_constant() -> None:
    _, targets, mask = drawn()
    share = (targets.sum(1) / mask.sum(1).clamp(min=1))[mask.any(1)].mean()
    constant = (share / (1 - share)).log()
    result = right_regions(constant.expand(6, 5), targets, mask)
    assert float(result.loss) == pytest.approx(result.chance, rel=1e-5)
    for step in (-0.2, 0.2):
        assert right_regions((constant + step).expand(6, 5), targets, mask).loss > result.chance
    certain = right_regions(torch.full((2, 2), 30.0), torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool))
    assert certain.chance == 0.0 and float(certain.loss) < 1e-6


def test_refusals() -> None:
    logits, targets, mask = drawn()
    with pytest.raises(ValueError, match=r"mask \(6, 4\)"):
        right_regions(logits, targets, mask[:, :4])
    with pytest.raises(ValueError, match="none of 6 examples has a region"):
        right_regions(logits, targets, torch.zeros_like(mask))
