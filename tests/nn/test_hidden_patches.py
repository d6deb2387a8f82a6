"""Patches left out, put back and covered: nothing of what is hidden gets through."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multiway.nn.hidden_patches import blank, cover, cut, join, pooled, put_back, visible
from multiway.nn.patch import PatchEmbed
from multiway.nn.vit import VisionConfig, VisionTransformer

SMALL = VisionConfig(16, 4, 16, 1, 2)


def masks(rows: int, patches: int, hidden: int, seed: int = 0) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    return torch.rand(rows, patches, generator=make).argsort(1) < hidden


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 11), st.integers(0, 9))
def test_put_back_undoes_visible(rows: int, patches: int, hidden: int, seed: int) -> None:
    """Unshuffle after shuffle, against a loop over patches."""
    mask = masks(rows, patches, min(hidden, patches - 1), seed)
    tokens, token = torch.randn(rows, patches, 3), torch.full((3,), 7.0)
    kept = visible(mask)
    assert (kept.diff(dim=1) > 0).all()
    back = put_back(tokens.gather(1, kept[..., None].expand(-1, -1, 3)), mask, token)
    for row in range(rows):
        for patch in range(patches):
            assert torch.equal(back[row, patch], token if mask[row, patch] else tokens[row, patch])


def test_pictures_must_show_equally_many_patches() -> None:
    uneven = torch.tensor([[True, False, False], [True, True, False]])
    with pytest.raises(ValueError, match="show 1 to 2 patches"):
        visible(uneven)
    with pytest.raises(ValueError, match="one at least"):
        visible(torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(16, 16), (8, 24)])
def test_cut_is_the_embeddings_cut_and_join_its_inverse(shape: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *shape)
    patches = cut(images, 4)
    assert torch.equal(patches, PatchEmbed(4, 8).unfold(images))
    assert torch.equal(join(patches, shape, 4), images)


def test_blank_hides_the_squares_and_nothing_else() -> None:
    images, mask = torch.randn(2, 3, 16, 16), masks(2, 16, 5)
    images[0, :, :4, :4] = torch.nan  # also what is no number
    mask[0, 0] = True
    patches = cut(blank(images, mask, 4), 4)
    assert (patches[mask] == 0).all() and torch.equal(patches[~mask], cut(images, 4)[~mask])


@pytest.mark.parametrize(
    "changed", [{}, {"stem": "conv"}, {"pool": "mean"}, {"positions": "sincos"}, {"pre_norm": True}]
)
def test_covered_pictures_are_read_as_if_the_token_were_there_from_the_start(changed: dict) -> None:
    torch.manual_seed(0)
    tower = VisionTransformer(replace(SMALL, **changed)).eval()
    images, mask, token = torch.randn(3, 3, 16, 16), masks(3, 16, 9), torch.randn(16)
    found = cover(tower, images, mask, token)
    assert found.shape == (3, tower.prefix + 16, 16)
    patches = found[:, tower.prefix :]
    other = images + join(cut(torch.randn_like(images), 4) * mask[..., None], (16, 16), 4)
    assert not torch.equal(images, other) and torch.equal(cover(tower, other, mask, token), found)
    positions = torch.as_tensor(tower.positions)
    for row, patch in mask.nonzero().tolist():
        assert torch.equal(patches[row, patch], tower.pre_norm(token + positions[patch]))
    if tower.config.stem == "patch":
        assert torch.equal(patches[~mask], tower.embed(images)[:, tower.prefix :][~mask])
    # With nothing hidden all is as without any of this.
    none = torch.zeros_like(mask)
    whole = tower(images)
    tokens = tower.transformer(cover(tower, images, none, token))
    assert torch.equal(tokens, whole.tokens) and torch.equal(pooled(tower, tokens).pooled, whole.pooled)
