"""Random numbers that belong to a sample, drawn where the batch is: the same on every machine, in every replay.

The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), in the wrapping arithmetic of int64.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["uniform"]

# SplitMix64's constants as signed numbers: int64 wraps as uint64 does.
_GAMMA, _FIRST, _SECOND = (c - (1 << 64) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _down(state: Tensor, bits: int) -> Tensor:
    """Shift right, with zeros from the left whatever the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _down(state, 30)) * _FIRST
    state = (state ^ _down(state, 27)) * _SECOND
    return state ^ _down(state, 31)


def uniform(numbers: Tensor, salt: int = 0) -> Tensor:
    """One number in [0, 1) for each of (B,) int64, independent for different salts: (B,) float64."""
    state = _mix(numbers + _GAMMA)
    state = _mix(state * 3 + salt + _GAMMA)
    return _down(state, 11).to(torch.float64) * 2.0**-53
