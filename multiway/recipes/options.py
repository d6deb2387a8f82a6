"""A recipe from Python: its name and, as keyword arguments, the options that the command line has."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from multiway.config import ConfigError, from_json, to_json
from multiway.engine.settings import Settings
from multiway.recipes import recipe_function
from multiway.recipes.recipe import Recipe

__all__ = ["named_recipe", "with_options"]


def named_recipe(name: str, preset: str | None = None, options: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe at a preset, with some fields changed.

    Args:
        name: of `RECIPES`.
        preset: None for the recipe's own default, mostly `tiny`.
        options: as of `with_options`.

    Raises:
        ConfigError: for a name, preset or option that there is not, and for a value that does not fit.
    """
    try:
        function = recipe_function(name)
        recipe = function() if preset is None else function(preset)
    except KeyError as error:
        raise ConfigError(str(error.args[0])) from error
    return with_options(recipe, options or {})


def with_options(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """A recipe with other values of some fields.

    Args:
        recipe: to begin from.
        options: by the names of the command line without dashes, those of the loop by themselves: `steps=100`, `data="emoji"`,
            `init="runs/a"`. Fields within fields are dictionaries, `view={"size": 32}`, have dotted names, `{"view.size": 32}`, or
            are made already, `view=ViewSpec(32)`.

    Raises:
        ConfigError: for an option that there is not, with the nearest that there is; and for a value of another kind.
    """
    own = [each.name for each in fields(recipe) if each.name != "settings"]
    loop = [each.name for each in fields(Settings)]
    tree = to_json(recipe)
    for name, value in options.items():
        first = name.partition(".")[0]
        if first not in own and first not in loop and first != "settings":
            near = difflib.get_close_matches(first, [*own, *loop], 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join([*own, *loop])}"
            raise ConfigError(f"recipe `{recipe.name}` has no option {name!r}{hint}")
        _put(tree, (f"settings.{name}" if first in loop and first not in own else name).split("."), value)
    return from_json(type(recipe), tree, recipe.name)


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set one field, or those of a dictionary; what does not exist is put there too, for `from_json` to refuse by name."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _put(tree, [*path, *name.split(".")], inner)
        return
    for name in path[:-1]:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{'.'.join(path)}: {name} is {inner!r}, which has no fields; set it itself")
        tree = inner
    tree[path[-1]] = str(value) if isinstance(value, Path) else to_json(value)
