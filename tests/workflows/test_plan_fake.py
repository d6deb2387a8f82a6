"""Hollow tensors: shapes as they would be, values where they are known, and what is assumed where they are not."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from multiway.workflows.plan_fake import LIMIT, fake_values, hollow, real, shapes_only, uninitialised
from multiway.workflows.plan_gpu import like_a_gpu

STEPS = {
    "where": lambda x: x[x > x.float().mean()],
    "places": lambda x: (x > 1).nonzero().flatten(),
    "unique": lambda x: torch.unique(x, return_inverse=True)[1],
    "sorted": lambda x: x.argsort(descending=True, stable=True),
    "sums": lambda x: x.cumsum(0),
    "written": lambda x: x.clone().index_fill_(0, torch.arange(len(x))[::2], 7),
    "longest": lambda x: torch.arange(int(x.max()) + 1) if len(x) else x,
    "counted": lambda x: torch.bincount(x.clamp(min=0)),
    "twice": lambda x: torch.cat([x, x.flip(0)]),
    "masked": lambda x: x.masked_select(x.remainder(2) == 0),
    "view": lambda x: x.reshape(1, -1).expand(2, -1).flatten(),
}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.lists(st.sampled_from(sorted(STEPS)), max_size=5))
def test_what_is_known_is_what_would_be(numbers: list[int], names: list[str]) -> None:
    """Any sequence of operations on numbers has the same values beside a hollow tensor as without."""
    truth = torch.tensor(numbers)
    with shapes_only() as known:
        found = torch.tensor(numbers)
        for name in names:
            found = STEPS[name](found)
        assert found.tolist() == found.known.tolist()  # the one reads them one by one
        said = found.tolist()
    for name in names:
        truth = STEPS[name](truth)
    assert said == truth.tolist() and found.shape == truth.shape
    assert not known.assumed


def test_weights_are_not_known_and_what_is_assumed_is_said() -> None:
    with shapes_only() as known:
        layer = nn.Linear(4, 3)
        hollow(layer, known)
        scores = layer(torch.ones(5, 4))
        assert scores[scores > 0].shape == (15,)
        assert float(scores.detach().sum()) == 1.0 and bool((scores.detach() > 0).any())
        drawn = torch.multinomial(scores.detach().softmax(1), 1)
        assert drawn.shape == (5, 1) and all(0 <= each < 3 for each in drawn.flatten().tolist())
    assert {text.partition(" ")[0] for text in known.assumed} == {"masks", "numbers", "draws"}


def test_writing_what_is_not_known_is_not_passed_over() -> None:
    """Also through a view: the values before would be wrong."""
    with shapes_only() as known:
        layer = nn.Linear(2, 2)
        hollow(layer, known)
        whole = torch.zeros(4)
        assert whole.sum().item() == 0.0 and not known.assumed
        whole[1:3].copy_(layer(torch.ones(2)).detach())
        whole.sum().item()
    assert known.assumed


def test_nothing_is_allocated() -> None:
    """A layer of 4 TB, forward and backward."""
    with shapes_only() as known, uninitialised():
        layer = nn.Linear(1_000_000, 1_000_000)
        hollow(layer, known)
        layer(torch.empty(8, 1_000_000)).sum().backward()
        assert layer.weight.grad is not None and layer.weight.grad.shape == (1_000_000, 1_000_000)
        twin = copy.deepcopy(layer)
        assert twin.weight is not layer.weight and isinstance(twin.weight, nn.Parameter)


def test_buffers_are_copied_with_their_values() -> None:
    with shapes_only(), uninitialised():
        part = nn.BatchNorm1d(3)
        part.num_batches_tracked.fill_(5)
        assert copy.deepcopy(part).num_batches_tracked.item() == 5


def test_large_tensors_are_not_computed() -> None:
    with shapes_only() as known:
        few, many = torch.arange(LIMIT), torch.arange(LIMIT + 1)
        assert few[-1].item() == LIMIT - 1 and not known.assumed
        many[-1].item()
    assert known.assumed


def test_real_work_within() -> None:
    with shapes_only() as known:
        with real():
            made = torch.arange(3) * 2
        assert type(made) is torch.Tensor and fake_values(known.mode, made).tolist() == [0, 2, 4]


def test_what_cannot_be_known_says_so() -> None:
    with shapes_only() as known:
        layer = nn.Linear(2, 2)
        hollow(layer, known)
        counts = layer(torch.ones(2)).detach().long()
        with pytest.raises(RuntimeError, match="repeat_interleave"):
            torch.arange(2).repeat_interleave(counts)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_as_on_a_gpu(masked: bool) -> None:
    """It never holds the scores: what is kept for the backward pass grows with the tokens, not with their square."""
    kept = []
    with shapes_only() as known, like_a_gpu(known):
        query = torch.empty(2, 4, 4096, 64, requires_grad=True)
        assert query.device.type == "meta" and torch.zeros(3, device=query.device).shape == (3,)
        mask = torch.ones(2, 1, 1, 4096, dtype=torch.bool) if masked else None
        with (
            torch.autocast(query.device.type, torch.bfloat16),
            torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each),
        ):
            mixed = F.scaled_dot_product_attention(query, query, query, mask)
            assert mixed.dtype == torch.bfloat16
        mixed.sum().backward()
        assert query.grad is not None and query.grad.shape == query.shape
    # A mask that is spread over heads and queries is stored once.
    assert max(each.untyped_storage().nbytes() for each in kept) <= query.numel() * 4


def test_precise_under_autocast_as_on_a_gpu() -> None:
    """Norms and softmax in 32 bits, also where blocks are recomputed in the backward pass."""
    seen = []

    def block(x: torch.Tensor) -> torch.Tensor:
        seen.append((F.layer_norm(x, (8,)).dtype, x.softmax(-1).dtype))
        return x * x  # keeps x, for which it is run again

    with shapes_only() as known, like_a_gpu(known):
        x = torch.empty(4, 8, dtype=torch.bfloat16, requires_grad=True)
        with torch.autocast(x.device.type, torch.bfloat16):
            y = torch.utils.checkpoint.checkpoint(block, x * 1, use_reentrant=False)
        (y * y).sum().backward()
    assert seen == [(torch.float32, torch.float32)] * 2
    assert F.layer_norm(torch.ones(4, 8), (8,)).device.type == "cpu"  # and nothing of it stays
