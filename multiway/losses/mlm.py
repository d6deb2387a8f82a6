"""Masked language modelling (MLM): the masked words of a text, guessed from the rest and, here, from the picture.

Devlin et al., BERT, 2019, arXiv 1810.04805, section 3.1; with a picture and with momentum distillation: Li et al., ALBEF,
2021, arXiv 2107.07651, equations 4 and 7. Over the P masked positions of the batch, with y the true word and q the
momentum model's softmax,

    L = (1 - alpha) mean_p [ - log p(y) ] + alpha mean_p KL(q || p)

KL(q || p) is cross entropy less the entropy of q, which no gradient sees; as in the published code it is the cross entropy
that is returned, so the target is alpha q + (1 - alpha) y.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.chance import unigram

__all__ = ["MlmResult", "mlm"]


@dataclass(frozen=True)
class MlmResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient; zero where nothing was masked.
        hard: cross entropy against the true words alone, detached; what the chance value is compared with.
        accuracy: share of masked positions whose first guess is right, detached.
        chance: unigram entropy of the true words of this batch.
        formula: how `chance` comes about.
        count: P, how many words are guessed.
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


def mlm(logits: Tensor, target: Tensor, teacher: Tensor | None = None, soft: float = 0.0) -> MlmResult:
    """Cross entropy over masked positions alone, in float32: no vocabulary is scored where nothing is asked.

    Args:
        logits: (P, V).
        target: (P,) int64 the true ids.
        teacher: (P, V) the momentum model's logits for the same masked text.
        soft: alpha in [0, 1], the teacher's share of the target.

    Raises:
        ValueError: if shapes or alpha do not fit.
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1] or (teacher is not None and teacher.shape != logits.shape):
        given = None if teacher is None else tuple(teacher.shape)
        raise ValueError(
            f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}, teacher {given}; expected (P, V), (P,), (P, V)"
        )
    if not 0.0 <= soft <= 1.0 or (soft > 0 and teacher is None):
        raise ValueError(
            f"soft is {soft} with teacher {teacher is not None}; expected a share, and a teacher if above 0"
        )
    if len(target) == 0:
        zero = logits.float().sum()  # keeps the graph, so that every rank takes the same backward
        return MlmResult(zero, zero.detach(), zero.detach(), 0.0, "nothing masked", 0)
    logp = logits.float().log_softmax(-1)
    hard = F.nll_loss(logp, target)
    loss = hard
    if soft and teacher is not None:
        loss = (1.0 - soft) * hard - soft * (teacher.detach().float().softmax(-1) * logp).sum(-1).mean()
    chance = unigram(torch.bincount(target, minlength=logits.shape[1]))
    right = (logp.detach().argmax(-1) == target).float().mean()
    return MlmResult(loss, hard.detach(), right, chance.value, chance.formula, len(target))
