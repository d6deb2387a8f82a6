"""A recipe from command-line arguments, for whoever starts runs: the `train` verb, comparisons, tests."""

from __future__ import annotations

import inspect
import sys

import tyro

from multiway.recipes import RECIPES, recipe_function
from multiway.recipes.recipe import Recipe

__all__ = ["edited", "parse"]


def parse(args: list[str]) -> Recipe:
    """A recipe from the command line: its name, its preset, then any of its fields.

    Raises:
        SystemExit: on bad usage, as argument parsers do.
    """
    if not args or args[0].startswith("-"):
        asked = bool(args) and args[0] in ("-h", "--help")
        usage = (
            "usage: multiway train RECIPE [options]\n"
            f"recipes: {', '.join(sorted(RECIPES))}; `multiway train RECIPE --help` lists the options"
        )
        print(usage, file=sys.stdout if asked else sys.stderr)
        raise SystemExit(0 if asked else 2)
    name, rest = args[0], args[1:]
    try:
        function = recipe_function(name)
        preset = _preset(rest)
        default = function() if preset is None else function(preset)
    except KeyError as error:
        print(f"multiway train: {error.args[0]}", file=sys.stderr)
        raise SystemExit(2) from error
    return edited(default, rest, f"multiway train {name}", inspect.getdoc(function))


def edited(default: Recipe, args: list[str], prog: str, description: str | None) -> Recipe:
    """A recipe with the fields that the command line names.

    Raises:
        SystemExit: on bad usage.
    """
    try:
        return tyro.cli(
            type(default),
            default=default,
            args=args,
            prog=prog,
            description=description,
            compact_help=True,
            config=(tyro.conf.AvoidSubcommands, tyro.conf.HelptextFromCommentsOff, tyro.conf.FlagCreatePairsOff),
        )
    except ValueError as error:  # values that the fields' own checks refuse
        print(f"{prog.rsplit(' ', 1)[0]}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _preset(args: list[str]) -> str | None:
    """The value of --preset, which must be known before the other defaults are."""
    for place, arg in enumerate(args):
        if arg == "--preset" and place + 1 < len(args):
            return args[place + 1]
        if arg.startswith("--preset="):
            return arg.partition("=")[2]
    return None
