"""Codes of equal use: rows are assigned to prototypes so that each prototype gets the same share of them.

M. Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (SwAV), 2020, arXiv 2006.09882,
equations 3-5; M. Cuturi, Sinkhorn Distances, 2013, arXiv 1306.0895. For scores s of B rows against K prototypes,

    Q* = argmax over Q of <Q, s> + eps H(Q),   each prototype having mass 1 / K and each row 1 / B
       = Diag(u) exp(s / eps) Diag(v)

found by scaling prototypes and rows in turn. It is done on logarithms: exp(s / eps) overflows float16 at s = 0.6 for the
paper's eps = 0.05, and a prototype that is far from all rows has no mass at all, whose share is then 0 / 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from multiway.losses.unit import precise
from multiway.world import World

__all__ = ["sinkhorn"]


@torch.no_grad()
def sinkhorn(scores: Tensor, world: World, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes of this rank's rows, balanced over all ranks' rows; no gradient.

    Args:
        scores: (b, K) cosines with the prototypes (the paper's matrices are K x B). Rows of a queue may follow those of the
            batch: cut the codes to the batch afterwards. DINOv2 balances a teacher by this too, its logits being the scores
            and its temperature epsilon.
        world: the ranks; they may bring different numbers of rows.
        epsilon: of the entropy; smaller is sharper.
        iterations: scalings of prototypes and rows; 0 gives the plain softmax, which balances nothing.

    Returns:
        (b, K) float32 or better. Rows sum to 1; a prototype's mass nears B / K as iterations grow.

    Raises:
        ValueError: for shapes or numbers that do not fit.
    """
    if scores.ndim != 2 or epsilon <= 0 or iterations < 0:
        raise ValueError(
            f"scores are {tuple(scores.shape)}, epsilon {epsilon}, iterations {iterations}; expected (b, K), more than 0, and "
            "0 or more"
        )
    log_q = precise(scores) / epsilon
    for _ in range(iterations):
        # The shares 1 / K and 1 / B are common factors, which the scaling of rows takes out again.
        mass = world.gather(log_q.logsumexp(0)[None]).logsumexp(0)
        log_q = log_q - mass
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.softmax(1)
