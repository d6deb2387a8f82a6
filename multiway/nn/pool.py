"""Many tokens to one vector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Tower", "eos_positions", "last_positions", "marked_positions", "masked_mean", "take"]


class Tower(NamedTuple):
    """What an encoder of one modality returns.

    Attributes:
        pooled: (B, W) one vector per row.
        tokens: (B, N, W) after the final norm; (B, 1, W), the pooled token alone, where all were not asked for.
    """

    pooled: Tensor
    tokens: Tensor


def masked_mean(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over real tokens; a row without any gives zeros.

    Args:
        tokens: (B, N, W).
        mask: (B, N) bool; None when all are real.

    Returns:
        (B, W).
    """
    if mask is None:
        return tokens.mean(1)
    weight = mask.to(tokens.dtype)
    return torch.einsum("bn,bnw->bw", weight, tokens) / weight.sum(1, keepdim=True).clamp(min=1)


def take(tokens: Tensor, positions: Tensor) -> Tensor:
    """tokens[b, positions[b]]: (B, N, W), (B,) -> (B, W)."""
    return tokens[torch.arange(tokens.shape[0], device=tokens.device), positions]


def eos_positions(ids: Tensor, eos_id: int | None) -> Tensor:
    """Where each text ends: the first `eos_id`, or, with None, the greatest id (CLIP's own vocabulary ends with it).

    Args:
        ids: (B, L).

    Returns:
        (B,) int64; 0 in rows that have no `eos_id`.
    """
    return ids.argmax(-1) if eos_id is None else (ids == eos_id).int().argmax(-1)


def last_positions(mask: Tensor) -> Tensor:
    """The last real token of each row: (B, L) bool -> (B,) int64; 0 in rows without any."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(-1)


def marked_positions(marked: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row is marked, for a `Transformer` that is asked for these positions alone.

    Args:
        marked: (B, L) bool.

    Returns:
        (B, P) int64 positions in order, P the greatest number of marks in a row and at least 1, filled up with others; and
        (B, P) bool, True at those that are marked: `tokens_at(x, at)[real]` is `x[marked]`.
    """
    counts = marked.sum(1, keepdim=True)
    most = max(1, int(counts.max()))
    at = marked.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return at, torch.arange(most, device=marked.device) < counts
