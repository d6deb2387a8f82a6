"""Regions of a picture, some of which are meant: binary cross entropy over each example's own candidates.

Yu et al., MAttNet, 2018, arXiv 1801.08186, and Chen et al., UNITER, 2020, arXiv 1909.11740, choose among regions that a detector
proposes; one that overlaps what is meant by half or more is right. With scores l_ij for candidate j of example i, s_ij in {0, 1}
and R_i candidates,

    L = - mean_i 1/R_i sum_j [ s_ij log sigmoid(l_ij) + (1 - s_ij) log(1 - sigmoid(l_ij)) ]

Every example weighs the same, however many candidates it has, so that micro-batches average to the whole batch. The best
constant is the mean share of right candidates, p = mean_i 1/R_i sum_j s_ij; chance is its entropy H(p).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["RightRegionsResult", "right_regions"]


@dataclass(frozen=True)
class RightRegionsResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient, averaged over each example's candidates, then over examples that have any.
        score: share of these examples whose candidate with the highest score is right, detached.
        chance: the loss of the best constant on these examples.
        formula: how it comes about.
    """

    loss: Tensor
    score: Tensor
    chance: float
    formula: str


def right_regions(logits: Tensor, targets: Tensor, mask: Tensor) -> RightRegionsResult:
    """The loss in float32, whatever precision goes in.

    Args:
        logits: (B, K).
        targets: (B, K), 1 at candidates that are right.
        mask: (B, K) bool, True at candidates that are there; an example without any counts for nothing.

    Raises:
        ValueError: for other shapes, or if no example has a candidate.
    """
    if logits.ndim != 2 or not logits.shape == targets.shape == mask.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, targets {tuple(targets.shape)} and mask {tuple(mask.shape)}; expected (B, K) all"
        )
    if not mask.any():
        raise ValueError(f"none of {len(mask)} examples has a region to choose; give them candidates")
    with torch.autocast(logits.device.type, enabled=False):
        targets = targets.to(logits.dtype if logits.dtype == torch.float64 else torch.float32)
        logits = logits.to(targets.dtype).masked_fill(~mask, 0.0)
        real = mask.to(targets.dtype)
        counts = real.sum(1).clamp(min=1)
        examples = mask.any(1).sum()
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * real
        loss = (each.sum(1) / counts).sum() / examples
    share = float((((targets * real).sum(1) / counts).sum() / examples).double())
    p = torch.tensor([share, 1.0 - share], dtype=torch.float64)
    best = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).argmax(1, keepdim=True)
    score = (targets * real).gather(1, best).sum() / examples
    return RightRegionsResult(loss, score.detach(), float(-torch.xlogy(p, p).sum()), "H(share of right regions)")
