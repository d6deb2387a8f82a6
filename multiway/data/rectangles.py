"""Random rectangles of a picture, and drawing them at another size: the random resized crop, as two banded matrix products.

A rectangle with upright sides is resampled along columns and rows by themselves, so a picture X becomes R X C with two
matrices for each row of the batch, zero but for the few pixels that a place is made of (`bands.py`). Their weights are Pillow's, so a
rectangle that shrinks is averaged, not sampled.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from multiway.data.bands import Bands, both_ways

__all__ = ["Filter", "bands", "rectangles", "resample"]

Filter = Literal["bilinear", "bicubic"]


def rectangles(draws: Tensor, scale: tuple[float, float], aspect: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random rectangle for each row (Szegedy et al. 2015, arXiv 1409.4842, section 6).

    The published code draws area and aspect ratio anew until the rectangle fits. Here the ratio is drawn among those that fit
    the area, which takes a fixed number of draws; only areas above 3/4, few of which fit there, become more frequent.

    Args:
        draws: (B, 4) in [0, 1): area, aspect ratio, horizontal and vertical position.
        scale: the rectangle's area lies between these shares of the picture's.
        aspect: the rectangle's width over its height lies in [1 / aspect, aspect], log-uniformly.

    Returns:
        Width and height as shares of the picture's, and the centre's x and y in [-1, 1] from edge to edge; (B,) each.
    """
    area = scale[0] + (scale[1] - scale[0]) * draws[:, 0]
    widest = torch.minimum(area.reciprocal().log(), torch.full_like(area, math.log(aspect)))
    stretch = (0.5 * widest * (2 * draws[:, 1] - 1)).exp()
    width, height = (area.sqrt() * stretch).clamp(max=1.0), (area.sqrt() / stretch).clamp(max=1.0)
    return width, height, (1 - width) * (2 * draws[:, 2] - 1), (1 - height) * (2 * draws[:, 3] - 1)


def resample(
    images: Tensor,
    starts: Tensor,
    lengths: Tensor,
    mirrored: Tensor,
    size: int,
    kind: Filter = "bilinear",
) -> Tensor:
    """Each row's rectangle at a size of its own, equal to Pillow's `resize` with a `box`.

    Args:
        images: (n, C, S, S) in [0, 1].
        starts: (2, n), left and top edge of the rectangle in pixels, fractions too.
        lengths: (2, n), its width and height in pixels.
        mirrored: (n,) bool, rows that are turned left to right.
        size: side of the result in pixels.
        kind: Pillow's filter by name.

    Returns:
        (n, C, size, size) in [0, 1]; what bicubic weights carry beyond is cut off.
    """
    return both_ways(images, *bands(starts, lengths, mirrored, images.shape[-1], size, kind)).clamp_(0.0, 1.0)


def bands(
    starts: Tensor, lengths: Tensor, mirrored: Tensor, side: int, size: int, kind: Filter = "bilinear"
) -> tuple[Bands, Bands]:
    """Which pixels of a picture of `side` make each of the result's, across and down, and how much each counts.

    The other arguments as of `resample`.
    """
    flipped = torch.stack([mirrored, torch.zeros_like(mirrored)])
    step = lengths / size
    # A step of more than a pixel widens the filter, so that every pixel passed over counts.
    width = step.clamp(min=1.0)[..., None, None]
    places = torch.arange(size, device=starts.device, dtype=starts.dtype) + 0.5
    places = torch.where(flipped[..., None], size - places, places)
    centres = (starts[..., None] + places * step[..., None])[..., None]
    reach = 2.0 if kind == "bicubic" else 1.0
    # As many as the longest rectangle could need: sums of weights round by how many there are, and no row's bits may depend on
    # the rows beside it. What lies farther off or outside the picture weighs nothing.
    taps = min(side, math.ceil(2.0 * reach * max(1.0, side / size)) + 1)
    first = (centres - reach * width - 0.5).ceil_().clamp_(0, side - taps)
    pixels = first + torch.arange(taps, device=starts.device, dtype=starts.dtype)
    away = (pixels + 0.5 - centres).abs_().div_(width)
    weights = _cubic(away) if kind == "bicubic" else away.neg_().add_(1.0).clamp_(min=0.0)
    weights.div_(weights.sum(-1, keepdim=True))
    (left, top), (across, down) = pixels.long(), weights
    return (left, across), (top, down)


def _cubic(away: Tensor) -> Tensor:
    """Keys' cubic at distances (...) >= 0 with a = -1/2, as Pillow has it (Keys 1981, equation 15)."""
    # Each polynomial is 0 where the other takes over, so their sum needs no choosing.
    near, far = away.clamp(max=1.0), away.clamp(1.0, 2.0)
    near = (1.5 * near - 2.5).mul_(near).mul_(near).add_(1.0)
    return (-0.5 * far + 2.5).mul_(far).sub_(4.0).mul_(far).add_(2.0).add_(near)
