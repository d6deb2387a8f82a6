"""A recipe from command-line arguments, for whoever starts runs: the `train` verb, comparisons, tests."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any, get_args, get_type_hints

import tyro

from multiway.config import ConfigError
from multiway.nn.backbone import BackboneConfig, named
from multiway.recipes import RECIPES, recipe_function
from multiway.recipes.recipe import Recipe
from multiway.recipes.stages import chained, split_stages

__all__ = ["edited", "parse", "planned"]


def parse(args: list[str], verb: str = "train") -> Recipe:
    """A recipe from the command line: its name, its preset, then any of its fields.

    Args:
        args: of the verb.
        verb: that asks, for messages.

    Raises:
        SystemExit: on bad usage, as argument parsers do.
    """
    if not args or args[0].startswith("-"):
        asked = bool(args) and args[0] in ("-h", "--help")
        usage = (
            f"usage: multiway {verb} RECIPE [options]\n"
            f"recipes: {', '.join(sorted(RECIPES))}; `multiway {verb} RECIPE --help` lists the options"
            + (
                "\nin stages, each from the one before: multiway train RECIPE [options] --stage NAME [its options] --stage NAME ..."
                if verb == "train"
                else ""
            )
        )
        print(usage, file=sys.stdout if asked else sys.stderr)
        raise SystemExit(0 if asked else 2)
    name, rest = args[0], args[1:]
    try:
        function = recipe_function(name)
        preset = _preset(rest)
        default = function() if preset is None else function(preset)
    except KeyError as error:
        print(f"multiway {verb}: {error.args[0]}", file=sys.stderr)
        raise SystemExit(2) from error
    return edited(default, rest, f"multiway {verb} {name}", inspect.getdoc(function))


def planned(args: list[str]) -> tuple[tuple[str, Recipe], ...]:
    """(name, recipe) of every run that the command line asks for: one without a name, or the stages of one that has several.

    Raises:
        SystemExit: on bad usage.
    """
    try:
        shared, stages = split_stages(args)
    except ConfigError as error:
        print(f"multiway train: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    recipe = parse(shared)
    own = recipe.stages()
    if not recipe.out and (len(own) > 1 or stages or not recipe.dry_run):
        recipe = replace(recipe, out=f"runs/{recipe.name}-{recipe.preset}")
    if not stages:
        return recipe.stages()
    if len(own) > 1:
        print(
            f"multiway train: {recipe.name} has stages of its own ({', '.join(name for name, _ in own)}); leave --stage out",
            file=sys.stderr,
        )
        raise SystemExit(2)

    def change(name: str, options: list[str]) -> Callable[[Recipe], Recipe]:
        return lambda part: edited(part, options, f"multiway train {recipe.name} --stage {name}", None)

    return chained(recipe, [(name, change(name, options)) for name, options in stages])


def edited(default: Recipe, args: list[str], prog: str, description: str | None) -> Recipe:
    """A recipe with the fields that the command line names.

    Raises:
        SystemExit: on bad usage.
    """
    try:
        default, rest = _networks(default, args)
        return tyro.cli(
            type(default),
            default=default,
            args=rest,
            prog=prog,
            description=description,
            compact_help=True,
            config=(tyro.conf.AvoidSubcommands, tyro.conf.HelptextFromCommentsOff, tyro.conf.FlagCreatePairsOff),
        )
    except (ValueError, KeyError) as error:  # values that the fields' own checks refuse
        print(f"{prog.rsplit(' ', 1)[0]}: {error.args[0] if error.args else error}", file=sys.stderr)
        raise SystemExit(2) from error


def _networks(config: Any, args: list[str], prefix: str = "") -> tuple[Any, list[str]]:
    """Networks that are named as a whole, `--method.backbone swin-tiny`: their fields are known only then.

    Returns:
        The config with these in it, and the arguments that are left.

    Raises:
        KeyError: if there is no network of that name.
        ValueError: if the name is missing, or the field takes networks of another kind alone.
    """
    hints = get_type_hints(type(config))
    for field, value in ((name, getattr(config, name)) for name in hints if hasattr(config, name)):
        option = f"--{prefix}{field}".replace("_", "-")
        if isinstance(value, BackboneConfig):
            allowed = get_args(hints[field]) or (hints[field],)
            for place, arg in enumerate(args):
                if arg != option and not arg.startswith(f"{option}="):
                    continue
                joined = "=" in arg
                if not joined and place + 1 == len(args):
                    raise ValueError(f"{option} needs the name of a network, such as vit or resnet-50")
                name = arg.partition("=")[2] if joined else args[place + 1]
                chosen = named(name)
                if not isinstance(chosen, allowed):
                    kinds = ", ".join(each.__name__.removesuffix("Config") for each in allowed)
                    raise ValueError(f"{option} {name}: this method's network is of the kind {kinds}")
                config = replace(config, **{field: chosen})
                args = args[:place] + args[place + (1 if joined else 2) :]
                break
        elif is_dataclass(value) and any(arg.startswith(f"{option}.") for arg in args):
            inner, args = _networks(value, args, f"{prefix}{field}.")
            config = config if inner is value else replace(config, **{field: inner})
    return config, args


def _preset(args: list[str]) -> str | None:
    """The value of --preset, which must be known before the other defaults are."""
    for place, arg in enumerate(args):
        if arg == "--preset" and place + 1 < len(args):
            return args[place + 1]
        if arg.startswith("--preset="):
            return arg.partition("=")[2]
    return None
