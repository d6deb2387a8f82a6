"""The grid that a picture's tokens came from: what positions by displacement, which are of one grid, need to know."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["square_grid"]


def square_grid(tokens: Tensor) -> tuple[int, int]:
    """Rows and columns of patches.

    Args:
        tokens: (B, 1 + N, W) a class token, which has no position and is the same in all pictures, and then the patches.

    Raises:
        ValueError: for a number of patches that is no square, and for two pictures, one after the other.
    """
    count = tokens.shape[1]
    side = round(max(count - 1, 0) ** 0.5)
    # Two pictures may be as many tokens as one: twice 1 + 2 x 2 are 1 + 3 x 3, twice 1 + 12 x 12 are 1 + 17 x 17.
    half = round(max(count / 2 - 1, 0) ** 0.5)
    two = count == 2 * (1 + half**2) and torch.equal(tokens[:, 0], tokens[:, count // 2])
    if two or count < 2 or side**2 != count - 1:
        raise ValueError(
            f"{count} tokens of a picture are not a class token and one square grid of patches; give square pictures, and fuse a "
            "text with each picture by itself, the pooled vectors side by side"
        )
    return side, side
