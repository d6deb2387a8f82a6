"""The Vision Transformer against ViT and CLIP of `transformers`, with the same random weights."""

from dataclasses import replace

import pytest
import torch
from peer_weights import copy, copy_attention, copy_clip_block, randomise
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, ViTConfig, ViTModel

from multiway.nn.vit import VisionConfig, VisionTransformer

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8}
TINY = VisionConfig(size=32, patch=8, width=32, layers=3, heads=2, mlp_ratio=2.0)


def copy_patches(ours: VisionTransformer, convolution: nn.Conv2d, class_token: torch.Tensor, positions: torch.Tensor):
    """Both of theirs hold the class token's position first."""
    with torch.no_grad():
        ours.patches.project.weight.copy_(convolution.weight.flatten(1))
        ours.class_token.copy_(class_token.flatten())
        ours.class_position.copy_(positions[0])
        ours.positions.copy_(positions[1:])


@pytest.fixture(scope="module")
def vit():
    theirs = randomise(ViTModel(ViTConfig(**SIZES, image_size=32, layer_norm_eps=1e-6), add_pooling_layer=False))
    ours = VisionTransformer(TINY).eval()
    embeddings = theirs.embeddings
    projection = embeddings.patch_embeddings.projection
    copy_patches(ours, projection, embeddings.cls_token, embeddings.position_embeddings[0])
    ours.patches.project.bias.data.copy_(projection.bias)
    for our, their in zip(ours.transformer.blocks, theirs.layers, strict=True):
        inner = their.attention
        copy_attention(our.attention, inner.q_proj, inner.k_proj, inner.v_proj, inner.o_proj)
        copy(our.attention_norm, their.layernorm_before)
        copy(our.mlp_norm, their.layernorm_after)
        copy(our.mlp.up, their.mlp.fc1)
        copy(our.mlp.down, their.mlp.fc2)
    copy(ours.transformer.norm, theirs.layernorm)
    return ours, theirs


def test_equals_vit(vit):
    ours, theirs = vit
    images = torch.randn(2, 3, 32, 32)
    expected = theirs(images).last_hidden_state
    tower = ours(images)
    assert (tower.tokens - expected).abs().max() < 1e-5
    assert (tower.pooled - expected[:, 0]).abs().max() < 1e-5


def test_equals_vit_on_another_grid(vit):
    ours, theirs = vit
    images = torch.randn(2, 3, 48, 64)
    expected = theirs(images, interpolate_pos_encoding=True).last_hidden_state
    assert (ours(images).tokens - expected).abs().max() < 1e-5


def test_equals_clip():
    theirs = randomise(CLIPVisionModel(CLIPVisionConfig(**SIZES, image_size=32, hidden_act="quick_gelu")))
    config = VisionConfig(
        size=32,
        patch=8,
        width=32,
        layers=3,
        heads=2,
        mlp_ratio=2.0,
        activation="quick_gelu",
        pre_norm=True,
        patch_bias=False,
        epsilon=1e-5,
    )
    ours = VisionTransformer(config).eval()
    embeddings = theirs.embeddings
    copy_patches(ours, embeddings.patch_embedding, embeddings.class_embedding, embeddings.position_embedding.weight)
    copy(ours.pre_norm, theirs.pre_layrnorm)
    copy(ours.transformer.norm, theirs.post_layernorm)
    for our, their in zip(ours.transformer.blocks, theirs.encoder.layers, strict=True):
        copy_clip_block(our, their)
    images = torch.randn(2, 3, 32, 32)
    out = theirs(images, output_hidden_states=True)
    record = {}
    tower = ours(images, record=record)
    assert (tower.pooled - out.pooler_output).abs().max() < 1e-5
    assert (record["blocks.2"] - out.last_hidden_state).abs().max() < 1e-5
    for layer, expected in enumerate(out.hidden_states[1:]):
        assert (record[f"blocks.{layer}"] - expected).abs().max() < 1e-5


def test_the_pooled_token_alone_is_the_same_with_the_same_gradient():
    ours = randomise(VisionTransformer(TINY)).train()
    images = torch.randn(2, 3, 32, 32)
    gradients = []
    for tokens in (True, False):
        ours.zero_grad()
        tower = ours(images, tokens=tokens)
        assert tower.tokens.shape == (2, 17 if tokens else 1, 32)
        tower.pooled.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters()] + [tower.pooled])
    for every, one in zip(*gradients, strict=True):
        torch.testing.assert_close(every, one, atol=1e-4, rtol=1e-4)


def test_kept_patches_are_those_patches_of_the_embedding():
    ours = randomise(VisionTransformer(TINY))
    images, keep = torch.randn(2, 3, 32, 32), torch.tensor([[3, 1, 15], [0, 7, 8]])
    full, kept = ours.embed(images), ours.embed(images, keep)
    torch.testing.assert_close(kept[:, :1], full[:, :1])
    torch.testing.assert_close(kept[:, 1:], full[:, 1:].gather(1, keep[..., None].expand(-1, -1, 32)))
    assert ours(images, keep).tokens.shape == (2, 4, 32)


def test_mean_pool_without_and_with_class_token():
    images = torch.randn(2, 3, 32, 32)
    without = VisionTransformer(VisionConfig(size=32, patch=8, width=32, pool="mean", positions="sincos"))
    assert without.prefix == 0 and without(images).tokens.shape == (2, 16, 32)
    ours = VisionTransformer(VisionConfig(size=32, patch=8, width=32, pool="mean", class_token=True))
    tower = ours(images)
    torch.testing.assert_close(tower.pooled, tower.tokens[:, 1:].mean(1))


@pytest.mark.parametrize(
    ("config", "expected"),
    # timm and the CLIP paper's release: ViT-B/32 without and with CLIP's bias-free patches and norm before the blocks.
    [
        (VisionConfig(size=224, patch=32, width=768, layers=12, heads=12), 87_455_232),
        (VisionConfig(size=224, patch=16, width=768, layers=12, heads=12), 85_798_656),
        (VisionConfig(size=224, patch=32, width=768, layers=12, heads=12, pre_norm=True, patch_bias=False), 87_456_000),
    ],
)
def test_parameters_of_published_sizes(config, expected):
    with torch.device("meta"):
        assert sum(p.numel() for p in VisionTransformer(config).parameters()) == expected


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="size 30 is not divisible by patch 8"):
        VisionTransformer(VisionConfig(size=30, patch=8))
    with pytest.raises(ValueError, match="needs a class token"):
        VisionTransformer(VisionConfig(class_token=False))
    with pytest.raises(ValueError, match=r"30x32 pixels do not divide into patches of 8; .* 32x32"):
        VisionTransformer(TINY)(torch.randn(1, 3, 30, 32))


def test_edges_that_fill_no_patch_are_not_seen():
    model = VisionTransformer(replace(TINY, size=39, edges=True)).eval()
    assert model.grid == (39 // TINY.patch,) * 2
    images = torch.randn(2, 3, 39, 39)
    other = images.clone()
    other[..., 32:] = other[..., 32:, :] = 7.0
    torch.testing.assert_close(model(other), model(images), rtol=0, atol=0)
    convolution = torch.nn.functional.conv2d(
        images,
        model.patches.project.weight.unflatten(1, (3, TINY.patch, TINY.patch)),
        model.patches.project.bias,
        stride=TINY.patch,
    )
    torch.testing.assert_close(model.patches(images), convolution.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="edges=True leaves pixels out"):
        VisionTransformer(replace(TINY, edges=True, stem="conv"))
