"""What to run. `RECIPES` is the one list: name -> the function that gives the recipe at a preset."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiway.recipes.recipe import Recipe

RECIPES: dict[str, str] = {
    "albef": "multiway.recipes.albef:albef",
    "albef-ta": "multiway.recipes.albef_ta:albef_ta",
    "bert": "multiway.recipes.bert:bert",
    "blip": "multiway.recipes.blip:blip",
    "clip": "multiway.recipes.clip:clip",
    "slip": "multiway.recipes.bridges:slip",
    "declip": "multiway.recipes.bridges:declip",
    "flip": "multiway.recipes.flip:flip",
    "clipa": "multiway.recipes.clipa:clipa",
    "coca": "multiway.recipes.coca:coca",
    "gpt": "multiway.recipes.gpt:gpt",
    "simvlm": "multiway.recipes.simvlm:simvlm",
    "filip": "multiway.recipes.filip:filip",
    "siglip": "multiway.recipes.siglip:siglip",
    "vlmo": "multiway.recipes.vlmo:vlmo",
    "vlmo-stages": "multiway.recipes.vlmo:vlmo_stages",
    "vilt": "multiway.recipes.vilt:vilt",
    "meter": "multiway.recipes.meter:meter",
    "vqkd": "multiway.recipes.vqkd:vqkd",
    "beit3": "multiway.recipes.beit3:beit3",
    "beit3-captioning": "multiway.recipes.beit3:beit3_captioning",
    "beit3-retrieval": "multiway.recipes.beit3:beit3_retrieval",
    "simclr": "multiway.recipes.views:simclr",
    "simsiam": "multiway.recipes.views:simsiam",
    "byol": "multiway.recipes.views:byol",
    "moco": "multiway.recipes.views:moco",
    "moco-v3": "multiway.recipes.views:moco_v3",
    "swav": "multiway.recipes.views:swav",
    "dino": "multiway.recipes.views:dino",
    "ibot": "multiway.recipes.ibot:ibot",
    "instdisc": "multiway.recipes.views:instdisc",
    "invaspread": "multiway.recipes.views:invaspread",
    "cmc": "multiway.recipes.cmc:cmc",
    "cpc": "multiway.recipes.cpc:cpc",
    "mae": "multiway.recipes.masked:mae",
    "simmim": "multiway.recipes.masked:simmim",
    "maskfeat": "multiway.recipes.masked:maskfeat",
    "denoising-autoencoder": "multiway.recipes.masked:denoising",
    "beit": "multiway.recipes.masked:beit",
}

TUNED: dict[str, str] = {
    "finetune": "multiway.recipes.finetune:FinetuneRecipe",
    "answer-writer": "multiway.recipes.answer_writer:AnswerWriterRecipe",
    "classify": "multiway.recipes.classifier:ClassifyRecipe",
    "distil": "multiway.recipes.distil:DistilRecipe",
}
"""Recipes of `multiway finetune`, which begin from a run and so have no preset: name -> the recipe's class."""


def recipe_function(name: str) -> Callable[..., Recipe]:
    """The function of a recipe.

    Raises:
        KeyError: for an unknown name, with the names that exist.
    """
    if name not in RECIPES:
        raise KeyError(f"there is no recipe `{name}`; there are: {', '.join(sorted(RECIPES))}")
    return _named(RECIPES[name])  # type: ignore[no-any-return]


def recipe_class(name: str) -> type[Recipe]:
    """What a recipe's config.json is read as.

    Raises:
        KeyError: for an unknown name.
    """
    return _named(TUNED[name]) if name in TUNED else type(recipe_function(name)())


def _named(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
