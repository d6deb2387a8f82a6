"""Grad-CAM of attention against finite differences, row by row."""

import pytest
import torch

from multiway.nn.grad_cam import chosen_block, grad_cam


def test_it_is_attention_by_its_clipped_slope() -> None:
    torch.manual_seed(0)
    first = torch.rand(3, 2, 4, 5, dtype=torch.float64).requires_grad_()
    second = (first * 2).sin()
    weight = torch.randn(2, 4, 5, dtype=torch.float64)

    def score(one: torch.Tensor) -> torch.Tensor:
        return ((one * 2).sin() * weight).tanh().flatten(1).sum(1)

    scores = (second * weight).tanh().flatten(1).sum(1)
    found = grad_cam(scores, [first, second])[0]
    step, want = 1e-6, torch.zeros(3, 4, 5)
    for row in range(3):
        for word in range(4):
            for patch in range(5):
                for head in range(2):
                    moved = first.detach().clone()
                    moved[row, head, word, patch] += step
                    slope = float((score(moved) - score(first.detach()))[row] / step)
                    want[row, word, patch] += float(first[row, head, word, patch].detach()) * max(0.0, slope) / 2
    assert torch.allclose(found, want, atol=1e-5) and found.min() >= 0 and not found.requires_grad


def test_a_map_that_explains_nothing_is_refused() -> None:
    used, unused = torch.rand(1, 1, 2, 2, requires_grad=True), torch.rand(1, 1, 2, 2, requires_grad=True)
    with pytest.raises(ValueError, match="do not depend on attention map 1 of 2"):
        grad_cam(used.sum((1, 2, 3)), [used, unused])


def test_the_block_that_is_looked_at() -> None:
    # ALBEF looks at the third of six; never the first where there is another.
    assert {blocks: chosen_block(None, blocks) for blocks in (1, 2, 3, 4, 5, 6, 12)} == {
        1: 0, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2, 12: 5,
    }  # fmt: skip
    assert [chosen_block(block, 4) for block in (0, 3, -1, -4)] == [0, 3, 3, 0]
    for block in (4, -5):
        with pytest.raises(ValueError, match=f"no block {block}; the model fuses in 4"):
            chosen_block(block, 4)
