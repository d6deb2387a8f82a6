"""Grad-CAM of attention: which tokens a score was drawn from.

Selvaraju et al., Grad-CAM, 2017, arXiv 1610.02391, weighs the channels of a feature map by the gradient of a score. ALBEF (Li et
al., 2021, arXiv 2107.07651; its released `Grounding.py`) does so with the cross-attention of words over patches: with A the
attention of head h from word l to patch n, and S the log-odds that picture and text are a pair,

    G_ln = mean_h  A_hln max(0, dS / dA_hln)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["chosen_block", "grad_cam"]


def grad_cam(scores: Tensor, attention: Sequence[Tensor], heads: Sequence[int] = ()) -> list[Tensor]:
    """Attention by how much more of it would raise the score of its row.

    Args:
        scores: (B,), of which each depends on its own row alone.
        attention: maps that they were computed from, each (B, heads, L, N), part of the graph.
        heads: that the mean is over; all by default.

    Returns:
        For each map (B, L, N), not negative, without a graph.

    Raises:
        ValueError: if a score does not depend on a map.
    """
    found = []
    for number, (own, gradient) in enumerate(
        zip(attention, torch.autograd.grad(scores.sum(), list(attention), allow_unused=True), strict=True)
    ):
        if gradient is None:
            raise ValueError(
                f"the scores do not depend on attention map {number} of {len(attention)} (counted from 0), so that it explains "
                "nothing; take an earlier block"
            )
        weighed = own.detach().float() * gradient.float().clamp(min=0)
        found.append((weighed[:, list(heads)] if heads else weighed).mean(1))
    return found


def chosen_block(block: int | None, blocks: int) -> int:
    """Number of the block whose attention is looked at, of those in which words meet patches.

    Unless one is named it is the middle one, the earlier of two, but never the first where there is another:
    max((blocks - 1) // 2, 1). Of ALBEF's six that is the third, as in its released code (layer 8 of 12 counted from 0, of
    which the last six fuse); of twelve the sixth. In the first block words ask before they have seen anything of the picture; in
    the last only the token that the score is read from counts any more.

    Args:
        block: counted from 0, or from the last if negative; None for the default.
        blocks: how many there are.

    Raises:
        ValueError: for a block that there is none of.
    """
    if block is None:
        return min(max((blocks - 1) // 2, 1), blocks - 1)
    if not -blocks <= block < blocks:
        raise ValueError(f"there is no block {block}; the model fuses in {blocks}, counted from 0")
    return block % blocks
