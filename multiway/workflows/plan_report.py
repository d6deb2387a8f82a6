"""A plan for people: where the memory goes, where the time goes, what decides, what it comes to, and what to type."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiway.workflows.plan import Plan
from multiway.workflows.plan_check import Measured
from multiway.workflows.plan_fit import Option, proposed
from multiway.workflows.plan_ranks import Hardware

__all__ = ["command", "duration", "option_json", "show_measured", "show_options", "show_plan"]

_SMALL = 0.01
"""Share of the whole below which parts of a table are put together."""

OTHERS = "all else"


def size(value: float) -> str:
    """Bytes, for people."""
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds, for people."""
    for unit, length in (("days", 86_400 * 2), ("h", 3600), ("min", 120)):
        if seconds >= length:
            return f"{seconds / {'days': 86_400, 'h': 3600, 'min': 60}[unit]:.1f} {unit}"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def work(flops: float) -> str:
    """FLOP, for people."""
    for unit, scale in (("PFLOP", 1e15), ("TFLOP", 1e12)):
        if flops >= scale:
            return f"{flops / scale:,.1f} {unit}"
    return f"{flops / 1e9:,.1f} GFLOP"


def _together(parts: dict[str, float]) -> dict[str, float]:
    """Parts, the smallest as one."""
    whole = sum(parts.values())
    large = {name: value for name, value in parts.items() if value >= _SMALL * whole}
    rest = whole - sum(large.values())
    return large | ({OTHERS: rest} if rest > 0 else {})


def _shares(title: str, parts: dict[str, float], show: Callable[[float], str]) -> Table:
    table = Table("", "", "", title=title, show_header=False)
    for column in table.columns[1:]:
        column.justify = "right"
    whole = sum(parts.values())
    for name, value in _together(parts).items():
        table.add_row(escape(name), show(value), f"{value / whole:.0%}")
    return table


def show_plan(plan: Plan, console: Console, title: str = "") -> None:
    """Print a plan."""
    settings, trace, hardware = plan.recipe.settings, plan.trace, plan.hardware
    device, ranks = hardware.accelerator, hardware.ranks
    micro = settings.cache or trace.rows // settings.accumulate
    ways = [f"batch {settings.batch:,}"]
    if ranks > 1:
        ways.append(f"{trace.rows:,} rows on each of {ranks} devices")
    if micro != trace.rows:
        ways.append(f"micro-batches of {micro:,} ({'gradient caching' if settings.cache else 'accumulated'})")
    ways.append(settings.precision)
    if plan.shard != "none":
        ways.append(f"shard {plan.shard}")
    learnt = f", {trace.learnt / 1e6:,.1f} M of which learn" if trace.learnt < trace.parameters else ""
    said = f"{title or plan.recipe.name} {plan.recipe.preset}: {trace.parameters / 1e6:,.1f} M parameters{learnt}; {', '.join(ways)}"
    console.print(said, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{device.name}: {device.source}", highlight=False, markup=False, soft_wrap=True)
    notes = [f"made-up rows stand for the data: {plan.why_not}"] if plan.why_not else []
    notes += [f"texts of up to {trace.tokens} tokens"] if trace.tokens else []
    for note in (*notes, *(f"assumed: {each}" for each in trace.assumed)):
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    console.print(_shares("memory of a device at its peak", plan.memory, size))
    verdict = "fits" if plan.fits else "[bold]does not fit[/]"
    console.print(
        f"{size(plan.peak)} of {size(hardware.usable)} ({size(device.memory)}, {hardware.headroom:.0%} left free): {verdict}"
    )
    if trace.host:
        console.print(f"and {size(trace.host)} of main memory for each device", highlight=False)
    console.print(_shares("time of a step", plan.seconds, duration))
    console.print(
        f"{duration(plan.step_seconds)} a step, {settings.batch / plan.step_seconds:,.0f} rows a second, "
        f"{work(trace.flops * ranks)}, {plan.used:.0%} of the matrix rate",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"most: {plan.bottleneck}", highlight=False, markup=False, soft_wrap=True)
    console.print(_run(plan), highlight=False, markup=False, soft_wrap=True)


def _run(plan: Plan) -> str:
    """What the whole run comes to."""
    settings, hardware = plan.recipe.settings, plan.hardware
    said = [f"{settings.steps:,} steps"]
    if plan.samples and not plan.why_not:
        said.append(f"{settings.steps * settings.batch / plan.samples:,.1f} epochs of {plan.samples:,} rows")
    said.append(duration(3600 * plan.hours))
    hours = plan.hours * hardware.ranks
    if hardware.ranks > 1:
        said.append(f"{hours:,.1f} device hours")
    if hardware.price:
        said.append(f"{hours * hardware.price:,.2f} at {hardware.price:g} an hour")
    if plan.workers:
        said.append(
            f"{plan.workers} worker{'s' * (plan.workers > 1)} per device to read as fast, by this machine's pace"
        )
    return ", ".join(said)


def show_measured(plan: Plan, real: Measured, console: Console) -> None:
    """Print what a few steps took beside what was planned."""
    table = Table("", "planned", "measured", "planned / measured", title="a few steps of training")
    table.add_row("memory", size(plan.peak), size(real.peak), f"{plan.peak / real.peak:.2f}")
    taken = real.seconds
    table.add_row("a step", duration(plan.step_seconds), duration(taken), f"{plan.step_seconds / taken:.2f}")
    console.print(table)


def show_options(options: Sequence[Option], given: Sequence[str], console: Console) -> None:
    """Print what can be switched on, and the command line that is proposed."""
    table = Table("what is switched on", "memory", "", "a step", title="ways to fit")
    for column in table.columns[1:]:
        column.justify = "right"
    best = proposed(options)
    for each in options:
        name = escape(" + ".join(each.names) + (f" ({each.changes})" if each.changes else ""))
        if each.plan is None:
            table.add_row(name, "-", "no", "-")
            continue
        verdict = "fits" if each.fits else "too large"
        style = "bold" if each is best else ""
        table.add_row(name, size(each.plan.peak), verdict, duration(each.plan.step_seconds), style=style)
    console.print(table)
    for each in options:
        if each.refused:
            console.print(f"{' + '.join(each.names)}: {each.refused}", highlight=False, markup=False, soft_wrap=True)
    if best is None or best.plan is None:
        console.print("nothing of this fits: take more devices or larger ones, or a smaller batch", highlight=False)
        return
    console.print(f"fastest that fits: {' + '.join(best.names)}", highlight=False, markup=False, soft_wrap=True)
    print(command(given, best, best.plan.hardware))


def option_json(option: Option) -> dict[str, Any]:
    """An option as one object."""
    plan = option.plan
    return {
        "names": list(option.names),
        "arguments": list(option.arguments),
        "changes": option.changes,
        "refused": option.refused,
        "fits": option.fits,
        "memory": plan and plan.peak,
        "step": plan and plan.step_seconds,
    }


def command(given: Sequence[str], option: Option, hardware: Hardware) -> str:
    """The command line that starts an option.

    Args:
        given: the recipe's name and options as they were given.
    """
    train = ["train", *given, *option.arguments]
    if hardware.ranks == 1:
        return shlex.join(["multiway", *train])
    where = ["--standalone"]
    if hardware.nodes > 1:  # the first node's name is the reader's to fill in
        where = ["--nnodes", str(hardware.nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", "NODE1:29400"]
    return shlex.join(["torchrun", *where, "--nproc-per-node", str(hardware.gpus), "-m", "multiway", *train])
