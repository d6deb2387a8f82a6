"""What positions say of one another: cosine similarity of the position embeddings of patches.

Dosovitskiy et al., ViT, 2021, arXiv 2010.11929, section 4.5 and figure 7, centre: learned embeddings of near patches are alike, and
those of one row or column, so that they know the grid without having been told.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

__all__ = ["position_similarity"]


def position_similarity(positions: Tensor) -> Tensor:
    """Each position's likeness to all others.

    Args:
        positions: (side^2, W), row by row.

    Returns:
        (side, side, side, side) float32 cosines: [r, c] is the map of the patch in row r and column c.

    Raises:
        ValueError: if they are of no square grid.
    """
    side = math.isqrt(len(positions))
    if side * side != len(positions) or not side:
        raise ValueError(f"{len(positions)} positions are of no square grid; leave the class token's out")
    unit = F.normalize(positions.detach().float(), dim=1)
    return (unit @ unit.T).clamp(-1, 1).reshape(side, side, side, side)
