"""Regression of another view's projection on the unit sphere: what BYOL and SimSiam minimise, without negatives.

J.-B. Grill et al., Bootstrap Your Own Latent (BYOL), 2020, arXiv 2006.07733, equation 2; X. Chen and K. He, Exploring Simple
Siamese Representation Learning (SimSiam), 2021, arXiv 2011.10566, equations 1-4. For predictions p of views and targets z of
others, which no gradient enters (the stop-gradient),

    byol      L = mean over pairs of ||p/|p| - z/|z|||^2 = 2 - 2 cos(p, z)      in [0, 4]
    cosine    L = mean over pairs of - cos(p, z)                                in [-1, 1]

Pairs are of different views. BYOL sums both directions of two views; the mean here is half of that, as SimSiam's is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from multiway.losses.unit import unit
from multiway.world import World

__all__ = ["RegressResult", "regress"]


@dataclass(frozen=True)
class RegressResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient.
        cosine: mean cosine of the pairs, detached.
        chance: the loss of the best constant prediction, the direction of the mean target: all targets having collapsed to one
            point, it is the least there is. A loss at its chance has learned nothing, however small it is.
        formula: how `chance` comes about.
    """

    loss: Tensor
    cosine: Tensor
    chance: float
    formula: str


def regress(
    predictions: Sequence[Tensor],
    targets: Sequence[Tensor],
    world: World,
    form: Literal["byol", "cosine"] = "byol",
    stop_gradient: bool = True,
) -> RegressResult:
    """The loss over this rank's rows in float32 or better; its mean over ranks is that of one rank.

    Args:
        predictions: of views 0, 1, ...: each (b, D), not yet normalised.
        targets: of the first of these views, in the same order, each (b, D); a view is not matched with itself.
        world: the ranks, for the chance value.
        form: which of the two equations.
        stop_gradient: False lets gradients into the targets: the ablation of SimSiam's section 4.1.

    Raises:
        ValueError: if shapes differ or there is no pair of different views.
    """
    shapes = {tuple(each.shape) for each in (*predictions, *targets)}
    pairs = [(i, j) for i in range(len(predictions)) for j in range(len(targets)) if i != j]
    if not pairs or len(shapes) != 1 or predictions[0].ndim != 2:
        raise ValueError(
            f"{len(predictions)} predictions and {len(targets)} targets of shapes {sorted(shapes)}; expected equal (b, D), and "
            "two views"
        )
    if form not in ("byol", "cosine"):
        raise ValueError(f"form is {form!r}; expected 'byol' or 'cosine'")
    predicted = [unit(each) for each in predictions]
    aims = [unit(each.detach() if stop_gradient else each) for each in targets]
    cosine = torch.stack([(predicted[i] * aims[j]).sum(1).mean() for i, j in pairs]).mean()
    # Every target is met equally often but for views that predict and are no target.
    met = torch.stack([aims[j].detach() for _, j in pairs]).mean((0, 1))
    length = float(world.mean(met).norm())
    if form == "byol":
        return RegressResult(2.0 - 2.0 * cosine, cosine.detach(), 2.0 - 2.0 * length, "2 - 2 |mean target|")
    return RegressResult(-cosine, cosine.detach(), -length, "-|mean target|")
