"""The ranks that train together, and how a tensor is gathered from them.

A `World` is passed to whatever needs other ranks' rows; nothing asks a global variable. With one rank each method is
the identity, so that code is written once. This module imports nothing of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["GradientMode", "World"]

GradientMode = Literal["global", "local", "none"]


class _GatherGlobal(torch.autograd.Function):
    """All-gather whose backward sums the gradient of every rank's use of a row back to the rank that owns it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup | None) -> Tensor:  # type: ignore[override]
        ctx.group = group
        return _all_gather(own, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        # gloo has no reduce-scatter for every dtype; all-reduce and slice is the same sum.
        gradient = gradient.contiguous()
        dist.all_reduce(gradient, group=ctx.group)
        rows = gradient.shape[0] // dist.get_world_size(ctx.group)
        rank = dist.get_rank(ctx.group)
        return gradient[rank * rows : (rank + 1) * rows], None


def _all_gather(own: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own.contiguous(), group=group)
    return torch.cat(parts)


@dataclass(frozen=True)
class World:
    """Rank, size, and gathering with a named gradient mode.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        group: process group; None is the default one.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    @classmethod
    def from_environment(cls, backend: str | None = None) -> World:
        """The world that `torchrun` describes, joined if need be; a single rank where there is none.

        Args:
            backend: `nccl` or `gloo`; by default nccl where there is a GPU.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group(backend or ("nccl" if torch.cuda.is_available() else "gloo"))
        return cls(rank=dist.get_rank(), size=dist.get_world_size())

    @classmethod
    @contextmanager
    def joined(cls, backend: str | None = None) -> Iterator[World]:
        """`from_environment`, and left by all ranks together when the block has ended well.

        A rank that leaves the interpreter with its group alone aborts now and then: gloo's threads then ask for
        Python's lock while the interpreter is being taken down. A rank that fails does not wait for the others,
        which may be waiting for it; the launcher ends them.
        """
        world = cls.from_environment(backend)
        yield world
        world.barrier()
        if world.size > 1:
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """True on the one rank that writes files and talks to people."""
        return self.rank == 0

    def gather(self, own: Tensor, gradient: GradientMode = "none") -> Tensor:
        """Rows of every rank, in rank order.

        Args:
            own: (B, ...) this rank's rows; every rank brings the same number.
            gradient: what flows back. `global`: each rank's row receives the gradient of all ranks' losses;
                `local`: only of this rank's own loss; `none`: nothing.

        Returns:
            (size x B, ...).
        """
        if self.size == 1:
            return own.detach() if gradient == "none" else own
        if gradient == "global":
            return _GatherGlobal.apply(own, self.group)
        everyone = _all_gather(own.detach(), self.group)
        if gradient == "none":
            return everyone
        first = self.rank * own.shape[0]
        return torch.cat([everyone[:first], own, everyone[first + own.shape[0] :]])

    def mean(self, value: Tensor) -> Tensor:
        """The average over ranks of a value, without gradient."""
        if self.size == 1:
            return value.detach()
        value = value.detach().clone()
        dist.all_reduce(value, group=self.group)
        return value / self.size

    def all_agree(self, flag: bool) -> bool:
        """True when every rank says so; lets all ranks take the same branch."""
        if self.size == 1:
            return flag
        # The tensor must live where the backend communicates: nccl refuses CPU tensors.
        device = "cuda" if dist.get_backend(self.group) == "nccl" else "cpu"
        votes = torch.tensor([1.0 if flag else 0.0], device=device)
        dist.all_reduce(votes, op=dist.ReduceOp.MIN, group=self.group)
        return bool(votes.item() > 0.5)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier(group=self.group)
