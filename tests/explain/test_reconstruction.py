"""What is hidden, what is shown of it, and what may come back."""

import pytest
import torch
from torch import nn

from multiway.explain.reconstruction import reconstruct
from multiway.methods.mae import Mae, MaeConfig


class Fills(nn.Module):
    """Fills hidden patches of 4 pixels with ones."""

    hides = 4

    def reconstruct(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        side = images.shape[-1] // 4
        cells = mask.view(-1, 1, side, side).repeat_interleave(4, 2).repeat_interleave(4, 3)
        return torch.where(cells, 1.0, images)


IMAGES = 2 + torch.rand(3, 3, 16, 16)


def test_hidden_patches_are_blank_and_filled_and_the_rest_is_left() -> None:
    found = reconstruct(Fills(), IMAGES, 0.75, seed=2)
    assert found.mask.shape == (3, 16) and found.mask.sum(1).tolist() == [12, 12, 12]
    assert not torch.equal(found.mask[0], found.mask[1])
    for row in range(3):
        for place in range(16):
            top, left = 4 * (place // 4), 4 * (place % 4)
            box = (row, slice(None), slice(top, top + 4), slice(left, left + 4))
            if found.mask[row, place]:
                assert (found.shown[box] == 0).all() and (found.filled[box] == 1).all()
            else:
                assert torch.equal(found.shown[box], IMAGES[box]) and torch.equal(found.filled[box], IMAGES[box])


def test_a_pictures_mask_is_its_own() -> None:
    alone, together = reconstruct(Fills(), IMAGES[:1], seed=5), reconstruct(Fills(), IMAGES, seed=5)
    assert torch.equal(alone.mask[0], together.mask[0])
    assert not torch.equal(reconstruct(Fills(), IMAGES, seed=6).mask, together.mask)


def test_a_masked_autoencoder_keeps_what_is_visible() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    found = reconstruct(Mae(MaeConfig()).eval(), images, 0.5)
    hidden = found.shown == 0
    torch.testing.assert_close(found.filled[~hidden], images[~hidden])
    assert not torch.allclose(found.filled[hidden], images[hidden])


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="fills in no hidden"):
        reconstruct(nn.Linear(2, 2), IMAGES)
    with pytest.raises(ValueError, match="hides 16 of 16"):
        reconstruct(Fills(), IMAGES, 0.99)

    class Smaller(Fills):
        def reconstruct(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return images[..., :8]

    with pytest.raises(ValueError, match=r"returned \(3, 3, 16, 8\)"):
        reconstruct(Smaller(), IMAGES)
