"""A method in parts: each rank keeps a share of parameters, gradients and moments, and borrows the rest when it computes.

Rajbhandari, Rasley, Ruwase, He, ZeRO, 2020, arXiv 1910.02054, stage 3, by PyTorch's `fully_shard` (FSDP2; Zhao et al., 2023, arXiv
2304.11277). Units (`nn/units.py`: transformer blocks, stages) are gathered one by one when they are called, and let go again;
what lies beside them is gathered for the whole step. A hybrid keeps a whole copy per group of ranks, as a rule a node: parts are
gathered within it, and gradients averaged across.

Decided here:

- **Vectors and scalars stay whole** on every rank: biases, norms, temperatures. They are a thousandth of the numbers; scalars
  cannot be cut; and norms stay in fp32 whatever the matrices travel in. Their gradients are averaged in one message.
- **bf16**: the same autocast as without sharding computes, so that the same numbers come out. The matrices of units, which
  autocast would round to bf16 before every product, travel in bf16, half the bytes; everything else in fp32. (Were they gathered in
  fp32, autocast would keep a cast copy of every one until the backward pass, and nothing would be saved.) Gradients are summed
  over ranks in fp32, unless `reduce` says bf16.
- **Buffers** (queues, banks, centres, running statistics) are whole on every rank: each writes the same into its own.
- **A momentum twin** is cut like its student, and follows it part by part.
- **Evaluation and weights** see a whole method: the main rank has a copy of it, whose parameters take memory only while
  it is asked for. Evaluating all together would bind a task's own control flow to the ranks.
- **Micro-batches** (`accumulate`) give their gradients to the ranks that own them one by one, so that whole gradients never
  pile up; that is a message more per micro-batch than DDP sends.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from multiway.batch import Batch
from multiway.engine.agreement import from_main
from multiway.engine.compiling import compile_networks
from multiway.engine.gradients import average
from multiway.engine.settings import Settings
from multiway.methods.method import Losses, Method, Step
from multiway.nn.units import recompute, rounds_nothing, units
from multiway.world import World

__all__ = ["Sharded", "Stepper", "mesh_of"]


class Stepper(nn.Module):
    """The method as FSDP2's root. It sees tensors among what is returned, and the total is one; it hooks the backward pass to it."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch, world: World, step: Step) -> tuple[Tensor, Losses]:
        """The total to go backward from, and what it is made of."""
        losses: Losses = self.method(batch, world, step)
        return losses.total, losses


def mesh_of(settings: Settings, world: World, device: torch.device) -> DeviceMesh:
    """Which ranks share a copy: one row of `shards` ranks, or with `hybrid` `replicas` rows of them.

    Raises:
        ValueError: if the ranks do not divide into such rows, or nothing says how long they are.
    """
    if settings.shard == "full":
        if world.group is not None:
            return DeviceMesh.from_group(world.group, device.type)
        return init_device_mesh(device.type, (world.size,), mesh_dim_names=("shards",))
    told = settings.shards or int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    if not told:
        raise ValueError(
            "shard=hybrid keeps a whole copy per node, and LOCAL_WORLD_SIZE, by which torchrun tells its ranks per node, is not set; "
            "start with torchrun, or set shards to the number of ranks that share a copy"
        )
    if world.size % told or world.group is not None:
        raise ValueError(
            f"shard=hybrid with {told} ranks to a copy and {world.size} ranks: expected a number that divides them, of all the ranks "
            "that there are; set shards to one"
        )
    return init_device_mesh(device.type, (world.size // told, told), mesh_dim_names=("replicas", "shards"))


class Sharded:
    """A method in parts. Every rank makes one, before the optimiser, and all call what communicates together.

    Args:
        method: whole, the same sizes on every rank; the first one's numbers are taken. It is changed in place, and moved to
            the device unit by unit.
        settings: `shard`, `shards`, `reduce`, `checkpoint_blocks`, `compile`.
        world: more than one rank.
        device: of this rank.
        bf16: whether steps are computed under bf16 autocast.

    Attributes:
        stepper: what is called in a step.
    """

    def __init__(self, method: Method, settings: Settings, world: World, device: torch.device, bf16: bool) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # where FSDP and NCCL take the memory that they work in
        mesh = mesh_of(settings, world, device)
        from_main([*method.parameters(), *method.buffers()], world, device)
        self.method, self.world = method, world
        self._copy = _hollow(method, device) if world.is_main else None
        self._whole = [each for each in method.parameters() if each.ndim < 2]
        self._dtype = torch.bfloat16 if settings.reduce == "bf16" else None
        if settings.checkpoint_blocks:
            recompute(method)
        if settings.compile:
            compile_networks(method)
        kept = {"mesh": mesh, "ignored_params": set(self._whole)}
        as_is = MixedPrecisionPolicy(reduce_dtype=self._dtype, cast_forward_inputs=False)
        # Gradients of what travels in bf16 are bf16 too; it is their sum over ranks that has to be exact.
        rounded = MixedPrecisionPolicy(torch.bfloat16, self._dtype or torch.float32, cast_forward_inputs=False)
        for unit in units(method).values():
            fully_shard(unit, mp_policy=rounded if bf16 and rounds_nothing(unit) else as_is, **kept)  # type: ignore[call-overload]
        self.stepper = Stepper(method)
        fully_shard(self.stepper, mp_policy=as_is, **kept)  # type: ignore[call-overload]
        method.to(device)  # what is whole

    def joined(self) -> None:
        """After other parameters than before learn: units ask again in which dtype gradients are summed. Every rank calls it."""
        for part in self._parts():
            part.unshard()
            part.reshard()

    def average(self) -> None:
        """After the last backward pass of a step: the gradients of what is whole, which FSDP leaves alone."""
        average(self._whole, self.world, self._dtype)

    @contextmanager
    def whole(self) -> Iterator[Method | None]:
        """The whole method on the main rank, None on the others, for as long as the block lasts. Every rank enters."""
        self.gather()
        yield self._copy
        if self._copy is not None:
            for parameter in self._copy.parameters():
                parameter.untyped_storage().resize_(0)

    @torch.no_grad()
    def gather(self) -> Method | None:
        """The whole method, to stay, on the main rank. A parameter at a time, so that the others need room for one."""
        for part in self._parts():
            part.reshard()
        targets = {} if self._copy is None else dict(self._copy.named_parameters())
        for name, parameter in self.method.named_parameters():
            full = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if name in targets:
                target = targets[name]
                target.untyped_storage().resize_(target.numel() * target.element_size())
                target.copy_(full)
        if self._copy is not None:
            for kept, live in zip(self._copy.buffers(), self.method.buffers(), strict=True):
                kept.copy_(live)
        return self._copy

    def _parts(self) -> list[FSDPModule]:
        return [part for part in self.stepper.modules() if isinstance(part, FSDPModule)]


def _hollow(method: Method, device: torch.device) -> Method:
    """A copy of a method without the memory of its parameters."""
    memo: dict[int, Any] = {}
    for parameter in method.parameters():
        empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
        empty.untyped_storage().resize_(0)
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=False)
    return copy.deepcopy(method, memo).to(device)
