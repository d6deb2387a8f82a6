"""Texts cut in two, and the numbers that say where."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multiway.nn.pick import uniform
from multiway.nn.prefix import split


@given(st.lists(st.tuples(st.integers(2, 9), st.floats(0, 1)), min_size=1, max_size=6))
def test_a_split_loses_nothing(texts: list[tuple[int, float]]) -> None:
    """Prefix, then targets, is the text without its start token; the decoder is fed what stands before each target."""
    sizes = torch.tensor([size for size, _ in texts])
    lengths = torch.tensor([round(share * (size - 2)) for size, share in texts])
    longest = int(sizes.max())
    mask = torch.arange(longest) < sizes[:, None]
    ids = torch.arange(mask.numel()).reshape(mask.shape) + 10
    parts = split(ids, mask, lengths)
    assert parts.prefix.shape[1] == int(lengths.max()) and parts.given.shape[1] == int((sizes - 1 - lengths).max())
    targets = iter(parts.targets.tolist())
    for row, size in enumerate(sizes.tolist()):
        prefix = parts.prefix[row][parts.prefix_mask[row]].tolist()
        rest = [next(targets) for _ in range(int(parts.written[row].sum()))]
        assert prefix + rest == ids[row, 1:size].tolist()
        assert parts.given[row][parts.written[row]].tolist() == ids[row, len(prefix) : size - 1].tolist()
        assert parts.places[row][parts.written[row]].tolist() == list(range(len(prefix), size - 1))


def test_a_text_that_is_all_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix of 3 words leaves nothing to write of a text of 4 tokens"):
        split(
            torch.zeros(2, 5, dtype=torch.int64), torch.tensor([[True] * 5, [True] * 4 + [False]]), torch.tensor([1, 3])
        )


def test_uniform_numbers_are_those_of_splitmix_and_evenly_spread() -> None:
    def mix(state: int) -> int:
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return state ^ (state >> 31)

    gamma = 0x9E3779B97F4A7C15
    for number, salt in ((0, 0), (1, 0), (2**62, 3), (12345, 7)):
        slow = mix((mix((number + gamma) % 2**64) * 3 + salt + gamma) % 2**64)
        assert float(uniform(torch.tensor([number]), salt)) == (slow >> 11) / 2**53
    many = uniform(torch.arange(20_000))
    assert torch.histc(many, 10, 0, 1).sub(2000).abs().max() < 200
    assert float(many.min()) >= 0 and float(many.max()) < 1
    other = uniform(torch.arange(20_000), 1)
    assert float(torch.corrcoef(torch.stack([many, other]))[0, 1].abs()) < 0.03
