"""Cross entropy over classes, with label smoothing or soft targets, and what a constant prediction would score.

With targets q_i over K classes, L = - mean_i sum_k q_ik log softmax(l_i)_k. Label smoothing e (C. Szegedy et al., Rethinking
the Inception Architecture, 2016, arXiv 1512.00567, section 7) is q_i = (1 - e) onehot(y_i) + e / K. The best constant
prediction is the mean of the targets; chance is its entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.chance import label_entropy, uniform

__all__ = ["ClassificationResult", "classification"]


@dataclass(frozen=True)
class ClassificationResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient, the mean over rows that have a label; zero where none has.
        accuracy: share of these rows whose greatest logit is at the label (soft: at the greatest target), detached.
        rows: () int64 how many rows have a label.
        chance: loss of the best constant prediction.
        formula: how `chance` comes about: `ln 10`.
    """

    loss: Tensor
    accuracy: Tensor
    rows: Tensor
    chance: float
    formula: str


def classification(
    logits: Tensor,
    target: Tensor,
    smoothing: float = 0.0,
    frequencies: Tensor | Sequence[float] | None = None,
    unknown: int = -1,
) -> ClassificationResult:
    """Cross entropy in float32, whatever precision goes in or autocast is active.

    Args:
        logits: (B, K).
        target: (B,) int64 classes, or (B, K) probabilities.
        smoothing: e in [0, 1].
        frequencies: (K,) how often each class occurs in the data, for the chance value; None takes all as equal.
        unknown: class number of rows without a label, which count for nothing.

    Raises:
        ValueError: for shapes or labels that do not fit.
    """
    if logits.ndim != 2 or target.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(
            f"logits are {tuple(logits.shape)} and target {tuple(target.shape)}; expected (B, K) with (B,) classes or "
            "(B, K) probabilities; select or flatten positions first"
        )
    classes = logits.shape[1]
    chance = uniform(classes) if frequencies is None else label_entropy(frequencies, smoothing)
    if frequencies is not None and len(frequencies) != classes:
        raise ValueError(f"{len(frequencies)} class frequencies for {classes} classes; expected one each")
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if target.ndim == 2:
            loss = F.cross_entropy(logits, target.to(logits.dtype), label_smoothing=smoothing)
            hits, known = logits.argmax(1) == target.argmax(1), torch.ones_like(logits[:, 0], dtype=torch.bool)
        else:
            known = target != unknown
            _check_labels(target, known, classes, unknown)
            # A sum over what may be nothing, so that a batch without labels is 0 and not 0 / 0.
            total = F.cross_entropy(logits, target, ignore_index=unknown, label_smoothing=smoothing, reduction="sum")
            loss, hits = total / known.sum().clamp(min=1), (logits.argmax(1) == target) & known
    rows = known.sum()
    return ClassificationResult(loss, hits.to(logits.dtype).sum() / rows.clamp(min=1), rows, *chance)


def _check_labels(target: Tensor, known: Tensor, classes: int, unknown: int) -> None:
    """On a CPU, where looking is free, name a label that no class has; a GPU's own assertion names nothing."""
    if target.is_floating_point():
        raise ValueError(f"target is {target.dtype}; expected int64 classes, or probabilities of shape (B, {classes})")
    if target.device.type == "cpu" and bool((known & ((target < 0) | (target >= classes))).any()):
        wrong = target[known & ((target < 0) | (target >= classes))][0]
        raise ValueError(
            f"label {int(wrong)} does not name one of {classes} classes; expected 0 to {classes - 1}, or {unknown}"
        )
