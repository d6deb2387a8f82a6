"""Recipes of self-supervision by views: the published settings, in steps and rates."""

import pytest

from multiway.methods import method_class
from multiway.recipes import recipe_function
from multiway.recipes.pictures import PicturesRecipe
from multiway.recipes.views import IMAGENET

NAMES = ("simclr", "simsiam", "byol", "moco", "moco-v3", "swav", "dino", "instdisc", "invaspread")


def presets(name: str) -> list[str]:
    with pytest.raises(KeyError) as error:
        method_class(name).config_class.preset("nothing")
    return str(error.value.args[0]).split("there are: ")[1].split(", ")


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name in NAMES for preset in presets(name)])
def test_every_preset_makes_a_recipe(name: str, preset: str) -> None:
    recipe = recipe_function(name)(preset)
    assert isinstance(recipe, PicturesRecipe) and recipe.preset == preset and recipe.name == name
    assert recipe.view.size == recipe.views.views[0].size
    if preset != "tiny":
        assert recipe.view.size == (32 if preset.endswith("cifar") else 224)
        assert recipe.data.startswith("cifar10" if preset.endswith("cifar") else "imagenet")
    backbone = recipe.method.backbone
    assert getattr(backbone, "size", recipe.view.size) == recipe.view.size
    assert getattr(backbone, "stem", "") != ("imagenet" if recipe.view.size == 32 else "cifar")


def test_epochs_are_counted_in_steps() -> None:
    moco = recipe_function("moco")("v1-rn50").settings
    assert moco.steps == 200 * (IMAGENET // 256) and moco.optimiser.steps == (0.6, 0.8) and moco.lr == 0.03
    byol = recipe_function("byol")("rn50").settings
    assert (byol.batch, byol.lr, byol.optimiser.kind) == (4096, pytest.approx(3.2), "lars")
    assert byol.optimiser.warmup == 10 * (IMAGENET // 4096)
    dino = recipe_function("dino")("vit-s-16").settings
    assert dino.lr * dino.optimiser.floor == pytest.approx(1e-6) and dino.optimiser.weight_decay_end == 0.4
    assert len(recipe_function("dino")("vit-s-16").views.views) == 10
