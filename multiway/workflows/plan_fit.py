"""What to switch on so that a recipe fits: each way is planned like the recipe itself, and the fastest that fits is proposed.

The ways, roughly by their price: 16 bits, which are faster besides; sharing parameters, gradients and moments among ranks, which
costs messages; recomputing blocks, a third more work; micro-batches. Where a row's loss depends on other rows, micro-batches are those
of gradient caching, which encodes twice and changes nothing; accumulation there changes the loss, and says so, as does a shorter
queue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from multiway.config import ConfigError
from multiway.engine.settings import Settings
from multiway.recipes.recipe import Recipe
from multiway.workflows.plan import Plan, choose_planned_precision, plan
from multiway.workflows.plan_batch import SAMPLE, Rows
from multiway.workflows.plan_ranks import Hardware, Shard
from multiway.workflows.plan_step import BUFFERS, trace

__all__ = ["Option", "checkpoint_flags", "compares_rows", "fit", "proposed"]

_FIELDS = {each.name for each in fields(Settings)}
_ALONE = "a row is compared with the rows of its micro-batch alone"


@dataclass(frozen=True)
class Option:
    """One way to run a recipe.

    Attributes:
        names: what is switched on.
        arguments: of `multiway train`, beside those that were given.
        recipe, shard, checkpoint: as of `plan`.
        plan: what it takes; None where it cannot be done.
        refused: why not.
        changes: what is computed otherwise than was asked for; empty where it is the same.
    """

    names: tuple[str, ...]
    recipe: Recipe
    arguments: tuple[str, ...] = ()
    shard: Shard = "none"
    checkpoint: bool = False
    changes: str = ""
    plan: Plan | None = None
    refused: str = ""

    @property
    def fits(self) -> bool:
        """Whether it can be done, in the memory that there is."""
        return self.plan is not None and self.plan.fits

    def with_settings(self, name: str, *arguments: str, **changed: Any) -> Option:
        """This, with further settings."""
        recipe = replace(self.recipe, settings=replace(self.recipe.settings, **changed))
        return replace(self, names=(*self.names, name), arguments=(*self.arguments, *arguments), recipe=recipe)


def compares_rows(recipe: Recipe, rows: Rows, ranks: int = 2) -> bool:
    """Whether a row's loss depends on other rows of its batch: a rank among several would then ask for those of others."""
    settings = replace(recipe.settings, batch=ranks * SAMPLE, accumulate=1, cache=0, cache_bf16=False, cache_on_cpu=False)
    return trace(replace(recipe, settings=settings), rows, ranks).sent > 0


def checkpoint_flags(config: Any, prefix: str = "--method") -> tuple[str, ...]:
    """The options of `multiway train` by which a method's transformers recompute their blocks."""
    found: list[str] = []
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name == "checkpoint" and value is False:
            found.append(f"{prefix}.checkpoint")
        elif is_dataclass(value):
            found += checkpoint_flags(value, f"{prefix}.{each.name.replace('_', '-')}")
    return tuple(found)


@dataclass
class _Search:
    """Plans options on one piece of hardware; none twice."""

    rows: Rows
    hardware: Hardware
    done: dict[Any, Any] = field(default_factory=dict)

    def planned(self, option: Option) -> Option:
        """The option with its plan, or with why there is none. What ranks share changes the arithmetic, not the trace."""
        key = (option.recipe, option.checkpoint)
        try:
            if key not in self.done:
                self.done[key] = plan(option.recipe, self.rows, self.hardware, option.shard, option.checkpoint)
        except (ValueError, ConfigError) as error:
            self.done[key] = str(error)
        found = self.done[key]
        if isinstance(found, str):
            return replace(option, refused=found)
        return replace(option, plan=replace(found, shard=option.shard))

    def in_micro_batches(self, option: Option, kind: str) -> Option:
        """The option with the largest micro-batches that fit: memory grows with their rows in a straight line, by which the size is
        found before it is planned."""
        own = option.recipe.settings.batch // self.hardware.ranks
        divisors = [size for size in range(1, own) if own % size == 0]
        sizes = [size for size in divisors if size & (size - 1) == 0] or divisors or [own]

        def at(size: int) -> Option:
            if kind == "cache":
                return self.planned(option.with_settings(f"gradient caching by {size}", "--cache", str(size), cache=size))
            parts = own // size
            return self.planned(option.with_settings(f"accumulation of {parts}", "--accumulate", str(parts), accumulate=parts))

        place = min(3, len(sizes) - 1)
        small, larger = at(sizes[0]), at(sizes[place])
        if small.plan is None or larger.plan is None or place == 0:
            return larger
        slope = (larger.plan.peak - small.plan.peak) / (sizes[place] - sizes[0])
        room = self.hardware.usable - small.plan.peak
        wanted = [size for size in sizes if slope * (size - sizes[0]) <= room] or sizes[:1]
        found = at(wanted[-1])
        while not found.fits and len(wanted) > 1:
            wanted.pop()
            found = at(wanted[-1])
        return found


def fit(recipe: Recipe, rows: Rows, hardware: Hardware, shard: Shard = "none") -> list[Option]:
    """Plans of a recipe as it is and, if that does not fit, with what makes it smaller.

    Raises:
        ValueError: if the recipe cannot be planned as it is.
    """
    search = _Search(rows, hardware)
    recipe = choose_planned_precision(recipe, hardware.accelerator)
    first = Option(("as asked",), recipe, shard=shard)
    first = replace(first, plan=plan(recipe, rows, hardware, shard))
    return [first] if first.fits else [first, *_others(replace(first, names=(), plan=None), search)]


def _others(base: Option, search: _Search) -> Iterator[Option]:
    """Everything that can be switched on."""
    device, settings = search.hardware.accelerator, base.recipe.settings
    if settings.precision == "fp32" and device.half > device.full:
        base = base.with_settings("bf16", "--precision", "bf16", precision="bf16")
        yield search.planned(base)
    flags = checkpoint_flags(base.recipe.method)
    names = (*base.names, "recomputed blocks")
    recomputed = [replace(base, names=names, arguments=(*base.arguments, *flags), checkpoint=True)] if flags else []
    ways = [base, *recomputed]
    shared: list[Option] = []
    if search.hardware.ranks > 1 and base.shard == "none" and "shard" in _FIELDS:
        kinds: Sequence[Shard] = ("hybrid", "full") if search.hardware.nodes > 1 else ("full",)
        shared = [
            replace(way, names=(*way.names, f"shard {kind}"), arguments=(*way.arguments, "--shard", kind), shard=kind)
            for kind in kinds
            for way in ways
        ]
    for way in (*recomputed, *shared):
        yield search.planned(way)
    if settings.accumulate == 1 and settings.cache == 0:
        compared = compares_rows(base.recipe, search.rows)
        for way in (*ways, *shared[-1:]):
            if compared and way.shard == "none":
                yield search.in_micro_batches(way, "cache")
            if not compared or way is (ways + shared)[-1]:
                yield search.in_micro_batches(replace(way, changes=_ALONE if compared else ""), "accumulate")
    yield from _shorter_queue(base, search)


def _shorter_queue(base: Option, search: _Search) -> Iterator[Option]:
    """Fewer negatives, where those that are kept take room."""
    queue = getattr(base.recipe.method, "queue", 0)
    kept = search.planned(base).plan
    if kept is None or not isinstance(queue, int) or kept.memory.get(BUFFERS, 0) < 0.05 * kept.peak:
        return
    fewer = queue // 4
    recipe = replace(base.recipe, method=replace(base.recipe.method, queue=fewer))
    changes = f"{fewer:,} negatives from earlier steps instead of {queue:,}"
    arguments = (*base.arguments, "--method.queue", str(fewer))
    names = (*base.names, "a quarter of the queue")
    yield search.planned(replace(base, names=names, recipe=recipe, arguments=arguments, changes=changes))


def proposed(options: Sequence[Option]) -> Option | None:
    """The fastest option that fits, of those that change nothing if there is one; None where none fits."""
    fitting = [each for each in options if each.fits]
    if not fitting:
        return None
    return min(fitting, key=lambda each: (bool(each.changes), each.plan.step_seconds if each.plan else 0.0))
