"""Gaussian blur with a deviation of its own for each picture, as two banded matrix products."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multiway.data.bands import both_ways

__all__ = ["blur", "tenth_of"]


def tenth_of(size: int) -> int:
    """SimCLR's kernel for pictures of a side: a tenth of it, odd (Chen et al. 2020, arXiv 2002.05709, appendix A); 3 at least."""
    return max(3, 2 * (size // 10 // 2) + 1)


def blur(images: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Convolve with exp(-x^2 / (2 sigma^2)), cut off at the kernel's ends and scaled to sum to 1; edges are reflected.

    Args:
        images: (n, C, S, S) in [0, 1].
        sigma: (n,) float64 standard deviations, in pixels.
        kernel: taps, odd and at most 2 S - 1.

    Returns:
        (n, C, S, S), equal to torchvision's `gaussian_blur`.
    """
    count, side = len(images), images.shape[-1]
    distance = torch.arange(kernel, dtype=sigma.dtype, device=sigma.device) - kernel // 2
    # In float64 and then rounded, so that a row's weights do not hang on how many rows are computed beside it.
    taps = (-0.5 * (distance / sigma[:, None]) ** 2).exp()
    taps = (taps / taps.sum(1, keepdim=True)).to(images.device, images.dtype)
    pixels = torch.from_numpy(_reflected(side, kernel)).to(images.device)
    band = pixels.expand(count, -1, -1), taps[:, None].expand(-1, side, -1)
    return both_ways(images, band, band).clamp_(0.0, 1.0)


@lru_cache(maxsize=16)
def _reflected(side: int, kernel: int) -> NDArray[np.int64]:
    """(S, K) which pixel each tap of each place reads; the edge pixel itself is not repeated.

    No tensor, since what is kept here outlives whoever asked: one made while a plan works out shapes has no numbers in it.
    """
    pixels = np.abs(np.arange(side)[:, None] + np.arange(kernel) - kernel // 2)
    return np.minimum(pixels, 2 * (side - 1) - pixels)
