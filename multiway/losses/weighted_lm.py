"""Language modelling over answers that count more or less: what a decoder of answers is trained with.

Li et al., ALBEF, 2021, arXiv 2107.07651 (VQA, its released `VQA.py`): a question has several answers, as ten people gave them, and
each is learnt from by the share w of people who gave it. Over the P tokens to be written of all answers to B questions,

    L = - (1 / B) sum_p w_p log p(y_p | before p, question, picture)

The best constant prediction is the weighted frequency of the tokens; it scores their entropy times the weight of a question.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multiway.losses.chance import label_entropy

__all__ = ["WeightedLmResult", "weighted_lm"]


@dataclass(frozen=True)
class WeightedLmResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient, summed over tokens and averaged over questions; zero where nothing is to be written.
        accuracy: weighted share of tokens whose likeliest guess is right, detached.
        chance: the loss of the best constant on these tokens.
        formula: how it comes about.
    """

    loss: Tensor
    accuracy: Tensor
    chance: float
    formula: str


def weighted_lm(logits: Tensor, target: Tensor, weight: Tensor, questions: int) -> WeightedLmResult:
    """The loss in float32, whatever precision goes in.

    Args:
        logits: (P, V), of the position before each token.
        target: (P,) int64 the tokens.
        weight: (P,) of the answer that each belongs to, above 0.
        questions: B.

    Raises:
        ValueError: for other shapes, or without questions.
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1] or weight.shape != target.shape or questions < 1:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, targets {tuple(target.shape)}, weights {tuple(weight.shape)} of {questions} questions; "
            "expected (P, V), (P,), (P,) and at least one question"
        )
    if len(target) == 0:
        zero = logits.float().sum()  # keeps the graph, so that every rank takes the same backward
        return WeightedLmResult(zero, zero.detach(), 0.0, "nothing to write")
    kept = logits.dtype if logits.dtype == torch.float64 else torch.float32
    logp, weight = logits.to(kept).log_softmax(-1), weight.to(kept)
    loss = -(weight * logp.gather(1, target[:, None])[:, 0]).sum() / questions
    right = (weight * (logp.detach().argmax(-1) == target)).sum() / weight.sum()
    counts = torch.zeros(logits.shape[1], dtype=torch.float64, device=target.device)
    counts.index_add_(0, target, weight.double())
    entropy, _ = label_entropy(counts)
    each = float(counts.sum()) / questions
    return WeightedLmResult(loss, right, each * entropy, f"{each:.3g} weighted tokens x their unigram entropy")
