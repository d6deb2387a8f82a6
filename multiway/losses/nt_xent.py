"""NT-Xent, the normalised temperature-scaled cross entropy: which of all other views shows the same picture?

T. Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (SimCLR), 2020, arXiv 2002.05709,
equation 1. With N pictures, V views of each, s_ij = cos(z_i, z_j) / tau, and P_i the V - 1 other views of view i's picture,

    L = mean_i [ log sum over j != i of exp s_ij  -  mean over p in P_i of s_ip ]

over all V N views. For two views this is the paper's equation over 2 N - 1 candidates. With more, all positives stay in the
denominator, as in P. Khosla et al., Supervised Contrastive Learning, 2020, arXiv 2004.11362, equation 2: the least possible
loss is then ln(V - 1), not 0.

Across ranks each scores its own views against everybody's and returns the mean over its own; see `losses/itc.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from multiway.losses.chance import uniform, uniform_over_rows
from multiway.losses.contrast import contrast
from multiway.losses.views import gather_views
from multiway.world import GradientMode, World

__all__ = ["NtXentResult", "nt_xent"]


@dataclass(frozen=True)
class NtXentResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient.
        accuracy: share of views whose most similar other view shows their picture, detached.
        chance: the loss of embeddings that are all equal.
        formula: how `chance` comes about: `ln 511`.
    """

    loss: Tensor
    accuracy: Tensor
    chance: float
    formula: str


def nt_xent(
    views: Sequence[Tensor],
    world: World,
    temperature: float = 0.1,
    image_id: Tensor | None = None,
    gradient: GradientMode = "global",
    chunk: int | None = None,
) -> NtXentResult:
    """The loss over all ranks' views, exact, in memory O(V b x chunk); similarities in float32 or better.

    Args:
        views: V of (b, D), not yet normalised; row i of each shows the same picture. Every rank brings the same b.
        world: the ranks.
        temperature: tau.
        image_id: (b,) int64; views of other rows that share one are left out of the denominator. The paper has none such.
        gradient: how gradients cross ranks (`World.gather`); `none` lets only the views that ask learn.
        chunk: rows of similarities held at once; by default a few million elements' worth.

    Raises:
        ValueError: for shapes or a temperature that do not fit.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; expected more than 0")
    laid = gather_views(views, world, gradient, image_id)
    scale = laid.query.new_tensor(1.0 / temperature)
    found = contrast(laid.query, laid.candidates, scale, laid.first, ignored=laid, chunk=chunk)
    nll = found.row_nll
    if laid.count > 2:
        # `row_nll` is that of the next view alone, but all other views are meant.
        own = laid.candidates[laid.own]
        each = own.unflatten(0, (laid.count, -1))
        itself = each.roll(1, 0).flatten(0, 1)
        positive = (each.sum(0).repeat(laid.count, 1) - itself) / (laid.count - 1)
        nll = nll + scale * (laid.query * (own - positive)).sum(1)
    right = laid.rows[found.row_best] == laid.rows[laid.own]
    counted = laid.counted()
    chance = uniform(len(laid.candidates) - 1) if counted is None else uniform_over_rows(counted)
    return NtXentResult(nll.mean(), right.to(nll.dtype).mean(), chance.value, chance.formula)
