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


class _Fetch(torch.autograd.Function):
    """Rows that other ranks own; their gradient goes back to the ranks that own them."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, wanted: Tensor, world: World) -> Tensor:  # type: ignore[override]
        everyone = _all_gather(wanted[None], world.group)  # (size, M): what each rank wants
        owner = torch.where(everyone < 0, -1, everyone % world.size)
        sent = [everyone[rank][owner[rank] == world.rank] // world.size for rank in range(world.size)]
        place = [(owner[world.rank] == rank).nonzero().flatten() for rank in range(world.size)]
        ctx.rows, ctx.group = len(own), world.group
        ctx.sent, ctx.place = torch.cat(sent), torch.cat(place)
        ctx.sizes = [len(each) for each in sent], [len(each) for each in place]
        found = own.new_zeros(len(wanted), *own.shape[1:])
        found[ctx.place] = _exchange(own[ctx.sent], ctx.sizes[0], ctx.sizes[1], world.group)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        sent, received = ctx.sizes
        back = _exchange(gradient[ctx.place], received, sent, ctx.group)
        own = gradient.new_zeros(ctx.rows, *gradient.shape[1:])
        return own.index_add_(0, ctx.sent, back), None, None


def _exchange(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup | None) -> Tensor:
    """Rows in rank order of who gets them -> rows in rank order of who sent them."""
    found = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(found, rows.contiguous(), received, sent, group=group)
    return found


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

    def turns(self, gathered: Tensor) -> Tensor:
        """What `gather` gave, in the data's own order: ranks take rows by turns, row i of rank r being row i x size + r.

        In this order a queue holds the same, and draws over the rows fall alike, whatever the number of ranks.
        """
        return gathered.unflatten(0, (self.size, -1)).transpose(0, 1).flatten(0, 1) if self.size > 1 else gathered

    def fetch(self, own: Tensor, wanted: Tensor) -> Tensor:
        """Rows of other ranks, a few of many: each is sent to those alone who want it. Every rank calls it.

        Args:
            own: (B, ...) this rank's rows; alike in shape on every rank, and not of bools.
            wanted: (M,) int64 rows in the data's own order (`turns`), M the same on every rank; -1 for none.

        Returns:
            (M, ...), zero where none was wanted. Gradients flow back to the ranks that own the rows.
        """
        if self.size == 1:
            return torch.where((wanted >= 0).view(-1, *[1] * (own.ndim - 1)), own[wanted.clamp(min=0)], 0)
        found: Tensor = _Fetch.apply(own, wanted, self)
        return found

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
