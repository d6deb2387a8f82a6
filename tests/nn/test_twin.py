"""The momentum twin against its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from multiway.nn.twin import copy_weights, follow, gap, twin_of


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_a_twin_is_equal_and_gets_no_gradient() -> None:
    part = student()
    twin = twin_of(part)
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), part.parameters(), strict=True))
    assert not any(p.requires_grad for p in twin.parameters()) and all(p.requires_grad for p in part.parameters())
    with torch.no_grad():
        part[0].weight.add_(1.0)
    assert not torch.equal(twin[0].weight, part[0].weight)


@given(momentum=st.floats(0, 1), steps=st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_behind_a_frozen_student_the_gap_is_m_to_the_t(momentum: float, steps: int) -> None:
    part = student().double()
    twin = twin_of(part)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = gap([twin], [part])
    for _ in range(steps):
        follow([twin], [part], momentum)
    torch.testing.assert_close(gap([twin], [part]), before * momentum**steps, rtol=1e-7, atol=1e-12)


def test_follows_a_moving_student_as_the_definition_says() -> None:
    part = student()
    twin = twin_of(part)
    slow = [p.clone() for p in twin.parameters()]
    for step in range(5):
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.add_(0.1 * (step + 1))
        part[1].running_mean.fill_(step)
        follow([twin], [part], 0.9)
        slow = [0.9 * m + 0.1 * p for m, p in zip(slow, part.parameters(), strict=True)]
    for got, want in zip(twin.parameters(), slow, strict=True):
        torch.testing.assert_close(got, want)
    assert torch.equal(twin[1].running_mean, part[1].running_mean)  # buffers are copied, not averaged


def test_copies_and_refuses() -> None:
    part = student()
    twin = twin_of(part)
    with torch.no_grad():
        part[0].weight.add_(1.0)
    copy_weights([twin], [part])
    assert float(gap([twin], [part])) == 0.0
    with pytest.raises(ValueError, match=r"1\.5"):
        follow([twin], [part], 1.5)
