"""Relative positions of the patches of a picture and a class token: a learned number for each displacement, added to the scores of
attention (Bao et al., BEiT, 2022, arXiv 2106.08254, section 2.2; Raffel et al., T5, 2020, arXiv 1910.10683).

BEiT pre-trains with one table for all blocks and tunes with one for each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.nn.displacements import resize_displacements

__all__ = ["OF_CLASS", "RelativePatches", "patch_index", "with_class"]

OF_CLASS = 3
"""Numbers of a class token, which has no place: for what it sees, what sees it, and itself."""


class RelativePatches(nn.Module):
    """Biases among a class token and patches.

    Args:
        heads: H.
        grid: (rows, columns) of patches, R and C.
        layers: tables, one for each block; None for one that all blocks share.

    Attributes:
        table: ((2 R - 1) (2 C - 1) + 3, layers x H), those of the class token last.
    """

    def __init__(self, heads: int, grid: tuple[int, int], layers: int | None = None) -> None:
        super().__init__()
        self.heads, self.grid, self.layers = heads, grid, layers
        near = (2 * grid[0] - 1) * (2 * grid[1] - 1)
        self.table = nn.Parameter(torch.zeros(near + OF_CLASS, (layers or 1) * heads))

    def forward(self, grid: tuple[int, int] | None = None) -> Tensor:
        """(layers, 1, H, 1 + N, 1 + N), or (1, H, 1 + N, 1 + N) where blocks share it; of another grid by interpolation
        (`nn/displacements.py`)."""
        grid = grid or self.grid
        index = patch_index(grid, self.table.device)
        table = torch.cat([resize_displacements(self.table[:-OF_CLASS], self.grid, grid), self.table[-OF_CLASS:]])
        size = index.shape[0]
        bias = table[index.flatten()].view(size, size, self.layers or 1, 1, self.heads).permute(2, 3, 4, 0, 1)
        return bias[0] if self.layers is None else bias


def patch_index(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(1 + N, 1 + N) int64: which number of a table each pair of tokens has, row by row of the displacements."""
    rows, columns = (torch.arange(side, device=device) for side in grid)
    row, column = (axis.flatten() for axis in torch.meshgrid(rows, columns, indexing="ij"))
    down = row[:, None] - row[None, :] + grid[0] - 1
    right = column[:, None] - column[None, :] + grid[1] - 1
    index = F.pad(down * (2 * grid[1] - 1) + right, (1, 0, 1, 0))
    return with_class(index, (2 * grid[0] - 1) * (2 * grid[1] - 1))


def with_class(index: Tensor, entries: int) -> Tensor:
    """(1 + N, 1 + N) displacements, in place, with first row and column for the class token, whose numbers come after `entries`."""
    index[0, :], index[:, 0], index[0, 0] = entries, entries + 1, entries + 2
    return index
