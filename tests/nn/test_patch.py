"""Patches against a convolution; positions against their definition."""

import math

import pytest
import torch
import torch.nn.functional as F

from multiway.nn.patch import ConvStem, PatchEmbed, resize_positions, sincos_positions


def test_equals_a_convolution():
    embed, images = PatchEmbed(4, 16), torch.randn(2, 3, 8, 12)
    weight = embed.project.weight.view(16, 3, 4, 4)
    expected = F.conv2d(images, weight, embed.project.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_resizing_positions(mode):
    positions = torch.randn(12, 8)
    assert resize_positions(positions, (3, 4), (3, 4), mode) is positions
    constant = torch.arange(8.0).expand(12, -1)
    torch.testing.assert_close(resize_positions(constant, (3, 4), (5, 7), mode), torch.arange(8.0).expand(35, -1))
    row = torch.arange(3.0).repeat_interleave(4)[:, None]  # rises from row to row, and must not along one
    resized = resize_positions(row, (3, 4), (6, 8), mode).view(6, 8)
    assert (resized.diff(dim=0) > 0).all() and resized.diff(dim=1).abs().max() < 1e-5


def test_positions_of_the_wrong_grid_are_refused():
    with pytest.raises(ValueError, match="13 positions for a grid of 3x4 patches; leave the class token's out"):
        resize_positions(torch.randn(13, 8), (3, 4), (3, 4))


def test_sincos_is_its_definition():
    width = 8
    table = sincos_positions((2, 3), width)
    for row in range(2):
        for column in range(3):
            angles = [place / 10000 ** (i / (width // 4)) for place in (column, row) for i in range(width // 4)]
            half = width // 4
            expected = [math.sin(a) for a in angles[:half]] + [math.cos(a) for a in angles[:half]]
            expected += [math.sin(a) for a in angles[half:]] + [math.cos(a) for a in angles[half:]]
            torch.testing.assert_close(table[row * 3 + column], torch.tensor(expected))
    with pytest.raises(ValueError, match="width 6 is no multiple of 4"):
        sincos_positions((2, 2), 6)


@pytest.mark.parametrize(("patch", "width"), [(2, 12), (4, 24), (8, 32), (16, 32)])
def test_the_convolutional_stem_has_the_grid_of_patches_and_sees_across_their_edges(patch, width):
    torch.manual_seed(0)
    stem, images = ConvStem(patch, width), torch.randn(2, 3, 3 * patch, 2 * patch)
    assert stem.grid(images) == (3, 2) and stem(images).shape == (2, 6, width)
    plain = images
    for stage in stem.stages:
        plain = torch.nn.functional.gelu(stage(plain))
    assert plain.shape == (2, width, 3, 2)
    torch.testing.assert_close(stem(images)[1, 3], stem.project(plain[1, :, 1, 1]))
    # The pixel just left of patch 1 is of patch 0, and patch 1 sees it; p pixels away it does not.
    for column, seen in ((patch - 1, True), (0, False)):
        changed = images.clone()
        changed[0, :, 0, column] += 1
        assert torch.equal(stem(changed)[0, 1], stem(images)[0, 1]) is not seen


@pytest.mark.parametrize(("patch", "width"), [(6, 24), (1, 8), (8, 30)])
def test_stems_that_cannot_be(patch, width):
    with pytest.raises(ValueError, match="stem='patch'"):
        ConvStem(patch, width)
