"""A momentum twin: a copy of a part of the model that follows it by an exponential moving average.

He et al., Momentum Contrast, 2020, arXiv 1911.05722, equation 2; Li et al., ALBEF, 2021, arXiv 2107.07651, section 3.4.
After an optimiser step, with theta the student's parameters,

    theta_m <- m theta_m + (1 - m) theta

Papers whose code updates the twin *before* its forward pass compute the same sequence: what is moved after step t is what
step t + 1 sees.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from multiway.nn.attention import Attention
from multiway.nn.block import Residual
from multiway.nn.sharded import locals_of, of_whole

__all__ = ["copy_weights", "follow", "gap", "twin_of", "without_noise"]

M = TypeVar("M", bound=nn.Module)


def twin_of(part: M) -> M:
    """A copy of a part that no gradient reaches; its parameters are in the model's state, not in the optimiser's."""
    return copy.deepcopy(part).requires_grad_(False)


def without_noise(part: M) -> M:
    """Switch off dropout and drop path, in training mode too: what a teacher says is not to depend on chance (DINO's code)."""
    for inner in part.modules():
        for name in ("dropout", "drop_path"):  # of attention and of what follows each part
            if isinstance(inner, Attention | Residual) and hasattr(inner, name):
                setattr(inner, name, 0.0)
        if isinstance(inner, nn.Dropout):
            inner.p = 0.0
    return part


@torch.no_grad()
def follow(twins: Iterable[nn.Module], students: Iterable[nn.Module], momentum: float) -> None:
    """Move each twin towards its student; buffers (running statistics) are copied.

    Where ranks hold parts of the parameters each moves its own: a twin and its student are cut alike.

    Args:
        twins, students: in the same order.
        momentum: m in [0, 1]; 1 leaves the twin where it is, 0 copies.

    Raises:
        ValueError: if m is out of range, or one of the two is cut into parts and the other is not.
    """
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum is {momentum}; expected a number from 0 to 1")
    own: list[Tensor] = []
    towards: list[Tensor] = []
    for twin, student in zip(twins, students, strict=True):
        own += list(twin.parameters())
        towards += list(student.parameters())
        for kept, live in zip(twin.buffers(), student.buffers(), strict=True):
            kept.copy_(live)
    # One fused pass over all tensors instead of one per tensor.
    torch._foreach_lerp_(*_parts(own, towards), 1.0 - momentum)


def copy_weights(twins: Iterable[nn.Module], students: Iterable[nn.Module]) -> None:
    """Make each twin equal to its student, bit for bit: at the start, and after weights were loaded."""
    for twin, student in zip(twins, students, strict=True):
        twin.load_state_dict(student.state_dict())


@torch.no_grad()
def gap(twins: Iterable[nn.Module], students: Iterable[nn.Module]) -> Tensor:
    """||theta - theta_m|| / ||theta|| over all parameters: how far the twins are behind, as a scalar. Every rank calls it."""
    live: list[Tensor] = [tensor for student in students for tensor in student.parameters()]
    own, towards = _parts([tensor for twin in twins for tensor in twin.parameters()], live)
    # Both in one message between ranks that hold parts.
    found = [torch.stack(torch._foreach_norm(each)) for each in (torch._foreach_sub(towards, own), towards)]
    apart, size = of_whole(torch.stack(found, 1).square(), live).sum(0).sqrt()
    return apart / size.clamp(min=1e-12)


def _parts(twins: list[Tensor], students: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What this rank holds of either, number by number the same."""
    own, towards = locals_of(twins), locals_of(students)
    if unlike := [n for n, (one, other) in enumerate(zip(own, towards, strict=True)) if one.shape != other.shape]:
        raise ValueError(
            f"of parameter {unlike[0]} this rank holds {tuple(own[unlike[0]].shape)} for the twin and "
            f"{tuple(towards[unlike[0]].shape)} for its student; expected the same: both have to be sharded, and by the same blocks"
        )
    return own, towards
