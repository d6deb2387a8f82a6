"""Language modelling (LM): each word of a caption, from the words before it and the picture.

Radford et al., Improving Language Understanding by Generative Pre-Training, 2018, equation 1; of captions: Li et al., BLIP,
2022, arXiv 2201.12086, section 3.2, with label smoothing e = 0.1. Over the P tokens of the batch that are to be written,
with V ids in the vocabulary,

    L = mean_p [ - sum_w q_p(w) log p(w | before p, picture) ],    q_p = (1 - e) [w = y_p] + e / V

The best constant prediction is the smoothed frequency of the tokens themselves and scores its entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.chance import label_entropy

__all__ = ["LmResult", "lm"]


@dataclass(frozen=True)
class LmResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient; zero where nothing is to be written.
        hard: cross entropy without smoothing, detached: nats per token, whose exponential is the perplexity.
        accuracy: share of tokens whose likeliest guess is right, detached.
        chance: entropy of this batch's tokens, smoothed as the targets are.
        formula: how `chance` comes about.
        count: P, how many tokens are written.
    """

    loss: Tensor
    hard: Tensor
    accuracy: Tensor
    chance: float
    formula: str
    count: int

    def over(self, name: str) -> dict[str, Tensor | int]:
        """The count of the terms and reports that are called so, for `Losses.counts`."""
        return {name: self.count, f"{name}_accuracy": self.count}


def lm(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> LmResult:
    """Cross entropy over the tokens that are to be written alone, in float32.

    Args:
        logits: (P, V), of the position before each token.
        target: (P,) int64 the tokens.
        smoothing: e in [0, 1).

    Raises:
        ValueError: if shapes or smoothing do not fit.
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1]:
        raise ValueError(f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}; expected (P, V) and (P,)")
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"label smoothing is {smoothing}; expected a number from 0 to below 1")
    if len(target) == 0:
        zero = logits.float().sum()  # keeps the graph, so that every rank takes the same backward
        return LmResult(zero, zero.detach(), zero.detach(), 0.0, "nothing to write", 0)
    logp = logits.float().log_softmax(-1)
    hard = F.nll_loss(logp, target)
    loss = hard
    if smoothing:
        loss = (1.0 - smoothing) * hard - smoothing * logp.mean()
    counts = torch.bincount(target, minlength=logits.shape[1])
    chance, _ = label_entropy(counts, smoothing)
    smoothed = f", smoothed by {smoothing:g}" if smoothing else ""
    right = (logp.detach().argmax(-1) == target).float().mean()
    formula = f"unigram entropy over {int((counts > 0).sum())} tokens in use{smoothed}"
    return LmResult(loss, hard.detach(), right, chance, formula, len(target))
