"""Chance values: what the best prediction that ignores its input would score.

A loss that stays at its chance value has learned nothing, whatever the number looks like. For cross entropy against
targets whose average is q, the best constant prediction is q itself and scores its entropy H(q); every formula here is
a case of that. Values are in nats, like the losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Chance", "binary", "label_entropy", "sigmoid_pairs", "uniform", "uniform_over_rows", "unigram"]


class Chance(NamedTuple):
    """A chance value and how it comes about.

    Attributes:
        value: in nats.
        formula: for people: `ln 128`.
    """

    value: float
    formula: str


def uniform(candidates: int) -> Chance:
    """ln K: K candidates that a constant cannot tell apart.

    Raises:
        ValueError: if there is no candidate.
    """
    if candidates < 1:
        raise ValueError(f"chance among {candidates} candidates is undefined; expected at least 1")
    return Chance(math.log(candidates), f"ln {candidates}")


def uniform_over_rows(candidates: Tensor) -> Chance:
    """The mean of ln K_i, where row i chooses among a number K_i of candidates of its own.

    Args:
        candidates: (B,) numbers of candidates, each at least 1.
    """
    if candidates.numel() == 0 or int(candidates.min()) < 1:
        raise ValueError("chance over rows needs at least one row, and at least one candidate in each row")
    low, high = int(candidates.min()), int(candidates.max())
    if low == high:
        return uniform(low)
    return Chance(float(candidates.double().log().mean()), f"mean of ln K over rows, K from {low} to {high}")


def binary(positive: float) -> Chance:
    """H(p) of a yes/no question whose answer is yes with probability p: 0.6365 for matching with two negatives (1/3).

    Raises:
        ValueError: if p is no probability.
    """
    if not 0.0 <= positive <= 1.0:
        raise ValueError(f"share of positives is {positive}; expected a number from 0 to 1")
    entropy = -sum(p * math.log(p) for p in (positive, 1.0 - positive) if p > 0)
    return Chance(entropy + 0.0, f"H({_fraction(positive)})")


def label_entropy(weights: Tensor | Sequence[float], smoothing: float = 0.0) -> Chance:
    """Entropy of the labels' distribution, after label smoothing: q = (1 - e) p + e / K.

    Args:
        weights: (K,) frequencies or counts of the classes; they need not sum to one.
        smoothing: e in [0, 1].

    Raises:
        ValueError: if a weight is negative or not finite, all are zero, or the smoothing is out of range.
    """
    weights = torch.as_tensor(weights).detach().double().flatten()
    total = float(weights.sum())
    if not 0.0 < total < math.inf or float(weights.min()) < 0:
        raise ValueError("class weights must be finite, not negative and not all zero; count the labels again")
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"label smoothing is {smoothing}; expected a number from 0 to 1")
    q = (1.0 - smoothing) * weights / total + smoothing / weights.numel()
    entropy = float(torch.special.entr(q).sum())
    smoothed = f", smoothed by {smoothing:g}" if smoothing else ""
    return Chance(entropy, f"entropy of {weights.numel()} class frequencies{smoothed}")


def unigram(counts: Tensor | Sequence[float]) -> Chance:
    """Entropy of the tokens' frequencies: a language model that knows no context scores this.

    Args:
        counts: (V,) how often each token of the vocabulary is a target.
    """
    value, _ = label_entropy(counts)
    used = int((torch.as_tensor(counts) > 0).sum())
    return Chance(value, f"unigram entropy over {used} tokens in use")


def sigmoid_pairs(candidates: float, positives: float) -> Chance:
    """K H(m / K): a row's sum of binary losses over K candidates of which m are positive, at the best constant logit.

    Args:
        candidates: K, per row (their mean, where rows differ).
        positives: m, per row (their mean); 1 without duplicates.
    """
    if not 0 < positives <= candidates:
        raise ValueError(
            f"{positives} positives among {candidates} candidates; expected more than 0 and no more than all"
        )
    value, _ = binary(positives / candidates)
    return Chance(candidates * value, f"{candidates:g} H({positives:g}/{candidates:g})")


def _fraction(value: float) -> str:
    """`1/3` for a share that is one over a small number, decimals otherwise."""
    if value > 0 and abs(1.0 / value - round(1.0 / value)) < 1e-9 and value < 1:
        return f"1/{round(1.0 / value)}"
    return f"{value:.4g}"
