"""What is done to gradients between backward and step: averaged over ranks, and cut to a length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from multiway.nn.sharded import is_sharded, locals_of, norms
from multiway.world import World

__all__ = ["average", "clip"]

BUCKET = 2**25  # bytes of gradients in one message between ranks


def average(parameters: Iterable[nn.Parameter], world: World, dtype: torch.dtype | None = None) -> None:
    """Average gradients over ranks in place, once; a parameter that no rank has used keeps none, as under DDP.

    Args:
        parameters: that every rank has whole; those without `requires_grad` are passed over.
        world: the ranks; every one of them calls it.
        dtype: in which they travel and are summed; None for their own.
    """
    learnt = [each for each in parameters if each.requires_grad]
    if world.size == 1 or not learnt:
        return
    used = torch.tensor([each.grad is not None for each in learnt], dtype=torch.float32, device=learnt[0].device)
    dist.all_reduce(used, dist.ReduceOp.MAX, world.group)
    for parameter, by_any in zip(learnt, used.tolist(), strict=True):
        if by_any and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([each.grad for each in learnt if each.grad is not None]):
        flat = torch.cat([each.flatten() for each in bucket])
        flat = flat if dtype is None else flat.to(dtype)
        dist.all_reduce(flat, group=world.group)
        flat /= world.size
        for each, mean in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
            each.copy_(mean.view_as(each))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one dtype, in messages of about `BUCKET` bytes."""
    bucket: list[Tensor] = []
    size = 0
    for each in gradients:
        if bucket and (size + each.nbytes > BUCKET or each.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(each)
        size += each.nbytes
    if bucket:
        yield bucket


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """The norm of the whole gradient, which is then scaled down to `limit` if it is longer; 0 for no limit.

    Where ranks hold parts of the gradient, every rank calls it and gets the same norm.
    """
    learnt = list(parameters)
    limit = limit if limit > 0 else float("inf")
    gradients = [each.grad for each in learnt if each.grad is not None]
    if not any(map(is_sharded, gradients)):
        return torch.nn.utils.clip_grad_norm_(learnt, limit, foreach=True)
    norm = norms(gradients).norm()
    # As torch.nn.utils.clip_grad_norm_, which does not take whole gradients together with parts.
    torch._foreach_mul_(locals_of(gradients), (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm
