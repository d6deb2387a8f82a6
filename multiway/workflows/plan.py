"""What a run will take: memory, time, money, and what decides them, from its shapes and a device's rates.

No formula of any method is in here: one step is run on hollow tensors (`plan_step.py`), and its operations are put on the roofline of
the device (Williams, Waterman, Patterson, Roofline, 2009, doi 10.1145/1498765.1498785): each takes as long as its products at the matrix
rate or its traffic at the bandwidth, whatever is longer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from multiway.recipes.recipe import Recipe
from multiway.workflows.plan_batch import Rows
from multiway.workflows.plan_devices import Accelerator
from multiway.workflows.plan_meter import BACKWARD, FORWARD, UPDATE, Operation
from multiway.workflows.plan_ranks import Hardware, Shard, communication, sharded_memory
from multiway.workflows.plan_step import Trace, trace

__all__ = ["Plan", "choose_planned_precision", "plan"]

STARTING = "starting operations"
ATTENTION = ("_scaled_dot_product", "bmm", "baddbmm", "_softmax")


@dataclass(frozen=True)
class Plan:
    """A recipe on hardware.

    Attributes:
        recipe: precision decided, batch and micro-batches as planned.
        hardware: what it runs on.
        trace: one rank's step.
        shard: what ranks share.
        samples: rows of the data; 0 where they are not known.
        seconds_per_row: in which one process of this machine makes a row ready; 0 where it is not known.
        why_not: why made-up rows stand for the data.
    """

    recipe: Recipe
    hardware: Hardware
    trace: Trace
    shard: Shard
    samples: int
    seconds_per_row: float
    why_not: str

    @cached_property
    def memory(self) -> dict[str, float]:
        """Bytes of one rank at the peak, by what they are for, the most first."""
        found = sharded_memory(self.trace, self.hardware, self.shard)
        return dict(sorted(found.items(), key=lambda each: -each[1]))

    @property
    def peak(self) -> float:
        """Bytes of one rank."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether a rank's memory holds it, less the headroom."""
        return self.peak <= self.hardware.usable

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Of one step, by what they go into, the most first."""
        device = self.hardware.accelerator
        found: Counter[str] = Counter()
        phases: Counter[str] = Counter()
        for each in self.trace.operations:
            taken = each.times * device.seconds(each)
            found[_kind(each, device)] += taken  # type: ignore[assignment]
            phases[each.phase] += taken  # type: ignore[assignment]
        starting = device.overhead * sum(each.times for each in self.trace.operations)
        # A GPU works while the host starts what comes next.
        found[STARTING] = max(0.0, starting - sum(found.values())) if device.gpu else starting  # type: ignore[assignment]
        apart = self.recipe.settings.cache > 0
        waits = communication(self.trace, self.hardware, self.shard, phases[BACKWARD], phases[FORWARD], apart)
        found.update({f"links: {name}": value for name, value in waits.items()})  # type: ignore[arg-type]
        return {name: value for name, value in found.most_common() if value > 0}

    @property
    def step_seconds(self) -> float:
        """Of one optimiser step."""
        return sum(self.seconds.values())

    @property
    def hours(self) -> float:
        """Of all steps; evaluation, checkpoints and what goes wrong are not in it."""
        return self.recipe.settings.steps * self.step_seconds / 3600

    @property
    def used(self) -> float:
        """Share of the device's matrix rate that its products come to (MFU)."""
        device = self.hardware.accelerator
        best = device.half if self.recipe.settings.precision == "bf16" else device.full
        return self.trace.flops / self.step_seconds / best

    @property
    def bottleneck(self) -> str:
        """What most of the time goes into, and what helps."""
        kind = next(iter(self.seconds))
        share = self.seconds[kind] / self.step_seconds
        return f"{kind}, {share:.0%} of a step: {_REMEDIES[kind.partition(':')[0]]}"

    @property
    def workers(self) -> int:
        """Processes per rank that make rows ready as fast as a step takes them, by this machine's pace; 0 where it is not known."""
        return -(-int(1000 * self.seconds_per_row * self.trace.rows / self.step_seconds) // 1000)

    def to_json(self) -> dict[str, Any]:
        """Everything as one object. Bytes, seconds, FLOP."""
        settings, device = self.recipe.settings, self.hardware.accelerator
        return {
            "recipe": self.recipe.name,
            "preset": self.recipe.preset,
            "device": {"name": device.name, "memory": device.memory, "source": device.source, "rate": device.rate(True)},
            "ranks": self.hardware.ranks,
            "batch": settings.batch,
            "precision": settings.precision,
            "accumulate": settings.accumulate,
            "cache": settings.cache,
            "shard": self.shard,
            "parameters": self.trace.parameters,
            "learnt": self.trace.learnt,
            "tokens": self.trace.tokens,
            "memory": {"peak": self.peak, "usable": self.hardware.usable, "fits": self.fits, "parts": self.memory, "host": self.trace.host},
            "time": {
                "step": self.step_seconds,
                "parts": self.seconds,
                "rows_per_second": settings.batch / self.step_seconds,
                "flops": self.trace.flops,
                "used": self.used,
                "bottleneck": self.bottleneck,
            },
            "run": {
                "steps": settings.steps,
                "hours": self.hours,
                "device_hours": self.hours * self.hardware.ranks,
                "price": self.hours * self.hardware.ranks * self.hardware.price,
                "epochs": settings.steps * settings.batch / self.samples if self.samples else None,
                "workers": self.workers,
            },
            "assumed": [*([self.why_not] if self.why_not else []), *self.trace.assumed],
        }  # fmt: skip


_REMEDIES = {
    "products": "what a device is there for; a faster one, a smaller model or fewer tokens help",
    "attention": "grows with the square of the tokens: larger patches, shorter texts",
    "memory traffic": "additions, norms and copies wait for the memory: --compile fuses them, a larger width shrinks their share",
    "optimiser": "the same for any batch: a larger batch per device shrinks its share",
    STARTING: "operations are too small for the device: a larger batch per device, or --compile",
    "links": "more rows per device, fewer nodes, or hybrid sharding instead of full",
}


def _kind(operation: Operation, device: Accelerator) -> str:
    """What the time of an operation counts as."""
    if operation.phase == UPDATE:
        return "optimiser"
    if operation.name.startswith(ATTENTION):
        return "attention"
    by_products = operation.flops / device.rate(operation.half)
    return "products" if by_products >= operation.bytes / device.traffic else "memory traffic"


def choose_planned_precision(recipe: Recipe, device: Accelerator) -> Recipe:
    """The recipe with `auto` precision decided for the device it is planned for."""
    if recipe.settings.precision != "auto":
        return recipe
    half = device.half > device.full
    return replace(recipe, settings=replace(recipe.settings, precision="bf16" if half else "fp32"))


def plan(recipe: Recipe, rows: Rows, hardware: Hardware, shard: Shard = "none", checkpoint: bool = False) -> Plan:
    """Plan a recipe.

    Args:
        recipe: with its batch, micro-batches and precision; `auto` precision is what suits the device.
        rows: of its data, or in their place (`plan_batch.open_rows`).
        hardware: devices and links.
        shard: what ranks share.
        checkpoint: recompute the blocks of transformers in the backward pass.

    Raises:
        ValueError: for a batch that does not divide into ranks and micro-batches, and for what the method refuses.
    """
    recipe = choose_planned_precision(recipe, hardware.accelerator)
    found = trace(recipe, rows, hardware.ranks, gpu=hardware.accelerator.gpu, checkpoint=checkpoint)
    return Plan(recipe, hardware, found, shard, rows.samples, rows.seconds, rows.why_not)
