"""MAE: its loss by hand, its ablations, its sizes. Equality with transformers is in tests/hub/test_transformers_vitmae.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from masked_batches import SMALL, batch, built, step
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from multiway.data.patch_masking import mask_patches
from multiway.methods.mae import Mae, MaeConfig
from multiway.methods.method import Step
from multiway.nn.hidden_patches import cut, join, visible
from multiway.nn.mae_decoder import MaeDecoderConfig
from multiway.recipes import recipe_function


def mae(**changed: object) -> Mae:
    found = built("mae", **changed)
    assert isinstance(found, Mae)
    return found


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("everywhere", [True, False])
def test_the_loss_is_that_of_a_loop_over_patches(normalised: bool, everywhere: bool) -> None:
    method = mae(normalised=normalised, everywhere=everywhere)
    rows = batch(method)
    images, mask = method.given(rows)
    said = method.encode(rows, Step())["said"].detach()
    errors = []
    for row in range(8):
        for number in range(16):
            top, left = number // 4 * 4, number % 4 * 4
            patch = images[row, :, top : top + 4, left : left + 4].double()
            if normalised:
                patch = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            if everywhere or mask[row, number]:
                errors.append((said[row, number].double() - patch.flatten()).square().mean())
    wanted = torch.stack(errors).mean()
    assert float(step(method, rows).terms["reconstruction"].value.detach()) == pytest.approx(float(wanted), rel=1e-5)


def test_the_encoder_sees_visible_patches_alone_and_costs_as_much() -> None:
    method = mae()
    seen: list[int] = []
    method.backbone.transformer.register_forward_hook(lambda m, a, o: seen.append(a[0].shape[1]))
    method.decoder.transformer.register_forward_hook(lambda m, a, o: seen.append(a[0].shape[1]))
    step(method, batch(method, share=0.75))
    assert seen == [1 + 4, 1 + 16]
    seen.clear()
    inside = mae(mask_tokens="encoder")
    inside.backbone.transformer.register_forward_hook(lambda m, a, o: seen.append(a[0].shape[1]))
    step(inside, batch(inside, share=0.75))
    assert seen == [1 + 16]


def test_a_mean_of_patches_may_stand_for_the_class_token() -> None:
    method = mae(backbone=replace(SMALL, pool="mean")).eval()
    assert method.backbone.prefix == 0
    rows = batch(method)
    tower = method.shown(*method.given(rows))
    assert tower.tokens.shape == (8, 8, 16) and torch.equal(tower.pooled, tower.tokens.mean(1))
    assert method.look(*method.given(rows))[1].shape == (8, 16, 48)


def test_without_decoder_positions_hidden_patches_are_told_alike() -> None:
    method = mae(decoder=MaeDecoderConfig(16, 1, 2, positions="none")).eval()
    images, mask = method.given(batch(method))
    said = method.look(images, mask)[1]
    for row in range(8):
        assert torch.allclose(said[row][mask[row]], said[row][mask[row]][:1], atol=1e-6)
    # Mask tokens in the encoder are told apart by its positions.
    method = mae(decoder=MaeDecoderConfig(16, 1, 2, positions="none"), mask_tokens="encoder").eval()
    assert not torch.allclose(method.look(images, mask)[1][0][mask[0]], method.look(images, mask)[1][0][mask[0]][:1])


def test_normalised_reconstructions_are_scaled_back() -> None:
    """A decoder that tells the normalised truth gives back the picture."""
    method = mae().eval()
    images, mask = method.given(batch(method))
    true = cut(images, 4)
    variance, mean = torch.var_mean(true, dim=-1, keepdim=True)
    method.look = lambda *given: (torch.empty(0), (true - mean) / (variance + 1e-6).sqrt())  # type: ignore[method-assign]
    torch.testing.assert_close(method.reconstruct(images, mask), images)
    assert torch.equal(join(true, (16, 16), 4), images)


def test_pictures_that_hide_unequally_are_refused() -> None:
    method = mae()
    rows = batch(method)
    assert rows.patch_mask is not None
    rows.patch_mask[0] = False
    with pytest.raises(ValueError, match="show 8 to 16 patches"):
        step(method, rows)


def test_how_many_tokens_of_224_pixels_each_half_sees() -> None:
    """Section 3: a quarter of 196 patches and the class token are encoded, all of them decoded."""
    recipe = recipe_function("mae")("vit-b-16")
    draws = np.random.default_rng(0).random((2, recipe.patches.draws(224)))
    mask = mask_patches(draws, 224, recipe.patches)
    assert mask.sum(1).tolist() == [147, 147] and visible(mask).shape == (2, 49)
    narrow = replace(recipe.method.backbone, width=16, layers=1, heads=2)
    method = Mae(replace(recipe.method, backbone=narrow, decoder=MaeDecoderConfig(16, 1, 2)))
    assert method.backbone.patches.project.in_features == 768  # numbers of a patch
    tower = method.shown(torch.randn(2, 3, 224, 224), mask)
    assert tower.tokens.shape == (2, 50, 16)
    decoded: list[int] = []
    method.decoder.transformer.blocks[0].register_forward_pre_hook(lambda _, given: decoded.append(given[0].shape[1]))
    assert method.decoder(tower.tokens, mask, (14, 14)).shape == (2, 196, 768) and decoded == [197]


@pytest.mark.parametrize(
    ("preset", "width", "layers", "heads", "patch", "millions"),
    [("vit-b-16", 768, 12, 12, 16, 85.8), ("vit-l-16", 1024, 24, 16, 16, 303.3), ("vit-h-14", 1280, 32, 16, 14, 630.8)],
)
def test_published_sizes(preset: str, width: int, layers: int, heads: int, patch: int, millions: float) -> None:
    """Part by part, and as many as transformers has of the same sizes; timm's ViT-B/16, L/16 and H/14 without heads."""
    with torch.device("meta"):
        ours = Mae(MaeConfig.preset(preset))
        theirs = ViTMAEForPreTraining(
            ViTMAEConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
                         patch_size=patch)
        )  # fmt: skip
    values = 3 * patch**2
    encoder = width + values * width + width + layers * (12 * width**2 + 13 * width) + 2 * width
    counted = sum(each.numel() for each in ours.backbone.parameters())
    assert counted == encoder + width  # the class token's position, which is fixed there
    positions = ((224 // patch) ** 2 + 1) * width  # no weights here; counted where sizes are published
    assert (encoder + positions) / 1e6 == pytest.approx(millions, abs=0.05)
    fixed = (theirs.vit.embeddings.position_embeddings, theirs.decoder.decoder_pos_embed)
    total = sum(each.numel() for each in theirs.parameters()) - sum(each.numel() for each in fixed)
    assert sum(each.numel() for each in ours.parameters()) == total + width
    assert ours.config.decoder == MaeDecoderConfig(512, 8, 16) and ours.config.normalised
