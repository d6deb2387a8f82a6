"""`multiway plan RECIPE [recipe options] --gpu h200 --gpus 8`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import tyro
from rich.console import Console

from multiway.cli.output import print_json
from multiway.recipes.command import parse
from multiway.recipes.recipe import Recipe
from multiway.workflows.plan import plan
from multiway.workflows.plan_batch import open_rows
from multiway.workflows.plan_check import measured
from multiway.workflows.plan_devices import PlanError, accelerator
from multiway.workflows.plan_fit import Option, fit, proposed
from multiway.workflows.plan_ranks import Hardware, Shard
from multiway.workflows.plan_report import command, duration, option_json, show_measured, show_options, show_plan

__all__ = ["PlanOptions", "run"]


@dataclass(frozen=True)
class PlanOptions:
    """Say what a run will take, before it takes anything: memory, time, money; and with --fit, what to switch on.

    Beside these options stand those of `multiway train RECIPE`: --preset, --batch, --precision, --steps, --data, ...

    Attributes:
        gpu: the device: a100-40, a100-80, h100, h200, b200, l4, t4, rtx4090, mi300x; `this` measures the GPU that is here, or the
            processor; `cpu` the processor.
        gpus: devices of a node.
        nodes: how many.
        network: GB/s that one device sends to other nodes; 50 is a port of 400 Gbit/s for each.
        measured_rate: TFLOP/s that large products reach on the device, instead of a share of its data sheet's.
        memory: GiB of the device, if others than its data sheet's.
        headroom: share of the memory that is left free.
        tokens: of the longest text of a batch; by default what the data have, or the context where they are not here.
        samples: rows of data that are not here.
        price: of a device for an hour.
        check: train a few steps as well, on the one device that is here, and print what they took beside the plan.
        fit: if it does not fit, plan everything that makes it smaller, and propose a command line.
        json: print one JSON object.
    """

    gpu: str = "this"
    gpus: int = 1
    nodes: int = 1
    network: float = 50.0
    measured_rate: float = 0.0
    memory: float = 0.0
    headroom: float = 0.1
    tokens: int = 0
    samples: int = 0
    price: float = 0.0
    check: bool = False
    fit: bool = False
    json: bool = False


_CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)


def run(args: list[str]) -> int:
    """Plan; exit code 1 where nothing that was planned fits."""
    if not args or args[0].startswith("-"):
        tyro.cli(PlanOptions, args=["--help"], prog="multiway plan RECIPE", config=_CONFIG)
    asked, rest = tyro.cli(
        PlanOptions, args=args[1:], prog=f"multiway plan {args[0]}", return_unknown_args=True, config=_CONFIG
    )
    given = [args[0], *rest]
    recipe = parse(given, "plan")
    if recipe.settings.threads:
        torch.set_num_threads(recipe.settings.threads)
    if asked.gpu == "cpu":
        recipe = replace(recipe, settings=replace(recipe.settings, device="cpu"))
    device = accelerator(asked.gpu, asked.measured_rate, asked.memory)
    if asked.check and (asked.gpu not in ("this", "cpu") or asked.gpus * asked.nodes > 1):
        raise PlanError(
            "--check trains on the one device that is here: plan for --gpu this or --gpu cpu, and for one device"
        )
    hardware = Hardware(device, asked.gpus, asked.nodes, asked.network * 1e9, asked.headroom, asked.price)
    try:
        found = [_stage(name, part, asked, hardware, given) for name, part in recipe.stages()]
    except ValueError as error:  # of a batch that does not divide, or what the method refuses
        raise error if type(error).__module__.startswith("multiway.") else PlanError(str(error)) from error
    if asked.json:
        print_json({"stages": [said for said, _ in found]} if len(found) > 1 else found[0][0])
    elif len(found) > 1:
        hours = sum(said["run"]["hours"] for said, _ in found)
        print(f"all stages: {duration(3600 * hours)}, {hours * hardware.ranks:,.1f} device hours")
    return int(not all(fits for _, fits in found))


def _stage(
    name: str, recipe: Recipe, asked: PlanOptions, hardware: Hardware, given: list[str]
) -> tuple[dict[str, Any], bool]:
    """Plan one run of a recipe, and print it: the plan as JSON, and whether something fits."""
    rows = open_rows(recipe, asked.tokens, asked.samples)
    shard: Shard = getattr(recipe.settings, "shard", "none")
    options = (
        fit(recipe, rows, hardware, shard)
        if asked.fit
        else [Option(("as asked",), recipe, plan=plan(recipe, rows, hardware, shard))]
    )
    first, best = options[0].plan, proposed(options)
    assert first is not None
    said = first.to_json() | ({"stage": name} if name else {})
    if asked.fit:
        said["options"] = [option_json(each) for each in options]
        said["proposed"] = None if best is None else command(given, best, hardware)
    real = measured(first.recipe) if asked.check else None
    if real is not None:
        said["measured"] = {"memory": real.peak, "step": real.seconds}
    if not asked.json:
        console = Console()
        show_plan(first, console, name)
        if real is not None:
            show_measured(first, real, console)
        if len(options) > 1:
            show_options(options, given, console)
        elif not first.fits:
            console.print("--fit plans what makes it smaller", highlight=False)
    return said, best is not None
