"""Masks of views, a function of each row's draws; and recipes of iBOT, the bridges to CLIP, CMC and CPC."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from multiway.config import ConfigError
from multiway.data.augment import finish
from multiway.data.digits import Digits
from multiway.data.patch_masking import PatchMasking
from multiway.recipes import recipe_function
from multiway.recipes.ibot import HiddenViews, MaskedViewsLoader, ibot, mask_views
from multiway.world import World

NEW = {
    "ibot": ("tiny", "vit-s-16", "vit-b-16", "dinov2-vit-l-16", "dinov2-vit-l-14"),
    "slip": ("tiny", "vit-s-16", "vit-b-16", "vit-l-16"),
    "declip": ("tiny", "vit-b-32", "rn50"),
    "cmc": ("tiny", "rn50", "rn50-half"),
    "cpc": ("tiny", "rn101"),
}
CASES = [(name, preset) for name, presets in NEW.items() for preset in presets]


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_every_preset_makes_a_recipe(name: str, preset: str) -> None:
    recipe = recipe_function(name)(preset)
    assert (recipe.name, recipe.method_name, recipe.preset) == (name, name, preset)
    size = {"cpc": 256}.get(name, 224)
    assert recipe.view.size == recipe.drawn.views[0].size == (32 if preset == "tiny" else size)
    assert recipe.identity()["recipe"] == name
    tower = getattr(recipe.method, "image", getattr(recipe.method, "backbone", None))
    assert getattr(tower, "size", recipe.view.size) == recipe.view.size


def test_published_settings_are_as_published() -> None:
    small = ibot("vit-s-16")
    assert small.settings.lr == 2e-3 and len(small.views.views) == 12
    assert [kind.scale for kind in small.views.views[1:3]] == [(0.25, 1.0), (0.05, 0.25)]
    assert (small.patches.ratio, small.patches.least, small.hidden) == (0.3, 16, HiddenViews(0.5, 0.2))
    short = ibot("dinov2-vit-l-16")
    assert short.settings.steps == 125_000 and short.settings.lr == pytest.approx(0.004 * 2**0.5)
    slip = recipe_function("slip")("vit-b-16")
    assert (slip.settings.batch, slip.settings.lr, slip.drawn.plain) == (4096, 3e-3, True)


def test_masks_are_of_the_rows_draws_alone() -> None:
    masking, hidden = PatchMasking(0.3, 4, least=4), HiddenViews(0.5, 0.2)
    draws = np.random.default_rng(0).random((200, 2 * (2 + masking.draws(32))))
    masks = mask_views(draws, (32, 32), masking, hidden)
    assert masks.shape == (200, 128) and masks.dtype == torch.bool
    assert torch.equal(mask_views(draws[17:19], (32, 32), masking, hidden), masks[17:19])
    shares = masks.view(200, 2, 64).float().mean(2)
    covered = shares[shares > 0]
    assert 0.4 < len(covered) / 400 < 0.6  # every second view hides something
    assert float(covered.min()) >= 0.1 - 1 / 128 and float(covered.max()) <= 0.5 + 1 / 128
    assert float(covered.mean()) == pytest.approx(0.3, abs=0.03)
    both = (shares > 0).float()
    assert abs(float(torch.corrcoef(both.T)[0, 1])) < 0.2  # the views of a row are drawn apart
    assert not bool(mask_views(draws, (32, 32), masking, HiddenViews(0.0)).any())


def test_the_loader_adds_masks_and_changes_nothing_else() -> None:
    recipe = replace(ibot(), settings=replace(ibot().settings, batch=6))
    source = Digits.open("train")
    info = recipe.info(source, None)
    loader = recipe.loader(source, None, info, World())
    assert isinstance(loader, MaskedViewsLoader)
    batch, plain = loader.batch(3), loader.loader.batch(3)
    assert batch.patch_mask is not None and batch.patch_mask.shape == (6, 128) and plain.patch_mask is None
    assert torch.equal(batch.draws, plain.draws) and torch.equal(batch.images, plain.images)  # type: ignore[arg-type]
    (again,) = loader.batches(3, 4)
    assert torch.equal(again.patch_mask, batch.patch_mask)
    # Ranks take every second row of the same batch, masks included.
    for rank in range(2):
        part = recipe.loader(source, None, info, World(rank, 2)).batch(3)
        assert torch.equal(part.patch_mask, batch.patch_mask[rank::2])
    seen = finish(batch, recipe.view, recipe.drawn)
    losses = recipe.build(info).training_step(seen, World(), _late())
    assert bool(torch.isfinite(losses.total)) and 0.0 < float(losses.report["hidden"]) < 0.5
    bare = replace(recipe, hidden=HiddenViews(0.0)).loader(source, None, info, World()).batch(3)
    assert bare.patch_mask is None


def _late():  # type: ignore[no-untyped-def]
    from multiway.methods.method import Step

    return Step(progress=0.5)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"would lie in \[-0.1, 0.5\]"):
        replace(ibot(), hidden=HiddenViews(0.5, 0.3), patches=PatchMasking(0.2, 4))
    with pytest.raises(ConfigError, match="a share lies in"):
        HiddenViews(1.5)
    with pytest.raises(ConfigError, match=r"patches\.ratios is of no use here"):
        replace(ibot(), patches=PatchMasking(0.3, 4, ratios=(0.1, 0.2)))
    recipe = recipe_function("cmc")()
    with pytest.raises(ConfigError, match=r"--view\.mean 0 0 0 --view\.std 1 1 1"):
        replace(recipe, view=replace(recipe.view, mean=(0.5, 0.5, 0.5)))


@pytest.mark.parametrize("name", ["slip", "declip", "cmc", "cpc"])
def test_a_tiny_recipe_takes_a_step_on_bundled_data(name: str) -> None:
    recipe = recipe_function(name)()
    recipe = replace(recipe, settings=replace(recipe.settings, batch=4), data="digits")
    source = recipe.open("digits", "train")
    tokenizer = recipe.tokeniser(source)
    info = recipe.info(source, tokenizer)
    torch.manual_seed(0)
    method = recipe.build(info).train()
    batch = finish(recipe.loader(source, tokenizer, info, World()).batch(0), recipe.view, recipe.drawn)
    losses = method.training_step(batch, World(), _late())
    assert bool(torch.isfinite(losses.total))
    method.after_step(_late(), losses.updates)
    for term in losses.terms.values():
        if term.chance and term.chance > 0:
            assert 0.2 < float(term.value.detach()) / term.chance < 3.0
