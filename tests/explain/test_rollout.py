"""Rollout: identities, sums, order, and a twin that follows every path."""

from itertools import product

import pytest
import torch

from multiway.explain.rollout import rollout


def attention(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double().softmax(-1)


def test_of_identity_attention_it_is_the_identity() -> None:
    eye = torch.eye(5).expand(2, 3, 5, 5)
    assert torch.equal(rollout([eye] * 4), torch.eye(5).expand(2, 5, 5))


def test_the_sum_over_all_paths() -> None:
    """Token i of the last block came from j by every chain of tokens between: the paper's section 3, path by path."""
    blocks = [attention(2, 4, 4, seed=seed) for seed in range(3)]
    steps = [block.mean(0) / 2 + torch.eye(4) / 2 for block in blocks]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for i, b, c, j in product(range(4), repeat=4):
        expected[i, j] += steps[2][i, b] * steps[1][b, c] * steps[0][c, j]
    torch.testing.assert_close(rollout(blocks), expected)


def test_rows_sum_to_one_and_order_matters() -> None:
    blocks = [attention(2, 3, 6, 6, seed=seed) for seed in range(4)]
    found = rollout(blocks)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 6, dtype=torch.float64))
    assert not torch.allclose(found, rollout(blocks[::-1]))
    torch.testing.assert_close(rollout(blocks, residual=1.0), torch.eye(6, dtype=torch.float64).expand(2, 6, 6))


def test_a_last_block_of_the_first_token_alone() -> None:
    blocks = [attention(2, 3, 6, 6, seed=seed) for seed in range(3)]
    first = rollout([*blocks[:2], blocks[2][:, :, :1]])
    torch.testing.assert_close(first, rollout(blocks)[:, :1])


@pytest.mark.parametrize(
    "blocks", [[], [attention(2, 1, 6), attention(2, 6, 6)], [attention(2, 5, 5), attention(2, 6, 6)]]
)
def test_what_cannot_be_multiplied(blocks: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="expected"):
        rollout(blocks)
