"""What to run. `RECIPES` is the one list: name -> the function that gives the recipe at a preset."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiway.recipes.recipe import Recipe

RECIPES: dict[str, str] = {
    "albef": "multiway.recipes.albef:albef",
    "bert": "multiway.recipes.bert:bert",
    "clip": "multiway.recipes.clip:clip",
}


def recipe_function(name: str) -> Callable[..., Recipe]:
    """The function of a recipe.

    Raises:
        KeyError: for an unknown name, with the names that exist.
    """
    if name not in RECIPES:
        raise KeyError(f"there is no recipe `{name}`; there are: {', '.join(sorted(RECIPES))}")
    module, _, attribute = RECIPES[name].partition(":")
    return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
