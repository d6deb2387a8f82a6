"""Attention distance against loops over pairs of patches."""

import math

import pytest
import torch

from multiway.explain.distance import attention_distance, patch_distances


def between(first: int, second: int, side: int, patch: float) -> float:
    return patch * math.hypot(first // side - second // side, first % side - second % side)


@pytest.mark.parametrize(("side", "patch"), [(2, 16.0), (5, 4.0)])
def test_even_attention_is_the_mean_of_all_pairs(side: int, patch: float) -> None:
    count = side * side
    pairs = [between(i, j, side, patch) for i in range(count) for j in range(count)]
    even = torch.full((2, 3, count, count), 1 / count)
    expected = torch.full((3,), sum(pairs) / len(pairs))
    torch.testing.assert_close(attention_distance(even, patch), expected)
    assert patch_distances(side, patch).mean().item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-6)


def test_any_attention_by_loops_without_the_class_token() -> None:
    attention = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0)).softmax(-1)
    expected = []
    for head in range(3):
        found = []
        for picture in range(2):
            for i in range(9):
                weights = [attention[picture, head, 1 + i, 1 + j].item() for j in range(9)]
                found.append(sum(w * between(i, j, 3, 8.0) for j, w in enumerate(weights)) / sum(weights))
        expected.append(sum(found) / len(found))
    torch.testing.assert_close(attention_distance(attention, 8.0), torch.tensor(expected))


def test_looking_at_oneself_is_no_distance_and_the_class_token_hides_none() -> None:
    own = torch.eye(9)[None, None]
    assert attention_distance(own, 8.0).item() == 0
    shifted = torch.zeros(1, 1, 10, 10)
    shifted[..., 0] = 0.9  # most rests on the class token
    for i in range(9):
        shifted[0, 0, 1 + i, 1 + (i + 3) % 9] = 0.1
    rows = [between(i, (i + 3) % 9, 3, 8.0) for i in range(9)]
    assert attention_distance(shifted, 8.0).item() == pytest.approx(sum(rows) / 9, rel=1e-5)
    with pytest.raises(ValueError, match="every token over every token"):
        attention_distance(shifted[:, :, :1], 8.0)
