"""Relative positions: a learned number for each displacement, added to the scores of attention.

Among patches as in BEiT (Bao et al., 2022, arXiv 2106.08254), among words in one dimension, and one number for each
direction between the two: VLMo (Bao et al., 2022, arXiv 2111.02358; released code).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from multiway.nn.displacements import resize_displacements
from multiway.nn.relative_patches import OF_CLASS, patch_index, with_class

__all__ = ["RelativePositions"]


class RelativePositions(nn.Module):
    """Biases for all blocks from one table.

    Sequences begin with a class token each; in a pair the text comes first.

    Args:
        layers: of the transformer; each has numbers of its own.
        heads: H.
        grid: (rows, columns) of patches, without the class token.
        context: greatest number of tokens of a text, its class token included.
    """

    def __init__(self, layers: int, heads: int, grid: tuple[int, int], context: int) -> None:
        super().__init__()
        self.layers, self.heads, self.grid, self.context = layers, heads, grid, context
        self.near = (2 * grid[0] - 1) * (2 * grid[1] - 1)  # displacements of patches
        self.words = 2 * (context - 1) - 1  # displacements of words
        entries = self.near + OF_CLASS + self.words + OF_CLASS + 2
        self.table = nn.Parameter(torch.zeros(entries, layers * heads))

    def image(self, grid: tuple[int, int] | None = None) -> Tensor:
        """(layers, 1, H, N, N) among a class token and the patches of a grid; another grid interpolates the table
        (`nn/displacements.py`)."""
        grid = grid or self.grid
        return self._look(self._patches(grid), self._image_index(grid))

    def text(self, length: int) -> Tensor:
        """(layers, 1, H, L, L) among the tokens of a text.

        Raises:
            ValueError: if the text is longer than the context.
        """
        if length > self.context:
            raise ValueError(f"text of {length} tokens for a context of {self.context}; truncate it in the tokeniser")
        return self._look(self.table[self.near + OF_CLASS : -2], self._text_index(length))

    def pair(self, length: int, grid: tuple[int, int] | None = None) -> Tensor:
        """(layers, 1, H, L + N, L + N) among a text and a picture after it."""
        text, image = self.text(length), self.image(grid)
        there, back = self.table[-2:].view(2, self.layers, 1, self.heads, 1, 1)
        across = (length, image.shape[-1])
        above = torch.cat([text, there.expand(-1, -1, -1, *across)], -1)
        below = torch.cat([back.expand(-1, -1, -1, *across[::-1]), image], -1)
        return torch.cat([above, below], -2)

    def of_other_grid(self, table: Tensor) -> Tensor | None:
        """The table of a trained model that differs in its square grid of patches alone, as one for this grid.

        Args:
            table: (entries, layers x heads) with this one's context, layers and heads.

        Returns:
            As `self.table`; None where it is no such table.
        """
        rest = len(self.table) - self.near
        side = math.isqrt(max(len(table) - rest, 0))
        if table.ndim != 2 or table.shape[1] != self.table.shape[1] or side % 2 == 0 or side**2 + rest != len(table):
            return None
        near = resize_displacements(table[: side**2], ((side + 1) // 2,) * 2, self.grid)
        return torch.cat([near, table[side**2 :]])

    def _look(self, table: Tensor, index: Tensor) -> Tensor:
        """(E, layers x H) by (N, N) -> (layers, 1, H, N, N)."""
        size = index.shape[0]
        return table[index.flatten()].view(size, size, self.layers, 1, self.heads).permute(2, 3, 4, 0, 1)

    def _patches(self, grid: tuple[int, int]) -> Tensor:
        """The entries of patches, for any grid, and the class token's after them."""
        own = resize_displacements(self.table[: self.near], self.grid, grid)
        return torch.cat([own, self.table[self.near : self.near + OF_CLASS]])

    def _image_index(self, grid: tuple[int, int]) -> Tensor:
        return patch_index(grid, self.table.device)

    def _text_index(self, length: int) -> Tensor:
        place = torch.arange(length, device=self.table.device)
        return with_class(place[:, None] - place[None, :] + self.context - 2, self.words)
