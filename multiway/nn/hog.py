"""Histograms of oriented gradients: how much edge there is in each direction, in each cell of a picture.

N. Dalal, B. Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005; as targets: C. Wei et al., Masked Feature
Prediction (MaskFeat), 2022, arXiv 2112.09133, section 3.2. For every channel c by itself,

    g = Sobel(x_c),    bin = floor(9 angle(g) / pi) mod 9,    h_cell[bin] = sum of |g|,    h_cell <- h_cell / ||h_cell||

Directions that differ by half a turn are one. The norm of each cell's histogram, which the paper finds essential, takes away how
strong the contrast is; differences take away how bright the picture is.

As in the paper's code (`HOGLayerC` of SlowFast): Sobel's kernels, reflected borders, a vote for one bin alone, each cell normalised
by itself; the angle is measured from the vertical. Unlike it, what is rounding votes for nothing and turns no edge. Dalal and Triggs
had centred differences, votes shared by neighbouring bins, and blocks of cells.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["hog", "hog_patches"]

_PLAIN = 1e-5  # mean strength of a gradient below which there is none; one level of 255 in one pixel of 64 makes more than 1e-4
_UPRIGHT = 1e-5  # share of a gradient's strength below which a component of it is rounding


@torch.no_grad()
def hog(images: Tensor, cell: int = 8, bins: int = 9) -> Tensor:
    """One histogram for each channel and cell.

    Args:
        images: (B, C, H, W); any affine scale of the values gives the same.
        cell: side of a cell, in pixels; divides the picture.
        bins: directions.

    Returns:
        (B, C, bins, H / cell, W / cell) float32, each histogram of length 1, or 0 where nothing changes.

    Raises:
        ValueError: if cells do not divide the picture, or there is no direction.
    """
    height, width = images.shape[2:]
    if cell < 1 or bins < 1 or height % cell or width % cell:
        raise ValueError(
            f"pictures of {height}x{width} do not divide into cells of {cell} with {bins} directions; change the cell, or the size"
        )
    # Half precision would sort directions into the wrong bins.
    pixels = F.pad(images.float(), (1, 1, 1, 1), mode="reflect").flatten(0, 1)[:, None]
    across = pixels.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    with torch.autocast(images.device.type, enabled=False):
        gradient = F.conv2d(pixels, torch.stack([across, across.T])[:, None])
    strength = gradient.norm(dim=1)
    # An upright edge lies between the first bin and the last; which of them must not be for rounding to say.
    gradient = torch.where(gradient.abs() < _UPRIGHT * strength[:, None], 0.0, gradient)
    angle = torch.atan2(gradient[:, 0], gradient[:, 1])
    number = (angle / math.pi * bins).floor().long() % bins
    votes = strength.new_zeros(len(strength), bins, height, width).scatter_(1, number[:, None], strength[:, None])
    # The mean instead of the sum: the length is divided out. What rounding alone makes of a plain surface stays next to nothing.
    histograms = F.normalize(F.avg_pool2d(votes, cell), dim=1, eps=_PLAIN)
    return histograms.view(*images.shape[:2], bins, height // cell, width // cell)


def hog_patches(images: Tensor, patch: int, cell: int = 8, bins: int = 9) -> Tensor:
    """The histograms of each patch's cells, laid end to end: (B, N, C x bins x cells); for 16 pixels 3 x 9 x 4 = 108 numbers.

    Raises:
        ValueError: if cells do not divide a patch.
    """
    if patch % cell:
        raise ValueError(f"cells of {cell} pixels do not divide patches of {patch}; choose a cell that does")
    side = patch // cell
    return F.unfold(hog(images, cell, bins).flatten(1, 2), side, stride=side).transpose(1, 2)
