"""The ranks of a plan, of which none is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from multiway.world import GradientMode, World

__all__ = ["PlannedWorld"]


class _Gather(torch.autograd.Function):
    """Rows of all ranks, of which the gradient of the own ones comes back."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, size: int) -> Tensor:  # type: ignore[override]
        ctx.rows = len(own)
        return torch.cat([own.clone() for _ in range(size)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient.contiguous()[: ctx.rows], None


@dataclass(frozen=True)
class PlannedWorld(World):
    """Ranks that are not there. What is gathered from them is as large as it would be; all of them bring the same rows.

    Attributes:
        sent: bytes that this rank's links carry, one entry for each exchange.
    """

    sent: list[int] = field(default_factory=list)

    def gather(self, own: Tensor, gradient: GradientMode = "none") -> Tensor:
        """As of `World`."""
        if self.size == 1:
            return super().gather(own, gradient)
        bytes_of_all = own.numel() * own.element_size() * (self.size - 1)
        # Back comes the sum of all ranks' gradients, by an all-reduce of all rows: as much twice.
        self.sent.extend([bytes_of_all] + [2 * bytes_of_all] * (gradient == "global"))
        if gradient == "global":
            return _Gather.apply(own, self.size)  # type: ignore[no-any-return]
        others = torch.cat([own.detach().clone() for _ in range(self.size)])
        return others if gradient == "none" else torch.cat([own, others[len(own) :]])

    def mean(self, value: Tensor) -> Tensor:
        """The value: that of all ranks is as large."""
        return value.detach()

    def all_agree(self, flag: bool) -> bool:
        """They do."""
        return flag

    def barrier(self) -> None:
        """Nobody is waited for."""
