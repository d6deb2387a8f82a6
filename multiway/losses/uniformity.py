"""Alignment and uniformity: what a contrastive loss trades off, as two meters.

T. Wang and P. Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere,
2020, arXiv 2005.10242, equations 8 and 9. With features on the unit sphere,

    alignment   mean over positive pairs of ||x - y||^alpha                     0 where views agree
    uniformity  log mean over pairs i != j of exp(-t ||x_i - x_j||^2)           0 where all is one point, about -2 t at best

Less is better in both. They have no gradient: meters, to be logged.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from multiway.losses.unit import exact, unit
from multiway.world import World

__all__ = ["alignment", "uniformity", "uniformity_of_random"]


@torch.no_grad()
def alignment(first: Tensor, second: Tensor, world: World, alpha: float = 2.0) -> Tensor:
    """Mean distance to the power alpha between two views of the same pictures, over all ranks: scalar.

    Args:
        first, second: (b, D), not yet normalised; every rank brings the same b.

    Raises:
        ValueError: if the shapes differ.
    """
    if first.ndim != 2 or first.shape != second.shape or len(first) == 0:
        raise ValueError(
            f"views are {tuple(first.shape)} and {tuple(second.shape)}; expected two equal (b, D) with a row"
        )
    return world.mean((unit(first) - unit(second)).norm(dim=1).pow(alpha).mean())


@torch.no_grad()
def uniformity(features: Tensor, world: World, t: float = 2.0) -> Tensor:
    """Logarithm of the mean Gaussian potential between different rows, over all ranks: scalar, the same on each.

    Args:
        features: (b, D), not yet normalised, of different pictures; every rank brings the same b.
        t: of the Gaussian.

    Raises:
        ValueError: if there are not two rows.
    """
    if features.ndim != 2 or len(features) * world.size < 2:
        raise ValueError(
            f"features are {tuple(features.shape)} on {world.size} ranks; expected (b, D), two rows in all"
        )
    own = unit(features)
    everyone = world.gather(own)
    with exact(own):
        # ||x - y||^2 = 2 - 2 x . y on the sphere.
        potential = (own @ everyone.t()).sub_(1.0).mul_(2.0 * t)
    potential.diagonal(world.rank * len(own)).fill_(-torch.inf)
    pairs = len(everyone) * (len(everyone) - 1)
    return world.gather(potential.flatten().logsumexp(0)[None]).logsumexp(0) - math.log(pairs)


def uniformity_of_random(dimensions: int, t: float = 2.0) -> float:
    """What directions drawn evenly have, in expectation: log E exp(-t ||x - y||^2).

    With u = x . y of two such directions, E exp(s u) = 0F1(; D/2; s^2 / 4), a series whose terms soon vanish.

    Args:
        dimensions: D, of the space, 2 at least.
        t: of the Gaussian.
    """
    if dimensions < 2:
        raise ValueError(f"dimensions is {dimensions}; directions need 2 at least")
    term = total = 1.0
    for number in range(1, 1000):
        term *= t * t / (number * (dimensions / 2 + number - 1))
        total += term
        if term < 1e-16 * total:
            break
    return math.log(total) - 2 * t
