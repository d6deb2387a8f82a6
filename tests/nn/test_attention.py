"""Both kernels against each other, and against a twin that loops over queries."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiway.nn.attention import ALL_VISIBLE, Attention, Visibility, attend, choose_kernel


def slow(query, key, value, allowed=None, bias=None):
    """One query at a time, in double precision."""
    out = torch.zeros(query.shape, dtype=torch.float64)
    for b, h, n in torch.cartesian_prod(*(torch.arange(size) for size in query.shape[:3])).tolist():
        seen = [m for m in range(key.shape[2]) if allowed is None or allowed[b, h, n, m]]
        if not seen:
            continue
        score = [float(query[b, h, n].double() @ key[b, h, m].double()) / math.sqrt(query.shape[-1]) for m in seen]
        if bias is not None:
            score = [s + float(bias[b, h, n, m]) for s, m in zip(score, seen, strict=True)]
        share = [math.exp(s - max(score)) for s in score]
        for s, m in zip(share, seen, strict=True):
            out[b, h, n] += s / sum(share) * value[b, h, m].double()
    return out


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 6),
    causal=st.booleans(),
    masked=st.booleans(),
    biased=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
def test_both_kernels_equal_the_slow_twin(length, causal, masked, biased, seed):
    torch.manual_seed(seed)
    query, key, value = torch.randn(3, 2, 2, length, 4)
    mask = torch.rand(2, length) < 0.6 if masked else None  # rows without any key included
    bias = torch.randn(1, 2, length, length) if biased else None
    visibility = Visibility.of(mask, length, query.device, causal=causal)
    shape = (2, 2, length, length)
    allowed = None if visibility.allowed is None else visibility.allowed.expand(shape)
    expected = slow(query, key, value, allowed, None if bias is None else bias.expand(shape))
    for kernel in ("written", "fused"):
        got, _ = attend(query, key, value, visibility, bias=bias, kernel=kernel)
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


def test_gradients_of_the_kernels_agree_and_are_finite_where_no_key_is_visible():
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, False, True, False], [False] * 5])
    visibility = Visibility.of(mask, 5, torch.device("cpu"), causal=True)
    gradients = []
    for kernel in ("written", "fused"):
        torch.manual_seed(1)
        inputs = [torch.randn(2, 2, 5, 8, requires_grad=True) for _ in range(3)]
        mixed, _ = attend(*inputs, visibility, kernel=kernel)
        (mixed * torch.arange(8.0)).sum().backward()
        gradients.append([each.grad for each in inputs])
    for written, fused in zip(*gradients, strict=True):
        torch.testing.assert_close(written, fused, atol=1e-5, rtol=1e-5)
        assert written[1].abs().max() == 0


@pytest.mark.parametrize("kernel", ["written", "fused"])
def test_bf16_is_within_its_rounding_of_fp32(kernel):
    torch.manual_seed(0)
    inputs = torch.randn(3, 4, 2, 65, 64).bfloat16()
    exact, _ = attend(*inputs.double(), kernel="written")
    got, _ = attend(*inputs, kernel=kernel)
    assert got.dtype == torch.bfloat16
    # bf16 has 8 bits: scores of size 3 are off by up to 3/256, so weights by about 1 %.
    assert (got.double() - exact).abs().max() < 0.02 * exact.abs().max()


def test_map_is_a_distribution_over_visible_keys():
    mask = torch.tensor([[True, True, True, False]])
    visibility = Visibility.of(mask, 4, torch.device("cpu"))
    _, weights = attend(*torch.randn(3, 1, 2, 4, 8), visibility, kernel="written")
    assert weights is not None
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 4))
    assert weights[..., 3].abs().max() == 0


def test_a_map_taken_apart_changes_nothing_and_has_the_gradient_of_its_part():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 4, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 2] = False
    visible = Visibility.of(mask, 7, mask.device)
    mixed, whole = attend(query, key, value, visible)
    apart, part = attend(query, key, value, visible, split=3)
    assert torch.equal(mixed, apart) and torch.equal(part, whole[:, :, :3, 3:])
    (of_whole,) = torch.autograd.grad(mixed.square().sum(), whole)
    (of_part,) = torch.autograd.grad(apart.square().sum(), part)
    torch.testing.assert_close(of_part, of_whole[:, :, :3, 3:])


def test_recorded_map_is_part_of_the_graph():
    attention, record = Attention(8, 2), {}
    out = attention(torch.randn(1, 3, 8), record=record, path="here")
    (gradient,) = torch.autograd.grad(out.sum(), record["here"])
    assert gradient.shape == (1, 2, 3, 3) and gradient.abs().sum() > 0


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias_shape", [None, (2, 6, 6), (3, 1, 6, 6)])
def test_one_position_equals_that_position_of_all(causal, bias_shape):
    torch.manual_seed(0)
    attention, tokens, at = Attention(8, 2), torch.randn(3, 6, 8), torch.tensor([5, 0, 2])
    mask = torch.arange(6) < torch.tensor([6, 4, 3])[:, None]
    bias = None if bias_shape is None else torch.randn(bias_shape)
    for given_mask in (mask, None):
        visibility = Visibility.of(given_mask, 6, tokens.device, causal=causal)
        every = attention(tokens, None, visibility, bias=bias)
        one = attention(tokens, None, visibility, bias=bias, at=at)
        torch.testing.assert_close(one[:, 0], every[torch.arange(3), at], atol=1e-6, rtol=1e-5)


def test_attention_over_a_memory_ignores_what_its_mask_hides():
    torch.manual_seed(0)
    attention = Attention(8, 2, memory_width=12, output_width=5)
    tokens, memory = torch.randn(2, 3, 8), torch.randn(2, 4, 12)
    visibility = Visibility.of(torch.tensor([[True] * 4, [True, True, False, False]]), 4, tokens.device)
    before = attention(tokens, memory, visibility)
    memory[1, 2:] = 100
    assert before.shape == (2, 3, 5)
    torch.testing.assert_close(attention(tokens, memory, visibility), before, atol=0, rtol=0)
    memory[1, 1] = 100
    assert (attention(tokens, memory, visibility)[1] - before[1]).abs().max() > 0.01


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    attention, tokens = Attention(8, 2, dropout=0.5), torch.randn(1, 5, 8)
    assert not torch.equal(attention(tokens), attention(tokens))
    attention.eval()
    assert torch.equal(attention(tokens), attention(tokens))


def test_the_choice_of_kernel():
    fp32, bf16 = torch.empty(1), torch.empty(1, dtype=torch.bfloat16)
    assert choose_kernel(fp32, 16, backward=False) == "fused"
    assert choose_kernel(fp32, 16, backward=True) == "written"
    assert choose_kernel(fp32, 1024, backward=True) == "fused"
    assert choose_kernel(bf16, 65, backward=True) == "written"
    assert choose_kernel(bf16, 4096, backward=True) == "fused"
    assert choose_kernel(torch.empty(1, device="meta"), 16, backward=True) == "fused"


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="width 10 is not divisible by 4 heads"):
        Attention(10, 4)
    with pytest.raises(ValueError, match=r"pass memory="):
        Attention(8, 2, memory_width=8)(torch.randn(1, 2, 8))
    with pytest.raises(ValueError, match=r"shape \(2, 5\) for 4 tokens; expected \(B, 4\)"):
        Visibility.of(torch.ones(2, 5), 4, torch.device("cpu"))
    assert ALL_VISIBLE.at(torch.tensor([0])).allowed is None
