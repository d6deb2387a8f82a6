"""Swapped prediction: which prototypes another view of the picture is assigned to.

M. Caron et al., SwAV, 2020, arXiv 2006.09882, equations 1-2 and, for crops of several sizes, 6. Codes q come from
`losses/sinkhorn.py`, of the large crops alone; every other crop predicts each,

    l(z, q) = - sum_k q_k log softmax(z . c / tau)_k

averaged over the pairs. A model whose output is constant scores ln K, 8.006 for 3000 prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multiway.losses.cross_view import CrossViewResult, cross_view
from multiway.world import World

__all__ = ["swapped"]


def swapped(
    scores: Sequence[Tensor], codes: Sequence[Tensor], world: World, temperature: float = 0.1
) -> CrossViewResult:
    """The loss; see `cross_view` for what it returns and raises.

    Args:
        scores: V of (b, K) cosines with the prototypes, those of the large crops first.
        codes: of the large crops, (b, K) each; rows sum to 1.
        world: the ranks.
        temperature: tau.
    """
    return cross_view(scores, codes, temperature, world)
