"""The centre of a teacher's outputs: a moving average of their mean, which DINO and iBOT subtract before the softmax.

M. Caron et al., DINO, 2021, arXiv 2104.14294, equation 4. With m the momentum,

    c <- m c + (1 - m) mean over the batch of g_t

The step that uses a centre does not move it: `mean_outputs` is collected in the loss stage, over all ranks, and `follow` is called
once per successful optimiser step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multiway.world import World

__all__ = ["Center", "mean_outputs"]


@torch.no_grad()
def mean_outputs(outputs: Sequence[Tensor], world: World) -> Tensor:
    """Outputs (..., K) of a teacher for some views -> (1, K) float32, their mean over views, rows and ranks.

    One row, so that those of micro-batches can be laid end to end; (0, K) where no rank has any output. Ranks may bring
    different numbers of rows.
    """
    flat = torch.cat([each.detach().float().flatten(0, -2) for each in outputs])
    count = world.mean(flat.new_tensor(float(len(flat))))
    return world.mean(flat.sum(0))[None] / count if float(count) > 0 else flat.new_empty(0, flat.shape[1])


class Center(nn.Module):
    """A vector that follows; it is in the state dict, and begins at zero.

    Args:
        width: K.
        momentum: m in [0, 1].
    """

    value: Tensor

    def __init__(self, width: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum is {momentum}; expected a number from 0 to 1")
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(width))

    @torch.no_grad()
    def follow(self, collected: Tensor) -> None:
        """Move towards what `mean_outputs` collected: (M, K), one row for each micro-batch; none leaves it where it is."""
        if len(collected):
            self.value.lerp_(collected.to(self.value).mean(0), 1.0 - self.momentum)
