"""`multiway train RECIPE [--preset NAME] [--any-field ...]`."""

from __future__ import annotations

import sys
from dataclasses import replace

from multiway.recipes.command import parse
from multiway.recipes.dry_run import dry_run
from multiway.recipes.training import run_recipe
from multiway.world import World

__all__ = ["parse", "run"]


def run(args: list[str]) -> int:
    """Train; exit code 0 when the run is finished or was asked to stop."""
    recipe = parse(args)
    if recipe.dry_run:
        dry_run(recipe.stages()[0][1])
        return 0
    if not recipe.out:
        recipe = replace(recipe, out=f"runs/{recipe.name}-{recipe.preset}")
    with World.joined() as world:
        for name, part in recipe.stages():
            if name and world.is_main:
                print(f"stage {name}: {part.out}", file=sys.stderr)
            if not run_recipe(part, world).finished:
                break
    return 0
