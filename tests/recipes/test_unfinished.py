"""Every run that the command line can begin is read back from its config.json as the recipe that it was."""

import pytest

from multiway.recipes import RECIPES, TUNED, recipe_class, recipe_function
from multiway.recipes.recipe import Recipe


@pytest.mark.parametrize("name", [*RECIPES, *TUNED])
def test_every_recipe_has_a_class(name: str) -> None:
    found = recipe_class(name)
    assert issubclass(found, Recipe) and found.method_name
    assert found.name == name if name in TUNED else isinstance(recipe_function(name)(), found)


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(KeyError, match="no recipe `nothing`"):
        recipe_class("nothing")
