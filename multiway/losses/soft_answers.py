"""Answers that are each more or less right: binary cross entropy over a list of answers.

D. Teney, P. Anderson, X. He, A. van den Hengel: Tips and Tricks for Visual Question Answering, CVPR 2018, arXiv 1708.02711,
section 3.8. With scores l_ia for question i and answer a, and s_ia in [0, 1] how right people make it,

    L = - mean_i sum_a [ s_ia log sigmoid(l_ia) + (1 - s_ia) log(1 - sigmoid(l_ia)) ]

The best constant answers each with its mean s_a over questions; chance is the sum of their entropies H(s_a).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SoftAnswersResult", "soft_answers"]


@dataclass(frozen=True)
class SoftAnswersResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient, summed over answers and averaged over questions.
        score: mean s of the answer with the highest score: VQA accuracy on this batch, detached.
        chance: the loss of the best constant on these questions.
        formula: how it comes about.
    """

    loss: Tensor
    score: Tensor
    chance: float
    formula: str


def soft_answers(logits: Tensor, targets: Tensor) -> SoftAnswersResult:
    """The loss in float32, whatever precision goes in.

    Args:
        logits: (B, A).
        targets: (B, A) in [0, 1].

    Raises:
        ValueError: for other shapes.
    """
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise ValueError(f"logits are {tuple(logits.shape)} and targets {tuple(targets.shape)}; expected (B, A) both")
    with torch.autocast(logits.device.type, enabled=False):
        targets = targets.to(logits.dtype if logits.dtype == torch.float64 else torch.float32)
        loss = F.binary_cross_entropy_with_logits(logits.to(targets.dtype), targets, reduction="none").sum(1).mean()
    mean = targets.double().mean(0)
    chance = float(-(torch.xlogy(mean, mean) + torch.xlogy(1 - mean, 1 - mean)).sum())
    score = targets.gather(1, logits.argmax(1, keepdim=True)).mean()
    return SoftAnswersResult(loss, score.detach(), chance, f"sum of H(s) over {logits.shape[1]} answers")
