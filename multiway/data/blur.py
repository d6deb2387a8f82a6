"""Gaussian blur with a deviation of its own for each picture, as two matrix products."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

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
    count, channels, side, _ = images.shape
    distance = torch.arange(kernel, dtype=sigma.dtype, device=sigma.device) - kernel // 2
    # In float64 and then rounded, so that a row's weights do not hang on how many rows are computed beside it.
    taps = (-0.5 * (distance / sigma[:, None]) ** 2).exp()
    taps = (taps / taps.sum(1, keepdim=True)).to(images.dtype)
    taps = torch.cat([taps, torch.zeros_like(taps[:, :1])], 1).to(images.device)
    direct, left, right = (table.to(images.device) for table in _taps_at(side, kernel))
    matrix = _lay_out(taps, direct).add_(_lay_out(taps, left)).add_(_lay_out(taps, right))
    with torch.autocast(images.device.type, enabled=False):
        across = torch.bmm(images.reshape(count, channels * side, side), matrix.transpose(1, 2))
        return torch.matmul(matrix[:, None], across.view(images.shape)).clamp_(0.0, 1.0)


def _lay_out(taps: Tensor, table: Tensor) -> Tensor:
    return taps.index_select(1, table.flatten()).view(len(taps), *table.shape)


@lru_cache(maxsize=16)
def _taps_at(side: int, kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    """(S, S) each: which tap takes pixel j into pixel i directly, mirrored at the left edge and at the right; `kernel` for none."""
    i, j = torch.arange(side)[:, None], torch.arange(side)
    last = side - 1

    def tap(offset: Tensor, there: Tensor) -> Tensor:
        inside = there & (offset.abs() <= kernel // 2)
        return torch.where(inside, offset + kernel // 2, kernel)

    # The edge pixel itself is not repeated, so it has no mirror image.
    return tap(j - i, j >= 0), tap(-j - i, j > 0), tap(2 * last - j - i, j < last)
