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
from multiway.workflows.plan_meter import BUFFERS
from multiway.workflows.plan_ranks import Hardware, Shard, sharded_memory
from multiway.workflows.plan_step import trace

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
    settings = replace(
        recipe.settings, batch=ranks * SAMPLE, accumulate=1, cache=0, cache_bf16=False, cache_on_cpu=False
    )
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
        """The option with micro-batches about as large as fit: what a step adds to what stays grows with the rows, by which their
        number is estimated; it is halved until the plan fits."""
        own = option.recipe.settings.batch // self.hardware.ranks
        divisors = [size for size in range(1, own) if own % size == 0]
        sizes = [size for size in divisors if size & (size - 1) == 0] or divisors or [own]
        whole = self.planned(option).plan
        if whole is not None:
            stays = sum(sharded_memory(whole.trace, self.hardware, option.shard, persistent=True).values())
            each = (whole.peak - stays) / own
            sizes = [size for size in sizes if stays + size * each < self.hardware.usable] or sizes[:1]
        while True:
            size = sizes.pop()
            if kind == "cache":
                made = option.with_settings(f"gradient caching by {size}", "--cache", str(size), cache=size)
            else:
                parts = own // size
                made = option.with_settings(f"accumulation of {parts}", "--accumulate", str(parts), accumulate=parts)
            found = self.planned(made)
            if found.fits or not sizes or found.plan is None:
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
    """What can be switched on: one thing at a time, then together what alone is not enough; what changes the loss only where nothing
    else fits."""
    device, settings = search.hardware.accelerator, base.recipe.settings
    found: list[Option] = []
    if settings.precision == "fp32" and device.half > device.full:
        base = base.with_settings("bf16", "--precision", "bf16", precision="bf16")
        found.append(search.planned(base))
        yield found[-1]
    ways = [base]
    if flags := checkpoint_flags(base.recipe.method):
        names = (*base.names, "recomputed blocks")
        ways.append(replace(base, names=names, arguments=(*base.arguments, *flags), checkpoint=True))
    shared: list[Option] = []
    if search.hardware.ranks > 1 and base.shard == "none" and "shard" in _FIELDS:
        kinds: Sequence[Shard] = ("hybrid", "full") if search.hardware.nodes > 1 else ("full",)
        shared = [_shared(way, kind) for kind in kinds for way in ways]
    divided = settings.accumulate == 1 and settings.cache == 0
    compared = divided and compares_rows(base.recipe, search.rows)
    kind = "cache" if compared else "accumulate"
    for way in ways[1:]:
        found.append(search.planned(way))
        yield found[-1]
    for way in ways if divided and (base.shard == "none" or not compared) else ():
        if way is base or not any(each.fits for each in found):
            found.append(search.in_micro_batches(way, kind))
            yield found[-1]
    for way in shared:
        found.append(search.planned(way))
        yield found[-1]
    if shared and divided and not compared and not any(each.fits for each in found):
        found.append(search.in_micro_batches(shared[-1], kind))
        yield found[-1]
    if not any(each.fits for each in found):
        yield from _shorter_queue(base, search)
        if compared:
            yield search.in_micro_batches(replace((ways + shared)[-1], changes=_ALONE), "accumulate")


def _shared(way: Option, kind: Shard) -> Option:
    """The same, with parameters, gradients and moments shared."""
    return replace(way, names=(*way.names, f"shard {kind}"), arguments=(*way.arguments, "--shard", kind), shard=kind)


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
