"""One training step of a recipe, run on hollow tensors and measured: what memory and what work it takes."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import multiway.recipes.lent
from multiway.batch import Batch
from multiway.data.augment import finish
from multiway.engine.optim import build_optimiser
from multiway.engine.settings import Settings
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.methods.method import Losses, Method
from multiway.nn.batch_norm import across_ranks
from multiway.nn.queue import FeatureQueue
from multiway.recipes.recipe import Recipe
from multiway.workflows.plan_batch import Rows, hollow_batch
from multiway.workflows.plan_cached import PlannedCachedStep
from multiway.workflows.plan_fake import Known, hollow, real, shapes_only, uninitialised
from multiway.workflows.plan_gpu import like_a_gpu
from multiway.workflows.plan_meter import (
    BACKWARD,
    BATCH,
    BUFFERS,
    FORWARD,
    GRADIENTS,
    LOSSES,
    OPTIMISER,
    PARAMETERS,
    TRACED,
    TWINS,
    UPDATE,
    Meter,
    Operation,
)  # fmt: skip
from multiway.workflows.plan_world import PlannedWorld
from multiway.workflows.step_times import LATE
from multiway.world import World

__all__ = ["Trace", "trace"]


@dataclass(frozen=True)
class Trace:
    """What one step takes on one rank.

    Attributes:
        at_peak: bytes by what they are for, at the moment of the greatest sum.
        persistent: bytes by what they are for of that which stays from step to step.
        host: bytes in the main memory, of what gradient caching leaves or keeps there.
        operations: all that is computed.
        sent: bytes of contrastive losses and statistics that this rank's links carry.
        parameters, learnt: how many numbers the method has, and how many of them learn.
        learnt_bytes: of the gradients.
        blocks: bytes of the parameters of each repeated block, whatever else there is being one more.
        tokens, rows: of the longest text; of this rank.
        assumed: what had to be taken for granted.
    """

    at_peak: dict[str, int]
    persistent: dict[str, int]
    host: int
    operations: tuple[Operation, ...]
    sent: int
    parameters: int
    learnt: int
    learnt_bytes: int
    blocks: tuple[int, ...]
    rows: int
    tokens: int
    assumed: dict[str, int]

    @property
    def peak(self) -> int:
        """Bytes."""
        return sum(self.at_peak.values())

    @property
    def flops(self) -> float:
        """Of the products of one step, forward and backward."""
        return sum(each.flops * each.times for each in self.operations)


def trace(recipe: Recipe, rows: Rows, ranks: int = 1, *, gpu: bool = False, checkpoint: bool = False) -> Trace:
    """Run one step of a recipe, late in training, on shapes alone.

    Args:
        recipe: `settings.precision` decided; batch, accumulation and gradient caching as they are to be planned.
        rows: what the batch is made of.
        ranks: that share the batch.
        gpu: take the ways that code takes on a GPU.
        checkpoint: recompute every block that can be in the backward pass.

    Raises:
        ValueError: for a batch that does not divide, and whatever the method or gradient caching refuses.
    """
    settings = recipe.settings
    if settings.batch % (ranks * settings.accumulate):
        raise ValueError(
            f"batch {settings.batch} does not divide into {ranks} ranks x {settings.accumulate} micro-batches; choose a multiple "
            f"of {ranks * settings.accumulate}"
        )
    world = PlannedWorld(size=ranks)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of autocast and fused kernels, about a device that computes nothing here
        torch.manual_seed(settings.seed)
        with shapes_only() as known:
            method = _method(recipe, rows, world, known, checkpoint)
            meter = Meter(block=512 if gpu else 64)
            optimiser = _optimiser(method, settings, keep_gradients=ranks > 1 and not settings.cache)
            _persistent(method, optimiser, meter)
            persistent = {name: size for name, size in meter.live.items() if size}
            with meter, meter.parts(method):
                with like_a_gpu(known) if gpu else nullcontext():
                    losses = _forward_backward(method, recipe, rows, world, meter, gpu)
                _update(method, optimiser, settings, losses, meter)
        return Trace(
            at_peak={name: size for name, size in meter.at_peak.items() if size},
            persistent=persistent,
            host=meter.host,
            operations=tuple(meter.operations),
            sent=sum(world.sent),
            parameters=sum(each.numel() for each in method.parameters()),
            learnt=sum(each.numel() for each in method.parameters() if each.requires_grad),
            learnt_bytes=sum(each.numel() * each.element_size() for each in method.parameters() if each.requires_grad),
            blocks=_blocks(method),
            rows=settings.batch // ranks,
            tokens=rows.tokens,
            assumed=dict(known.assumed),
        )


def _method(recipe: Recipe, rows: Rows, world: World, known: Known, checkpoint: bool) -> Method:
    """The method, hollow, as it is late in training: queues are full."""

    def lent(path: str) -> Model:
        with real():
            return load(path)

    with uninitialised(), patch.object(multiway.recipes.lent, "load", lent):
        method = recipe.build(rows.info)
    if recipe.over_ranks:
        method = across_ranks(method, world)
    hollow(method, known)
    for part in method.modules():
        if isinstance(part, FeatureQueue):
            part.filled.fill_(part.rows)
        config: Any = getattr(part, "config", None)
        if checkpoint and hasattr(config, "checkpoint"):
            part.config = replace(config, checkpoint=True)
    return method.train()


def _optimiser(method: Method, settings: Settings, keep_gradients: bool) -> torch.optim.Optimizer:
    """The optimiser with the state that it has after a step; under DDP gradients have their memory all the time."""
    optimiser = build_optimiser(method, settings.optimiser, [*settings.optimiser.rules, *method.learning_rates()])
    for group in optimiser.param_groups:
        group["lr"] = settings.lr * group["factor"]
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    if not keep_gradients:
        optimiser.zero_grad(set_to_none=True)
    return optimiser


def _persistent(method: Method, optimiser: torch.optim.Optimizer, meter: Meter) -> None:
    """Count what is there before the step begins."""
    for parameter in method.parameters():
        meter.holds(parameter, PARAMETERS if parameter.requires_grad else TWINS)
        if parameter.grad is not None:
            meter.holds(parameter.grad, GRADIENTS)
    for buffer in method.buffers():
        meter.holds(buffer, BUFFERS)
    for state in optimiser.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                meter.holds(value, OPTIMISER)


def _forward_backward(
    method: Method, recipe: Recipe, rows: Rows, world: PlannedWorld, meter: Meter, gpu: bool
) -> Losses:
    """As `engine/loop.py` does it, with the first few micro-batches standing for all."""
    settings = recipe.settings
    meter.label = BATCH
    batch = hollow_batch(rows, settings.batch // world.size)
    if not settings.cache:
        finished = _finished(batch, recipe, meter)
        if gpu:  # what came from the loader is not needed any more
            batch = Batch()
        return _micro_batches(method, finished, settings, world, meter)
    if gpu:  # pictures come to the device a micro-batch at a time
        for each in (batch.images, *batch.views):
            if each is not None:
                meter.elsewhere(each)
    cached = PlannedCachedStep(method, settings, world, meter, gpu)
    return cached(batch, lambda part: _finished(part, recipe, meter), LATE, settings.precision == "bf16")


def _update(method: Method, optimiser: torch.optim.Optimizer, settings: Settings, losses: Losses, meter: Meter) -> None:
    """What follows the backward pass."""
    meter.phase = meter.label = UPDATE
    torch.nn.utils.clip_grad_norm_(method.parameters(), settings.optimiser.clip or float("inf"), foreach=True)
    optimiser.step()
    method.after_step(LATE, losses.updates)
    optimiser.zero_grad(set_to_none=True)


def _finished(batch: Batch, recipe: Recipe, meter: Meter) -> Batch:
    """What the device does to pictures first."""
    before, meter.label = meter.label, BATCH
    done = finish(batch, recipe.view, recipe.drawn)
    meter.label = before
    return done


def _micro_batches(method: Method, batch: Batch, settings: Settings, world: World, meter: Meter) -> Losses:
    """Forward and backward, in micro-batches where asked."""
    micro = len(batch) // settings.accumulate
    traced = min(settings.accumulate, TRACED)
    meter.times = settings.accumulate / traced
    parts = []
    for part in range(traced):
        some = batch if settings.accumulate == 1 else batch.rows(part * micro, (part + 1) * micro)
        meter.phase, meter.label = FORWARD, LOSSES
        with torch.autocast(_kind(method), torch.bfloat16, enabled=settings.precision == "bf16"):
            losses = method(some, world, LATE)
        total = losses.total / settings.accumulate
        meter.phase = meter.label = BACKWARD
        total.backward()
        parts.append(losses)
    meter.times = 1.0
    updates = {name: [part.updates[name] for part in parts] for name in parts[0].updates}
    share = settings.accumulate // traced
    return replace(losses, updates={name: torch.cat(each * share) for name, each in updates.items()})


def _kind(method: nn.Module) -> str:
    return next(method.parameters()).device.type


def _blocks(method: nn.Module) -> tuple[int, ...]:
    """Bytes of the parameters of every block: a module that stands in a list beside others of its class; and of the rest."""
    blocks = [
        each
        for part in method.modules()
        if isinstance(part, nn.ModuleList | nn.Sequential) and len(part) > 1
        for each in part
        if sum(type(other) is type(each) for other in part) > 1
    ]
    inner = {id(below) for block in blocks for below in block.modules() if below is not block}
    sizes = [_size(block) for block in blocks if id(block) not in inner]
    sizes = [size for size in sizes if size]
    return (*sizes, _size(method) - sum(sizes))


def _size(part: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in part.parameters())
