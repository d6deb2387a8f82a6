"""Tensors of which every rank holds a part: parameters, gradients and moments under FSDP2 (`engine/sharding.py`).

Such a tensor is a DTensor: it says that it is whole and keeps this rank's rows. What is done to each number by itself (a
momentum update, a scaled step) is done to the parts; a sum over all numbers is summed over the parts and then over the ranks
that share them. Here is both, so that a twin, an optimiser or a norm is written once, for whole tensors and for parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

__all__ = ["is_sharded", "local", "locals_of", "norms", "of_whole", "zero_with_gradients"]


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank holds a part of it only, or a part that says whose it is."""
    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """This rank's part, in the same memory; a whole tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def locals_of(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This rank's parts."""
    return [local(tensor) for tensor in tensors]


def of_whole(numbers: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Sums over this rank's parts -> sums over the whole tensors. Every rank calls it with the same tensors.

    Args:
        numbers: (n, ...), a row for each tensor, each a sum over the numbers of this rank's part.
        tensors: n; of those that every rank has whole the row is as it was.
    """
    layouts = {
        (tensor.device_mesh, dim)
        for tensor in tensors
        if isinstance(tensor, DTensor)
        for dim, placement in enumerate(tensor.placements)
        if placement.is_shard()
    }
    numbers = numbers.clone()
    for mesh, dim in sorted(layouts, key=lambda layout: layout[1]):  # the same order on every rank
        parts = torch.tensor([isinstance(each, DTensor) and each.device_mesh == mesh for each in tensors])
        mine = numbers[parts.to(numbers.device)]
        dist.all_reduce(mine, group=mesh.get_group(dim))
        numbers[parts.to(numbers.device)] = mine
    return numbers


@torch.no_grad()
def norms(tensors: Sequence[Tensor], like: Sequence[Tensor] | None = None) -> Tensor:
    """(n,) Euclidean norms of n whole tensors, in their own dtype and on their device. Every rank calls it.

    Args:
        tensors: n.
        like: where they are this rank's bare parts, n tensors that say of what.
    """
    own = torch.stack(torch._foreach_norm(locals_of(tensors)))
    like = tensors if like is None else like
    if not any(map(is_sharded, like)):
        return own
    # Squares in float64, whose range holds those of any float32.
    return of_whole(own.double().square(), like).sqrt().to(own.dtype)


def zero_with_gradients(parameters: Iterable[Tensor]) -> Tensor:
    """A zero whose gradient by every one of these parameters is zero, and not absent.

    For parameters that a step does not use: DDP waits for the gradient of each, and an optimiser passes over those without
    one, so that weight decay would depend on it. Only for those: FSDP reduces the gradients of what is used by itself.
    """
    return 0.0 * torch.stack([local(parameter).sum() for parameter in parameters]).sum()
