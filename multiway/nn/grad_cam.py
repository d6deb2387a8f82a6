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

__all__ = ["grad_cam"]


def grad_cam(scores: Tensor, attention: Sequence[Tensor]) -> list[Tensor]:
    """Attention by how much more of it would raise the score of its row.

    Args:
        scores: (B,), of which each depends on its own row alone.
        attention: maps that they were computed from, each (B, heads, L, N), part of the graph.

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
        found.append((own.detach().float() * gradient.float().clamp(min=0)).mean(1))
    return found
