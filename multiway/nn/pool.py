"""Many tokens to one vector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from multiway.nn.attention import Attention, Visibility

__all__ = ["AttentionPool", "Tower", "eos_positions", "last_positions", "marked_positions", "masked_mean", "take"]


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


class AttentionPool(nn.Module):
    """Learned queries that attend to the tokens (CoCa, Yu et al., 2022, arXiv:2205.01917, section 3.2).

    Args:
        width: W of the queries and of the result.
        heads: of the attention.
        queries: number of learned queries.
        memory_width: width of the tokens; W by default.
    """

    def __init__(
        self, width: int, heads: int, *, queries: int = 1, memory_width: int | None = None, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        memory_width = memory_width or width
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.query_norm = nn.LayerNorm(width, epsilon)
        self.memory_norm = nn.LayerNorm(memory_width, epsilon)
        self.attention = Attention(width, heads, memory_width=memory_width)
        self.norm = nn.LayerNorm(width, epsilon)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, memory_width), mask (B, N) -> (B, queries, W)."""
        queries = self.query_norm(self.queries).expand(tokens.shape[0], -1, -1)
        visibility = Visibility.of(mask, tokens.shape[1], tokens.device)
        return self.norm(self.attention(queries, self.memory_norm(tokens), visibility))
