"""All ranks see the same outcome: what one of them could not do fails on every one, with the same message.

A rank that raises alone leaves the others waiting in the next collective until a timeout, half an hour later and
without a reason. Whatever touches the disk therefore goes through these two functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from multiway.world import World

__all__ = ["ALONE", "from_main", "on_all", "on_main"]

T = TypeVar("T")
ALONE = World()


def on_all(world: World, work: Callable[[], T]) -> list[T]:
    """Run `work` on every rank.

    Returns:
        What it returned, in rank order, on every rank.

    Raises:
        Exception: that of the lowest rank on which it failed, on every rank.
    """
    if world.size == 1:
        return [work()]
    value: T | None = None
    failure: Exception | None = None
    try:
        value = work()
    except Exception as error:  # whatever it is, the other ranks have to hear of it
        failure = error
    everyone: list[tuple[T | None, Exception | None]] = [(None, None)] * world.size
    dist.all_gather_object(everyone, (value, _portable(failure)), group=world.group)
    if failure is not None:
        raise failure
    for rank, (_, other) in enumerate(everyone):
        if other is not None:
            other.add_note(f"raised on rank {rank}")
            raise other
    return [cast(T, each) for each, _ in everyone]


def on_main(world: World, work: Callable[[], T]) -> T:
    """Run `work` on rank 0 alone; every rank receives what it returned, or raises what it raised."""
    return cast(T, on_all(world, lambda: work() if world.is_main else None)[0])


@torch.no_grad()
def from_main(tensors: Iterable[Tensor], world: World, device: torch.device | None = None) -> None:
    """Give every rank the numbers of rank 0, in place: all begin from the same, as under DDP.

    Args:
        device: on which ranks communicate, where that is not the tensors' own; a tensor at a time is taken there.
    """
    if world.size == 1:
        return
    first = dist.get_global_rank(world.group, 0) if world.group else 0
    for tensor in tensors:
        there = tensor.detach().to(device or tensor.device).contiguous()
        dist.broadcast(there, first, world.group)
        if there.data_ptr() != tensor.data_ptr():
            tensor.copy_(there)


def _portable(failure: Exception | None) -> Exception | None:
    """The error in a form that other ranks can rebuild: one with a constructor of its own may need more than its text."""
    if failure is None:
        return None
    kinds = [kind for kind in type(failure).__mro__ if kind.__module__ != "builtins"]
    if any("__init__" in vars(kind) or "<locals>" in kind.__qualname__ for kind in kinds):
        return RuntimeError(f"{type(failure).__name__}: {failure}")
    return failure
