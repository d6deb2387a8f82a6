"""Recipes on data that are opened in a moment."""

from multiway.recipes.command import parse
from multiway.recipes.recipe import Recipe

SCENES = "scenes:easy,objects=1-3,samples=256"


def small(*args: str) -> Recipe:
    """A recipe's name and its options."""
    quick = ["--device", "cpu", "--tokenizer.vocabulary", "300"]
    return parse([args[0], "--data", SCENES, "--precision", "fp32", *quick, *args[1:]])
