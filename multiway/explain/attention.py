"""Where the class token looks: its attention over the patches, head by head.

Caron et al., DINO, 2021, arXiv 2104.14294, figure 1: the heads of the last block mark different things, and, without any label
having been seen, things rather than backgrounds. Figure 4 there keeps the patches that hold 60 % of a head's attention.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["grid_of", "keep_mass", "over_patches"]


def grid_of(tokens: int) -> tuple[int, int]:
    """Side of a square grid of patches, and the number of tokens before it (class token, registers).

    Raises:
        ValueError: if more tokens stand before the patches than the grid has on a side: there is then no telling.
    """
    side = math.isqrt(tokens)
    before = tokens - side * side
    if side < 1 or before > side:
        raise ValueError(f"{tokens} tokens are no square grid of patches with a few tokens before it; maps need a grid")
    return side, before


def over_patches(attention: Tensor) -> Tensor:
    """Attention of the picture's own token over the patches; of a picture without a class token the mean over all queries.

    Args:
        attention: (..., Q, N) of one block; rows sum to 1.

    Returns:
        (..., side, side); each sums to at most 1, the rest being on the class token itself.

    Raises:
        ValueError: from `grid_of`.
    """
    side, before = grid_of(attention.shape[-1])
    row = attention[..., 0, :] if before else attention.mean(-2)
    return row[..., before:].unflatten(-1, (side, side))


def keep_mass(maps: Tensor, share: float = 0.6) -> Tensor:
    """The fewest patches of each map that hold a share of its sum, as DINO's figures show them.

    Args:
        maps: (..., rows, columns), not negative.
        share: in (0, 1].

    Returns:
        (..., rows, columns) bool. All of a map of zeros.

    Raises:
        ValueError: for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected more than 0 and at most 1")
    values, order = maps.flatten(-2).double().sort(dim=-1)
    below = values.cumsum(-1)
    # Left out are the smallest, as long as what is left out is at most 1 - share of all.
    kept = below > (1 - share) * below[..., -1:] * (1 + 1e-12)
    kept |= below[..., -1:] == 0
    return torch.zeros_like(kept).scatter(-1, order, kept).unflatten(-1, maps.shape[-2:])
