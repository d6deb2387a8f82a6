"""Attention over patches, the mass that is kept, and that looking where the model looks matters."""

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from multiway.explain.attention import grid_of, keep_mass, over_patches
from multiway.explain.seen import see
from multiway.nn.vit import VisionConfig, VisionTransformer


def test_grids() -> None:
    assert grid_of(65) == (8, 1) and grid_of(64) == (8, 0) and grid_of(68) == (8, 4) and grid_of(2) == (1, 1)
    with pytest.raises(ValueError, match="no square grid"):
        grid_of(79)  # 64 patches and 15 more, or 8 x 9 and 7?


def test_the_class_tokens_row_or_the_mean_of_all() -> None:
    attention = torch.rand(2, 3, 10, 10).softmax(-1)
    assert torch.equal(over_patches(attention)[1, 2], attention[1, 2, 0, 1:].view(3, 3))
    alone = torch.rand(2, 3, 9, 9).softmax(-1)
    torch.testing.assert_close(over_patches(alone)[0, 0], torch.stack(list(alone[0, 0])).mean(0).view(3, 3))
    assert torch.equal(over_patches(attention[:, :, :1]), over_patches(attention))  # a last block of one query


def fewest(values: np.ndarray, share: float) -> int:
    """How many of the largest values it takes to reach a share of the sum."""
    total, held = float(values.sum()), 0.0
    for number, value in enumerate(sorted(values.tolist(), reverse=True), 1):
        held += value
        if held >= share * total - 1e-9 * total:
            return number
    return len(values)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.int64, (3, 3), elements=st.integers(0, 20)),
    st.sampled_from([0.1, 0.3, 0.6, 0.75, 1.0]),
)
def test_the_fewest_patches_that_hold_the_share(values: np.ndarray, share: float) -> None:
    kept = keep_mass(torch.from_numpy(values).double(), share).numpy()
    if values.sum() == 0:
        assert kept.all()
        return
    assert values[kept].sum() >= share * values.sum() - 1e-9
    assert kept.sum() == fewest(values.ravel(), share)
    assert values[kept].min() >= values[~kept].max(initial=0)  # none left out is larger than one kept


def test_as_the_published_script_has_it() -> None:
    """Sorted ascending, what lies above 1 - share of the cumulated sum, put back in place (DINO, visualize_attention.py)."""
    maps = torch.rand(4, 7, 7, generator=torch.Generator().manual_seed(0))
    values, order = maps.flatten(1).sort()
    above = (values / values.sum(1, keepdim=True)).cumsum(1) > 0.4
    expected = torch.stack([row[back] for row, back in zip(above, order.argsort(), strict=True)]).view_as(maps)
    assert torch.equal(keep_mass(maps), expected)
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        keep_mass(maps, 1.5)


def brightness_seeker() -> torch.nn.Module:
    """A ViT of one block made by hand: the class token asks for brightness, and what it looks at is its embedding."""
    torch.manual_seed(0)
    tower = VisionTransformer(VisionConfig(size=16, patch=4, width=8, layers=1, heads=1, positions="sincos"))
    attention, width = tower.transformer.blocks[0].attention, 8
    with torch.no_grad():
        tower.positions.zero_()
        tower.patches.project.weight.normal_()
        tower.patches.project.weight[0] = 1 / 4
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
        attention.qkv.bias[0] = 8.0  # every query
        attention.qkv.weight[width, 0] = 1.0  # the keys: the first feature
        attention.qkv.weight[2 * width :] = torch.eye(width)
        attention.out.weight.copy_(torch.eye(width))

    class Method(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower

        def encode_image(self, images):
            from multiway.abilities import Encoded

            pooled, tokens = self.tower(images)
            return Encoded(torch.nn.functional.normalize(pooled, dim=-1), tokens)

    return Method().eval()


def test_hiding_what_is_looked_at_changes_the_embedding_more() -> None:
    method = brightness_seeker()
    generator = torch.Generator().manual_seed(1)
    images = 0.3 * torch.randn(12, 3, 16, 16, generator=generator)
    for row in range(len(images)):  # three bright patches in each
        for place in torch.randperm(16, generator=generator)[:3].tolist():
            top, left = 4 * (place // 4), 4 * (place % 4)
            images[row, :, top : top + 4, left : left + 4] += 1.0
    seen = see(method, images)
    maps = over_patches(seen.blocks[-1]).mean(1).flatten(1)
    order = maps.argsort(1)

    def hidden(places: torch.Tensor) -> torch.Tensor:
        blank = images.clone()
        for row, own in enumerate(places.tolist()):
            for place in own:
                top, left = 4 * (place // 4), 4 * (place % 4)
                blank[row, :, top : top + 4, left : left + 4] = 0
        return (method.encode_image(blank).embedding - seen.encoded.embedding).norm(dim=1).detach()

    most, least = hidden(order[:, -3:]), hidden(order[:, :3])
    assert (most > 2 * least).all(), (most, least)
