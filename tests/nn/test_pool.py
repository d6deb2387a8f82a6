"""Poolers, row by row."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from multiway.nn.pool import eos_positions, last_positions, masked_mean, take


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4))
def test_masked_mean_and_last_position_equal_a_loop(rows):
    mask, tokens = torch.tensor(rows), torch.randn(len(rows), 4, 3)
    mean, last = masked_mean(tokens, mask), last_positions(mask)
    for row, real in enumerate(rows):
        seen = [place for place in range(4) if real[place]]
        expected = tokens[row, seen].mean(0) if seen else torch.zeros(3)
        torch.testing.assert_close(mean[row], expected)
        assert int(last[row]) == (seen[-1] if seen else 0)


def test_mean_without_a_mask_counts_all():
    tokens = torch.randn(2, 4, 3)
    torch.testing.assert_close(masked_mean(tokens), masked_mean(tokens, torch.ones(2, 4, dtype=torch.bool)))


def test_eos_by_id_and_by_greatest_id():
    ids = torch.tensor([[5, 9, 7, 0], [5, 7, 7, 9], [1, 1, 1, 1]])
    assert eos_positions(ids, 7).tolist() == [2, 1, 0]  # the first; 0 where there is none
    assert eos_positions(ids, None).tolist() == [1, 3, 0]


def test_take():
    tokens = torch.arange(12.0).view(2, 3, 2)
    assert take(tokens, torch.tensor([2, 0])).tolist() == [[4.0, 5.0], [6.0, 7.0]]
