"""Invariant and spreading features: a picture's two views are one class, and no other view belongs to it.

M. Ye et al., Unsupervised Embedding Learning via Invariant and Spreading Instance Feature (InvaSpread), 2019, arXiv
1904.03436, equations 2-5, as the published code computes them: over the 2 N views of a batch, with f on the unit sphere and
P_ij = exp(f_i . f_j / tau) / sum over k != i of exp(f_i . f_k / tau),

    L = mean_i [ - log P_i,i'  -  sum over j not in {i, i'} of log(1 - P_ij) ]        i' the other view of i's picture

The paper writes sums; the code divides by 2 N, and lets no gradient reach what is compared with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from multiway.losses.unit import exact
from multiway.losses.views import gather_views
from multiway.world import GradientMode, World

__all__ = ["SpreadResult", "spread"]

_CERTAIN = -1e-7  # a log-probability above this is taken as this: log(1 - 1) would be infinite


@dataclass(frozen=True)
class SpreadResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient, `invariance` plus the weighted `spreading`.
        invariance, spreading: the two terms, detached.
        accuracy: share of views whose most similar other view shows their picture, detached.
        chance: the loss of features that are all equal.
        formula: how `chance` comes about.
    """

    loss: Tensor
    invariance: Tensor
    spreading: Tensor
    accuracy: Tensor
    chance: float
    formula: str


def spread(
    first: Tensor,
    second: Tensor,
    world: World,
    temperature: float = 0.1,
    weight: float = 1.0,
    image_id: Tensor | None = None,
    gradient: GradientMode = "none",
) -> SpreadResult:
    """The loss over all ranks' views, in float32 or better; holds a matrix of 2 b x 2 N.

    Args:
        first, second: (b, D) two views, not yet normalised; every rank brings the same b.
        world: the ranks.
        temperature: tau.
        weight: of the spreading term; 0 leaves a contrast of views without it.
        image_id: (b,) int64; views of other rows that share one are not compared.
        gradient: what reaches the features compared with; `none` as published.

    Raises:
        ValueError: for shapes or a temperature that do not fit.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; expected more than 0")
    laid = gather_views((first, second), world, gradient, image_id)
    left_out = laid.mask(laid.own.start, laid.own.stop)
    with exact(first):
        logits = (laid.query @ laid.candidates.t() / temperature).masked_fill(left_out, -torch.inf)
        log_p = logits.log_softmax(1)
    positive = log_p.diagonal(laid.first)
    not_negative = left_out.clone()
    not_negative.diagonal(laid.first).fill_(True)
    # -1 stands where nothing is asked, so that no gradient there is infinite.
    log_q = _log_of_rest(log_p.masked_fill(not_negative, -1.0)).masked_fill(not_negative, 0.0)
    invariance, spreading = -positive.mean(), -log_q.sum(1).mean()
    right = (logits.detach().argmax(1) == torch.arange(laid.own.start, laid.own.stop, device=logits.device)).to(logits)
    counted = logits.shape[1] - left_out.sum(1)
    chance, formula = _chance(counted, weight)
    return SpreadResult(
        invariance + weight * spreading, invariance.detach(), spreading.detach(), right.mean(), chance, formula
    )


def _log_of_rest(log_p: Tensor) -> Tensor:
    """log(1 - p) of log p, each half of the range by the form that is exact there."""
    log_p = log_p.clamp(max=_CERTAIN)
    small = log_p < -math.log(2.0)
    # Both sides are computed, so either gets an input that is harmless where it is not meant.
    near_one = torch.log(-torch.expm1(torch.where(small, -1.0, log_p)))
    near_zero = torch.log1p(-torch.exp(torch.where(small, log_p, -1.0)))
    return torch.where(small, near_zero, near_one)


def _chance(counted: Tensor, weight: float) -> tuple[float, str]:
    """Mean over rows of ln K - w (K - 1) ln(1 - 1 / K), the loss of P = 1 / K."""
    k = counted.double()
    rest = torch.where(k > 1, (k - 1) * torch.log1p(-1.0 / k.clamp(min=2)), 0.0)
    low, high = int(counted.min()), int(counted.max())
    return float((k.log() - weight * rest).mean()), f"P = 1/K among K = {low if low == high else f'{low} to {high}'}"
