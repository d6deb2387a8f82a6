"""FLIP: pictures read from the patches that are shown; what is left out changes nothing, and costs nothing in the blocks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from caption_batches import info, toy_batch
from torch import Tensor, nn

from multiway.data.patch_masking import PatchMasking, mask_patches
from multiway.methods.clip import Clip, ClipConfig
from multiway.methods.coca import Coca, CocaConfig
from multiway.methods.filip import Filip, FilipConfig
from multiway.methods.method import Method, Step
from multiway.methods.siglip import Siglip, SiglipConfig
from multiway.nn.resnet import ResNetConfig
from multiway.nn.vit import VisionConfig
from multiway.recipes import recipe_function
from multiway.world import World

PATCH = 4
VIT = VisionConfig(size=16, patch=PATCH, width=32, layers=2, heads=2)
NAMES = ("clip", "siglip", "filip", "coca")


def build(name: str) -> Method:
    torch.manual_seed(0)
    small = {"width": 32, "layers": 2, "heads": 2}
    pooled = replace(VIT, pool="mean")
    if name == "clip":
        config = ClipConfig(image=VIT, text=replace(ClipConfig().text, **small), embedding=16)
        return Clip(config.resolve(info())).eval()
    if name == "siglip":
        return Siglip(SiglipConfig(pooled, replace(SiglipConfig().text, **small)).resolve(info())).eval()
    if name == "filip":
        return Filip(FilipConfig(VIT, replace(FilipConfig().text, **small), embedding=16).resolve(info())).eval()
    sizes = CocaConfig(image=pooled, text=replace(CocaConfig().text, **small), queries=4, embedding=16)
    return Coca(sizes.resolve(info())).eval()


def hidden(rows: int, ratio: float = 0.5) -> Tensor:
    masking = PatchMasking(ratio, PATCH, sampling="random")
    return mask_patches(np.random.default_rng(0).random((rows, masking.draws(16))), 16, masking)


@pytest.mark.parametrize("name", NAMES)
def test_hidden_patches_change_nothing_and_shown_ones_do(name: str) -> None:
    method, batch = build(name), toy_batch(8)
    assert batch.images is not None
    batch.patch_mask = hidden(8)
    before = method.encode(batch, Step())
    pixels = batch.patch_mask.view(8, 1, 4, 4).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    elsewhere = replace(batch, images=batch.images + 3.0 * pixels)
    for key, value in method.encode(elsewhere, Step()).items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=1e-6, msg=key)
    seen = method.encode(replace(batch, images=batch.images + 3.0 * ~pixels), Step())
    assert float((seen["image"] - before["image"]).abs().max()) > 1e-3
    losses = method.training_step(batch, World(), Step())
    assert torch.isfinite(losses.total)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("patches", [4, 64])
def test_a_mask_of_other_patches_is_refused(name: str, patches: int) -> None:
    """A coarser one would leave all but the first of the model's patches out, in silence."""
    method, batch = build(name), toy_batch(8)
    batch.patch_mask = torch.arange(patches).expand(8, -1) < 2
    with pytest.raises(
        ValueError, match=rf"of {patches} patches of 8 pictures, .* 4x4 of 4 pixels; .*--patches.patch 4"
    ):
        method.encode(batch, Step())


@pytest.mark.parametrize("name", NAMES)
def test_with_nothing_hidden_it_is_the_whole_picture_and_evaluation_sees_it_always(name: str) -> None:
    method, batch = build(name), toy_batch(8)
    plain = method.encode(batch, Step())
    batch.patch_mask = torch.zeros(8, 16, dtype=torch.bool)
    for key, value in method.encode(batch, Step()).items():
        torch.testing.assert_close(value, plain[key], rtol=1e-5, atol=1e-6, msg=key)
    encoded = method.encode_image(batch.images)  # type: ignore[operator]
    whole = encoded.embedding if encoded.has_embedding else encoded.tokens
    torch.testing.assert_close(whole, plain["image"], rtol=1e-5, atol=1e-6)


def test_a_patch_keeps_its_own_position() -> None:
    """The twin computes all tokens and lets none look at a hidden one."""
    method, batch = build("clip"), toy_batch(8)
    assert isinstance(method, Clip) and batch.images is not None
    batch.patch_mask = hidden(8, 0.75)
    tower = method.image
    seen = torch.cat([torch.ones(8, 1, dtype=torch.bool), ~batch.patch_mask], 1)
    last = tower.transformer(tower.embed(batch.images), seen)  # type: ignore[operator]
    twin = nn.functional.normalize(method.image_projection(last[:, 0]), dim=-1)
    torch.testing.assert_close(method.encode(batch, Step())["image"], twin, rtol=1e-5, atol=1e-6)


def test_blocks_see_the_shown_tokens_alone() -> None:
    method, batch = build("siglip"), toy_batch(8)
    counts: list[int] = []
    method.image.transformer.blocks[0].register_forward_hook(  # type: ignore[union-attr, operator]
        lambda part, given, found: counts.append(given[0].shape[1])
    )
    for ratio in (0.0, 0.5, 0.75):
        batch.patch_mask = hidden(8, ratio) if ratio else None
        method.encode(batch, Step())
    assert counts == [16, 8, 4]


def test_a_network_without_patches_is_refused() -> None:
    torch.manual_seed(0)
    resnet = ClipConfig(image=ResNetConfig(depths=(1, 1), base=8), text=replace(ClipConfig().text, layers=1))
    batch = toy_batch(4)
    batch.patch_mask = hidden(4)
    with pytest.raises(ValueError, match="a ResNet has none"):
        Clip(resnet.resolve(info())).encode(batch, Step())
    recipe = recipe_function("clip")()
    with pytest.raises(ValueError, match="patches are left out of a ViT without relative positions alone"):
        replace(recipe, drop=0.5, method=resnet)
    with pytest.raises(ValueError, match="drop is 1; expected the share"):
        replace(recipe, drop=1.0)
    with pytest.raises(ValueError, match="both hide patches"):
        replace(recipe, drop=0.5, patches=PatchMasking(0.5, 8))


@pytest.mark.parametrize("name", NAMES)
def test_every_such_recipe_has_the_option(name: str) -> None:
    recipe = replace(recipe_function(name)(), drop=0.75)
    patches = recipe.hidden_patches
    assert (patches.ratio, patches.patch, patches.sampling) == (0.75, recipe.method.image.patch, "random")
    assert recipe_function(name)().hidden_patches == PatchMasking()
    assert "drop" not in recipe_function(name)().identity() and recipe.identity()["drop"] == 0.75
