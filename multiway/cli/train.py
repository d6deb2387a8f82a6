"""`multiway train RECIPE [--preset NAME] [--any-field ...] [--stage NAME [--any-field ...]] ...`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from multiway.recipes.command import parse, planned
from multiway.recipes.dry_run import dry_run
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import run_recipe
from multiway.world import World

__all__ = ["parse", "run"]


def run(args: list[str]) -> int:
    """Train, stage after stage where there are several; exit code 0 when all are finished or one was asked to stop."""
    stages = planned(args)
    if stages[0][1].dry_run:
        _show(stages)
        return 0
    with World.joined() as world:
        for name, part in stages:
            if name and world.is_main:
                print(f"stage {name} of {len(stages)}: {part.out}", file=sys.stderr)
            finished = run_recipe(part, world).finished
            world.barrier()  # the next stage reads the weights that the main rank has written
            if not finished:
                break
    return 0


def _show(stages: tuple[tuple[str, Recipe], ...]) -> None:
    """Every stage without training it. One that begins from another's weights is shown at random until these are there."""
    before: set[str] = set()
    for name, part in stages:
        if name:
            print(f"\nstage {name} of {len(stages)}: {part.out}", flush=True)
        if part.init in before and not (Path(part.init) / "model.safetensors").is_file():
            print(f"begins from {part.init}, which is not trained yet: shown with random weights", flush=True)
            part = replace(part, init="", init_context=0, init_except=())
        before.add(part.out)
        dry_run(part)
