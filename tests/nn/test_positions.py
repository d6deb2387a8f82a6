"""Asked for some positions alone, a transformer gives what it gives at them when asked for all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.nn.attention import Visibility, attend, tokens_at
from multiway.nn.pool import marked_positions
from multiway.nn.transformer import Transformer, TransformerConfig


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_several_positions_a_row_are_those_of_the_whole(norm: str, causal: bool, biased: bool) -> None:
    torch.manual_seed(0)
    blocks = Transformer(
        TransformerConfig(width=32, layers=2, heads=2, norm=norm, causal=causal, cross_width=16)
    ).double()
    tokens, memory = torch.randn(3, 7, 32).double(), torch.randn(3, 5, 16).double()
    mask = torch.arange(7) < torch.tensor([[7], [4], [6]])
    at = torch.tensor([[0, 3, 5], [1, 2, 3], [0, 0, 4]])
    bias = torch.randn(1, 2, 7, 7).double() if biased else None
    whole = blocks(tokens, mask, memory, bias=bias)
    torch.testing.assert_close(blocks(tokens, mask, memory, bias=bias, at=at), tokens_at(whole, at))
    torch.testing.assert_close(blocks(tokens, mask, memory, bias=bias, at=at[:, 1]), tokens_at(whole, at[:, 1]))


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_marked_positions_are_those_of_the_mask_in_its_order(rows: int, length: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    marked = torch.rand(rows, length, generator=generator) < 0.4
    tokens = torch.randn(rows, length, 3, generator=generator)
    at, real = marked_positions(marked)
    assert at.shape == real.shape == (rows, max(1, int(marked.sum(1).max())))
    assert torch.equal(tokens_at(tokens, at)[real], tokens[marked])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_hidden_changes_nothing_to_the_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 5, 8).to(dtype).unbind(0)
    mask = torch.tensor([[True, True, False, True, False], [True, False, False, False, False]])
    visibility = Visibility.of(mask, 5, mask.device)
    hidden = (~mask)[:, None, :, None]
    mixed, weights = attend(query, key, value, visibility)
    for scale in (1.0, 100.0, -100.0):
        shift = (scale * hidden).to(dtype)
        other, again = attend(query, key + shift, value + shift, visibility)
        assert torch.equal(mixed, other) and torch.equal(weights, again)
    assert not weights.masked_select(hidden.transpose(2, 3)).any()


def test_whether_every_query_sees_a_key_is_found_out() -> None:
    def complete(mask: list[list[int]], **how: object) -> bool:
        rows = torch.tensor(mask).bool()
        return Visibility.of(rows, rows.shape[1], rows.device, **how).complete

    assert complete([[1, 0, 1], [0, 0, 1]])
    assert not complete([[1, 0, 1], [0, 0, 0]])
    assert complete([[1, 0, 1]], causal=True)
    assert not complete([[0, 1, 1]], causal=True)  # the first query sees itself alone, and that is padding
    assert complete([[0, 1, 1]], causal=True, past=1)
    assert complete([[0, 0, 1]], causal=True, past=2)
    for how in ({}, {"causal": True}, {"causal": True, "past": 2}):
        assert Visibility.of(None, 3, torch.device("cpu"), **how).complete


def test_a_query_that_sees_nothing_gets_zeros() -> None:
    query, key, value = torch.randn(3, 2, 1, 3, 4).unbind(0)
    mask = torch.tensor([[True, True, True], [False, False, False]])
    mixed, weights = attend(query, key, value, Visibility.of(mask, 3, mask.device))
    assert mixed[0].any() and not mixed[1].any() and not weights[1].any()
