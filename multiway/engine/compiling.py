"""torch.compile of what is heavy in a step, and of nothing else."""

from __future__ import annotations

import torch
import torch._dynamo

from multiway.methods.method import Method
from multiway.nn.units import units

__all__ = ["compile_networks"]


def compile_networks(method: Method) -> None:
    """Compile, in place, the units of a method's networks: transformer blocks, stages of residual networks.

    Blocks of one shape share a graph, so that twelve of them begin as quickly as one. What lies between them and the losses stays as
    it is: losses talk to other ranks, read queues that grow, and give chance values as Python numbers and words, which change from
    step to step; a graph made for one would be made anew for the next, until torch gives up. Of a network without units `encode`
    is compiled as a whole. Sizes are symbols, since the lengths of texts vary.
    """
    every = units(method)
    # Blocks of one class share the count: with and without gradient, mask, a picture to look at, tokens to leave out.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for unit in every.values():
        unit.compile(dynamic=True)
    if not every:
        method.encode = torch.compile(method.encode, dynamic=True)  # type: ignore[method-assign]
