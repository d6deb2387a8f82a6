"""Rows in groups of like length: the groups are the best there are, and what comes out is what whole batches give."""

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch
from caption_batches import info
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.methods.coca import Coca, CocaConfig
from multiway.methods.siglip import Siglip, SiglipConfig
from multiway.nn.buckets import length_groups, put_together
from multiway.nn.text import TextConfig, TextTransformer

CONFIG = TextConfig(vocabulary=50, context=20, width=32, layers=2, heads=2, eos_id=3)


def fewest(lengths: list[int], groups: int) -> int:
    """Tokens computed by the best way of cutting the sorted lengths, by trying all."""
    ordered, best = sorted(lengths), max(lengths) * len(lengths)
    for count in range(1, min(groups, len(ordered))):
        for cuts in combinations(range(1, len(ordered)), count):
            edges = [0, *cuts, len(ordered)]
            parts = [ordered[a:b] for a, b in pairwise(edges)]
            best = min(best, sum(len(part) * part[-1] for part in parts))
    return best


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=9), groups=st.integers(1, 5))
def test_as_few_tokens_as_can_be_and_every_row_once(lengths: list[int], groups: int) -> None:
    found = length_groups(torch.tensor(lengths), groups)
    assert len(found) <= groups
    assert sorted(row for rows, _ in found for row in rows.tolist()) == list(range(len(lengths)))
    assert all(max(lengths[row] for row in rows.tolist()) == longest for rows, longest in found)
    assert sum(len(rows) * longest for rows, longest in found) == fewest(lengths, groups)
    values = torch.randn(len(lengths), 3)
    assert torch.equal(put_together([values[rows] for rows, _ in found], found), values)


def batch(rows: int = 12, longest: int = 17) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, longest + 1, (rows,), generator=generator)
    lengths[0] = longest
    ids = torch.randint(4, 50, (rows, longest + 2), generator=generator)  # as rows of a batch with a longer one
    ids[torch.arange(rows), lengths - 1] = 3
    mask = torch.arange(longest + 2)[None] < lengths[:, None]
    return ids.masked_fill(~mask, 0), mask


@pytest.mark.parametrize("pool", ["eos", "last", "class", "mean"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tokens", [True, False])
def test_values_and_gradients_are_those_of_the_padded_batch(pool: str, causal: bool, tokens: bool) -> None:
    ids, mask = batch()
    torch.manual_seed(0)
    plain = TextTransformer(replace(CONFIG, pool=pool, causal=causal)).double()
    grouped = TextTransformer(replace(CONFIG, pool=pool, causal=causal, buckets=4)).double()
    grouped.load_state_dict(plain.state_dict())
    for tower in (plain, grouped):
        found = tower(ids, mask, tokens=tokens)
        weights = torch.randn(found.pooled.shape, generator=torch.Generator().manual_seed(2)).double()
        loss = (found.pooled * weights).sum()
        if tokens:
            loss = loss + found.tokens[mask].square().sum()
        loss.backward()
    one, other = plain(ids, mask, tokens=tokens), grouped(ids, mask, tokens=tokens)
    torch.testing.assert_close(other.pooled, one.pooled, rtol=0, atol=1e-12)
    assert other.tokens.shape == one.tokens.shape
    if tokens:
        torch.testing.assert_close(other.tokens[mask], one.tokens[mask], rtol=0, atol=1e-12)
    for (name, mine), theirs in zip(grouped.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-10, msg=name)


def test_in_single_precision_within_a_millionth() -> None:
    ids, mask = batch()
    torch.manual_seed(0)
    plain, grouped = TextTransformer(CONFIG), TextTransformer(replace(CONFIG, buckets=3))
    grouped.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(grouped(ids, mask).pooled, plain(ids, mask).pooled, rtol=1e-6, atol=1e-6)


def test_what_needs_the_whole_batch_reads_it_whole() -> None:
    """Without a mask nothing is known of lengths; with a memory and while recording rows stay as they are."""
    ids, mask = batch()
    torch.manual_seed(0)
    tower = TextTransformer(replace(CONFIG, buckets=3, cross_width=8)).eval()
    record: dict[str, torch.Tensor] = {}
    tower(ids, mask, record=record)
    assert record["embedded"].shape[:2] == ids.shape
    memory = torch.randn(len(ids), 5, 8)
    assert tower(ids, mask, memory).tokens.shape[:2] == ids.shape and tower(ids).tokens.shape[:2] == ids.shape


def test_methods_that_would_ignore_them_refuse_them() -> None:
    siglip, coca = SiglipConfig(), CocaConfig()
    for build, config in ((Siglip, siglip), (Coca, coca)):
        with pytest.raises(ValueError, match=r"text\.buckets is 3"):
            build(replace(config, text=replace(config.text, buckets=3)).resolve(info()))
