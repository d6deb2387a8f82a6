"""Products with matrices that are zero but for a few entries of each row: what resampling and blurring a picture come to.

A place of the result is the weighted sum of a handful of lines of the picture, which is what bags of embeddings are: one kernel that
reads these lines alone. Written as a product with the whole matrix, a blur of 23 taps over 224 lines multiplies nine zeros for
each number.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Bands", "both_ways"]

Bands = tuple[Tensor, Tensor]
"""(n, P, T) int64 numbers of lines, each from 0 to S - 1, and (n, P, T) their weights, of each of the P places of n results."""


def both_ways(images: Tensor, across: Bands, down: Bands) -> Tensor:
    """Sum lines, then columns.

    A row's bits depend on no other row: each place is summed by itself, in the order of its taps.

    Args:
        images: (n, C, S, S).
        across: which columns make each column of the result, and with what weights, in the images' dtype.
        down: the same of its lines.

    Returns:
        (n, C, P down, P across).
    """
    return _turned(_summed(_turned(_summed(images, *down)), *across))


def _summed(images: Tensor, lines: Tensor, weights: Tensor) -> Tensor:
    """(n, C, S, W) -> (n, C, P, W)."""
    count, channels, side, width = images.shape
    places, taps = lines.shape[1:]
    # Lines of all pictures and channels are numbered through.
    first = (torch.arange(count * channels, device=images.device) * side).view(count, channels, 1)
    numbers = (first + lines.reshape(count, 1, -1)).view(-1)
    shares = weights[:, None].expand(count, channels, places, taps).reshape(-1)
    bags = torch.arange(0, len(numbers), taps, device=images.device)
    table = images.reshape(-1, width)
    summed = F.embedding_bag(numbers, table, bags, mode="sum", per_sample_weights=shares)
    return summed.view(count, channels, places, width)


def _turned(images: Tensor) -> Tensor:
    return images.transpose(2, 3).contiguous()
