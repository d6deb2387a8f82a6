"""One view predicts what is said of another: the cross entropy under SwAV and DINO.

Targets are probabilities over K outputs for the first T views of each picture (the large crops), without gradient; all V views
give logits. Over the pairs of a target and another view,

    L = 1 / (T (V - 1)) sum over t, v != t of mean_i [ - sum_k q_t,ik log softmax(l_v,i / tau)_k ]

A view is never matched with itself: two targets and L small crops make 2 (2 + L) - 2 terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.chance import uniform
from multiway.losses.unit import exact, precise
from multiway.world import World

__all__ = ["CrossViewResult", "cross_view"]


@dataclass(frozen=True)
class CrossViewResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient.
        accuracy: share of predictions whose greatest output is the target's, detached.
        target_entropy: mean entropy of a target, detached: 0 where it is one output, ln K where it is even.
        usage: entropy of the mean target over all ranks' rows and views, detached. Together with `target_entropy` it tells the
            two collapses apart: both at ln K, even targets; both at 0, one output for everything. Health is far between.
        terms: pairs of views.
        chance: ln K, what an even prediction scores: the best constant while targets use all outputs alike.
        formula: `ln 3000`.
    """

    loss: Tensor
    accuracy: Tensor
    target_entropy: Tensor
    usage: Tensor
    terms: int
    chance: float
    formula: str

    @property
    def divergence(self) -> Tensor:
        """Mean KL of predictions from targets: the loss less what no prediction could save; detached."""
        return self.loss.detach() - self.target_entropy


def cross_view(
    logits: Sequence[Tensor], targets: Sequence[Tensor], temperature: float, world: World
) -> CrossViewResult:
    """The loss of this rank's rows in float32 or better; its mean over ranks is that of one rank.

    Args:
        logits: V of (b, K), those of the target's views first.
        targets: T of (b, K) probabilities.
        temperature: tau of the predictions.
        world: the ranks, for `usage`.

    Raises:
        ValueError: if shapes differ, or no view is left to predict another.
    """
    shapes = {tuple(each.shape) for each in (*logits, *targets)}
    terms = len(targets) * (len(logits) - 1)
    if not 0 < len(targets) <= len(logits) or terms == 0 or len(shapes) != 1 or logits[0].ndim != 2 or temperature <= 0:
        raise ValueError(
            f"{len(logits)} views, {len(targets)} targets of shapes {sorted(shapes)}, temperature {temperature}; expected equal "
            "(b, K), two or more views that begin with the targets', and more than 0"
        )
    aims = [precise(each.detach()) for each in targets]
    total, hits = precise(logits[0]).new_zeros(()), precise(logits[0]).new_zeros(())
    tops = [each.argmax(1) for each in aims]
    with exact(logits[0]):
        for v, each in enumerate(logits):
            others = [t for t in range(len(aims)) if t != v]
            if not others:
                continue
            # The cross entropy is linear in its target: one pass over a view's logits serves all targets.
            aim = torch.stack([aims[t] for t in others]).sum(0) if len(others) > 1 else aims[others[0]]
            total = total + F.cross_entropy(precise(each) / temperature, aim)
            top = each.detach().argmax(1)
            hits = hits + torch.stack([(top == tops[t]).to(hits.dtype).mean() for t in others]).sum()
        entropy = torch.stack([torch.special.entr(aim).sum(1).mean() for aim in aims]).mean()
        usage = torch.special.entr(world.mean(torch.stack(aims).mean((0, 1)))).sum()
    return CrossViewResult(total / terms, hits / terms, entropy, usage, terms, *uniform(logits[0].shape[1]))
