"""`multiway finetune RUN --task vqa [--data ...] [--any-field ...]`.

The task decides what a run gets (`recipes/tuning.py`); each is a recipe of its own, whose fields are the options.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace

from multiway.recipes.command import edited
from multiway.recipes.dry_run import dry_run
from multiway.recipes.training import run_recipe
from multiway.recipes.tuning import folder_of, tuning, ways
from multiway.world import World

__all__ = ["run"]

_USAGE = "usage: multiway finetune RUN --task TASK [options]; `multiway finetune RUN --task TASK --help` lists them"


def run(args: list[str]) -> int:
    """Tune; exit code 0 when the run is finished or was asked to stop."""
    if not args or args[0].startswith("-"):
        asked = bool(args) and args[0] in ("-h", "--help")
        print(f"{_USAGE}\ntasks: {', '.join(ways())}", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    trained, rest = args[0], args[1:]
    # The task decides what is measured, so it must be known before the other defaults are.
    task = _task(rest)
    start = tuning(trained, task)
    recipe = edited(start, rest, "multiway finetune RUN", inspect.getdoc(ways()[task]))
    if recipe.dry_run:
        dry_run(recipe)
        return 0
    if not recipe.out:
        recipe = replace(recipe, out=folder_of(trained, task))
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
