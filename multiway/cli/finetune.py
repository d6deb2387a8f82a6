"""`multiway finetune RUN --task vqa [--data ...] [--any-field ...]`."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from pathlib import Path

from multiway.recipes.classifier import classify
from multiway.recipes.command import edited
from multiway.recipes.dry_run import dry_run
from multiway.recipes.finetune import finetune
from multiway.recipes.recipe import Recipe
from multiway.recipes.training import run_recipe
from multiway.world import World

__all__ = ["run"]

_USAGE = "usage: multiway finetune RUN --task TASK [options]; `multiway finetune RUN --help` lists them"


def run(args: list[str]) -> int:
    """Tune; exit code 0 when the run is finished or was asked to stop."""
    if not args or args[0].startswith("-"):
        asked = bool(args) and args[0] in ("-h", "--help")
        print(_USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    trained, rest = args[0], args[1:]
    # The task decides what is measured, so it must be known before the other defaults are.
    task = _task(rest)
    recipe: Recipe
    if task == "classification":
        recipe = edited(classify(trained), rest, "multiway finetune RUN", inspect.getdoc(classify))
    else:
        recipe = edited(finetune(trained, task), rest, "multiway finetune RUN", inspect.getdoc(finetune))
    if recipe.dry_run:
        dry_run(recipe)
        return 0
    if not recipe.out:
        recipe = replace(recipe, out=f"runs/{_name(trained)}-{task}")
    with World.joined() as world:
        run_recipe(recipe, world)
    return 0


def _task(args: list[str]) -> str:
    """The value of --task; `vqa` without one."""
    for place, arg in enumerate(args):
        if arg == "--task" and place + 1 < len(args):
            return args[place + 1]
        if arg.startswith("--task="):
            return arg.partition("=")[2]
    return "vqa"


def _name(trained: str) -> str:
    """What the tuned run is called after: the run, its folder, or the name of an `hf:` model."""
    path = Path(trained.removeprefix("hf:"))
    return path.parent.name if path.suffix == ".safetensors" and path.stem == "model" else path.name
