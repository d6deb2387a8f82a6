"""KoLeo, a regulariser that spreads a batch over the sphere: no row may have another too near.

A. Sablayrolles et al., Spreading Vectors for Similarity Search, 2019, arXiv 1806.03198, equation 2 (after Kozachenko and
Leonenko's estimate of entropy); in DINOv2, M. Oquab et al., 2023, arXiv 2304.07193, section 4. With x on the unit sphere,

    L = - mean_i log( min over j != i of ||x_i - x_j|| + eps )

DINOv2 looks for the neighbour among the rows of a rank; here it is among those of all ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.unit import exact, unit
from multiway.world import GradientMode, World

__all__ = ["KoleoResult", "koleo"]

_EPSILON = 1e-8  # the published code's, in the distance and in the logarithm


@dataclass(frozen=True)
class KoleoResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient.
        distance: mean distance to the nearest neighbour, detached.
        chance: the loss of features that are all equal; the greatest there is.
        formula: how `chance` comes about.
    """

    loss: Tensor
    distance: Tensor
    chance: float
    formula: str


def koleo(features: Tensor, world: World, gradient: GradientMode = "global") -> KoleoResult:
    """The loss of this rank's rows in float32 or better; its mean over ranks is that of one rank.

    Args:
        features: (b, D), not yet normalised; one view, so that no neighbour is the row's own picture. Every rank brings b.
        world: the ranks.
        gradient: whether a neighbour on another rank is pushed away too (`World.gather`).

    Raises:
        ValueError: if there are not two rows.
    """
    if features.ndim != 2 or len(features) * world.size < 2:
        raise ValueError(
            f"features are {tuple(features.shape)} on {world.size} ranks; expected (b, D), two rows in all"
        )
    own = unit(features)
    everyone = world.gather(own, gradient)
    with torch.no_grad(), exact(own):
        cosine = own @ everyone.t()
        cosine.diagonal(world.rank * len(own)).fill_(-2.0)
        nearest = cosine.argmax(1)
    distance = F.pairwise_distance(own, everyone[nearest], eps=_EPSILON)
    least = _EPSILON * (1.0 + math.sqrt(features.shape[1]))
    return KoleoResult(
        -(distance + _EPSILON).log().mean(), distance.detach().mean(), -math.log(least), "-ln of distance 0"
    )
