"""What a picture becomes before the blocks of a transformer that other modalities share: a class token and patches, some of
which may be hidden (Bao et al., BEiT, 2022, arXiv 2106.08254, section 2.3).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from multiway.nn.hidden_patches import blank
from multiway.nn.patch import ConvStem, PatchEmbed, resize_positions

__all__ = ["PictureEmbed"]


class PictureEmbed(nn.Module):
    """Patches, a class token before them, and a mask token in place of hidden ones.

    Args:
        size, patch: in pixels; patches divide the size.
        width: W.
        stem: `patch` as published, `conv` for convolutions (`ConvStem`).
        positions: whether patches have learned positions of their own; without, the blocks know them by relative ones.

    Attributes:
        grid: (rows, columns) of patches at that size.

    Raises:
        ValueError: if patches do not divide the size.
    """

    def __init__(
        self, size: int, patch: int, width: int, stem: Literal["patch", "conv"] = "patch", *, positions: bool = True
    ) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"size {size} is not divisible by patch {patch}; change one of them")
        self.grid = (size // patch,) * 2
        self.patches = PatchEmbed(patch, width) if stem == "patch" else ConvStem(patch, width)
        if stem == "patch":
            nn.init.trunc_normal_(self.patches.project.weight, std=0.02)
        self.class_token = nn.Parameter(torch.empty(width))
        self.mask_token = nn.Parameter(torch.empty(width))
        self.class_position = nn.Parameter(torch.empty(width)) if positions else None
        self.positions = nn.Parameter(torch.empty(self.grid[0] * self.grid[1], width)) if positions else None
        for parameter in (self.class_token, self.mask_token, self.class_position, self.positions):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B, 3, H, W), and (B, N) bool patches to hide -> (B, 1 + N, W)."""
        if hidden is not None and isinstance(self.patches, ConvStem):
            images = blank(
                images, hidden, self.patches.patch
            )  # convolutions would tell its neighbours of a hidden patch
        patches = self.patches(images)
        first: Tensor = self.class_token
        if hidden is not None:
            patches = torch.where(hidden[..., None], self.mask_token.to(patches.dtype), patches)
        if self.positions is not None and self.class_position is not None:
            patches = patches + resize_positions(self.positions, self.grid, self.patches.grid(images))
            first = first + self.class_position
        return torch.cat([first.to(patches.dtype).expand(patches.shape[0], 1, -1), patches], 1)
