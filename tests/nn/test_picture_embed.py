"""Class token, patches and what hides them, before blocks that other modalities share."""

import pytest
import torch

from multiway.nn.picture_embed import PictureEmbed


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_what_is_hidden_cannot_be_seen_by_anyone(stem: str) -> None:
    """Hidden pixels change no token, to the bit; with convolutions a neighbour would else see their border."""
    torch.manual_seed(0)
    embed = PictureEmbed(32, 8, 16, stem)  # type: ignore[arg-type]
    images = torch.randn(2, 3, 32, 32)
    hidden = torch.rand(2, 16) < 0.4
    grid = hidden.view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = torch.where(grid, torch.randn_like(images), images)
    assert torch.equal(embed(images, hidden), embed(other, hidden))
    assert not torch.equal(embed(images), embed(other))
