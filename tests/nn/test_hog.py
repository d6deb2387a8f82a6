"""Histograms of oriented gradients, against a loop over pixels and against what is known of plain edges."""

import math

import pytest
import torch
from torch import Tensor

from multiway.nn.hog import hog, hog_patches


def slow(image: Tensor, cell: int, bins: int) -> Tensor:
    """(H, W) float64 -> (bins, H / cell, W / cell), pixel by pixel."""
    height, width = image.shape
    votes = torch.zeros(bins, height // cell, width // cell, dtype=torch.float64)

    def value(row: int, column: int) -> float:  # reflected, the border pixel itself not repeated
        row = -row if row < 0 else 2 * (height - 1) - row if row >= height else row
        column = -column if column < 0 else 2 * (width - 1) - column if column >= width else column
        return float(image[row, column])

    for i in range(height):
        for j in range(width):
            x = sum(w * (value(i + d, j - 1) - value(i + d, j + 1)) for d, w in ((-1, 1), (0, 2), (1, 1)))
            y = sum(w * (value(i - 1, j + d) - value(i + 1, j + d)) for d, w in ((-1, 1), (0, 2), (1, 1)))
            number = math.floor(math.atan2(x, y) / math.pi * bins) % bins
            votes[number, i // cell, j // cell] += math.hypot(x, y)
    return votes / votes.norm(dim=0, keepdim=True).clamp(min=1e-12)


@pytest.mark.parametrize(("cell", "bins"), [(8, 9), (4, 6)])
def test_equal_to_a_loop_over_pixels(cell: int, bins: int) -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 2, 8, 16)
    found = hog(images, cell, bins)
    assert found.shape == (1, 2, bins, 8 // cell, 16 // cell)
    for channel in range(2):
        wanted = slow(images[0, channel].double(), cell, bins)
        torch.testing.assert_close(found[0, channel].double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("degrees", [10, 50, 90, 130, 170])
def test_a_ramp_votes_for_its_own_direction_alone(degrees: int) -> None:
    angle = math.radians(degrees)
    row, column = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    ramp = math.sin(angle) * column + math.cos(angle) * row
    inner = hog(ramp[None, None])[0, 0, :, 1, 1]  # away from the reflected border
    wanted = torch.zeros(9)
    wanted[degrees * 9 // 180] = 1.0  # from the vertical, half a turn in nine parts
    torch.testing.assert_close(inner, wanted)


def test_neither_brightness_nor_contrast_matters_nor_the_sign() -> None:
    images = torch.rand(2, 3, 16, 16)
    scale, shift = torch.tensor([0.5, 2.0, 30.0]).view(3, 1, 1), torch.tensor([1.0, -4.0, 0.2]).view(3, 1, 1)
    torch.testing.assert_close(hog(images * scale + shift), hog(images), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(hog(-images).norm(dim=2), torch.ones(2, 3, 2, 2))


@pytest.mark.parametrize("scale", [1.0, 0.1, 1 / 3, 1e-3])
def test_rounding_does_not_turn_an_upright_edge(scale: float) -> None:
    edge = torch.zeros(16, 16)
    edge[7:] = 0.7
    for turned, number in ((edge, 0), (edge.T, 4)):
        found = hog((turned * scale)[None, None], cell=16)[0, 0, :, 0, 0]
        assert found[number] == pytest.approx(1.0)


def test_a_plain_surface_has_no_direction() -> None:
    assert hog(torch.full((1, 3, 16, 16), 0.1234567)).abs().max() < 1e-2
    step = torch.full((1, 1, 8, 8), 0.5)
    step[0, 0, 4, 4] += 1 / 255  # one level in one pixel is something
    assert hog(step)[0, 0, :, 0, 0].norm() == pytest.approx(1.0)


def test_patches_have_their_own_cells() -> None:
    images = torch.rand(2, 3, 32, 48)
    found, cells = hog_patches(images, 16), hog(images)
    assert found.shape == (2, 6, 108)
    # Patch 4 is in the second row and the second column.
    assert torch.equal(found[:, 4], cells[:, :, :, 2:4, 2:4].reshape(2, -1))
    with pytest.raises(ValueError, match="cells of 8 pixels do not divide patches of 12"):
        hog_patches(images, 12)
    with pytest.raises(ValueError, match="do not divide into cells of 7"):
        hog(images, 7)
