"""Pictures to tokens: patches, and where they are.

Patch embedding of ViT (arXiv:2010.11929, equation 1); the convolutional stem of "Early Convolutions Help Transformers See
Better" (arXiv:2106.14881); fixed sine-cosine positions of MAE (arXiv:2111.06377, A.1).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvStem", "PatchEmbed", "resize_positions", "sincos_positions"]


class PatchEmbed(nn.Module):
    """Each patch, flattened, through one linear map.

    The same as a convolution with its stride equal to its size, and up to twice as fast on a CPU (4-pixel patches; equal
    at 16). The weight is laid out as that convolution's, flattened: `Conv2d(3, W, patch, patch).weight.flatten(1)`.

    Args:
        patch: side of a patch in pixels.
        width: W.
        bias: CLIP has none.
        edges: whether pixels that fill no patch, at the right and at the bottom, are left unseen, as a convolution leaves them; else
            such pictures are refused.
    """

    def __init__(self, patch: int, width: int, *, channels: int = 3, bias: bool = True, edges: bool = False) -> None:
        super().__init__()
        self.patch, self.edges = patch, edges
        self.project = nn.Linear(channels * patch * patch, width, bias=bias)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches.

        Raises:
            ValueError: if the picture is not a whole number of patches; with `edges`, if it is smaller than one.
        """
        height, width = images.shape[-2:]
        p = self.patch
        if min(height, width) < p or ((height % p or width % p) and not self.edges):
            raise ValueError(
                f"images of {height}x{width} pixels do not divide into patches of {p}; resize or pad them to a multiple "
                f"of {p}, for example {max(round(height / p), 1) * p}x{max(round(width / p), 1) * p}"
            )
        return height // p, width // p

    def unfold(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, C x patch x patch), patches row by row, each flattened channel first."""
        rows, columns = self.grid(images)
        p = self.patch
        batch, channels = images.shape[:2]
        seen = images[..., : rows * p, : columns * p]
        cut = seen.reshape(batch, channels, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(batch, rows * columns, channels * p * p)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, W)."""
        return self.project(self.unfold(images))


class ConvStem(PatchEmbed):
    """3 x 3 convolutions of stride 2 down to the grid of patches, then a linear map: as many tokens, far easier to train.

    Xiao et al. 2021, arXiv:2106.14881, section 4, with as many channels in the last convolution as the tokens have, half in
    the one before, and so on. Without the batch norms there: their statistics would have to be shared by ranks and by a
    momentum twin. What a small ViT learns of shapes in hundreds of thousands of pictures it learns in ten thousand with it
    (`benchmarks/stem.py`).

    Args:
        patch: pixels between two tokens; a power of 2.
        width: W.

    Raises:
        ValueError: if the patch is no power of 2, or the width is not divisible by it.
    """

    def __init__(self, patch: int, width: int, *, channels: int = 3, bias: bool = True) -> None:
        stages = patch.bit_length() - 1
        if patch < 2 or patch != 1 << stages or width % (patch // 2):
            raise ValueError(
                f"a convolutional stem halves the picture: patch {patch} is no power of 2, or half of it does not divide the "
                f"width {width}; change one of them, or take stem='patch'"
            )
        super().__init__(patch, width, channels=channels, bias=bias)
        self.project = nn.Linear(width, width, bias=bias)
        widths = [channels, *(width >> (stages - 1 - stage) for stage in range(stages))]
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(widths)
        )
        # Features of unit size, well above the positions: with the 0.02 of a patch embedding shapes are learned at half the pace.
        for layer in (*self.stages, self.project):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def unfold(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, W), before the linear map; all are computed, whichever are kept."""
        self.grid(images)
        # Channels last: convolutions take 6 to 18 % less of their time so, and what comes out is in the order of tokens.
        images = images.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            images = F.gelu(stage(images))
        return images.flatten(2).transpose(1, 2)


def resize_positions(
    positions: Tensor,
    old: tuple[int, int],
    new: tuple[int, int],
    mode: Literal["bicubic", "bilinear"] = "bicubic",
    *,
    antialias: bool = False,
) -> Tensor:
    """Position embeddings of one grid, interpolated to another (arXiv:2010.11929, section 3.2).

    Args:
        positions: (N, W), row by row.
        old, new: (rows, columns); the same grid returns `positions` itself.
        antialias: whether a smaller grid takes the mean over what it skips, as DINOv2's weights with registers were trained for.

    Returns:
        (rows x columns, W) of the new grid.

    Raises:
        ValueError: if the positions are not of the old grid.
    """
    if old[0] * old[1] != positions.shape[0]:
        raise ValueError(
            f"{positions.shape[0]} positions for a grid of {old[0]}x{old[1]} patches; leave the class token's out"
        )
    if old == new:
        return positions
    grid = positions.T.reshape(1, -1, *old).float()
    grid = F.interpolate(grid, size=new, mode=mode, align_corners=False, antialias=antialias)
    return grid.reshape(positions.shape[1], -1).T.to(positions.dtype)


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed 2-d positions: half of the channels tell the column, half the row.

    Returns:
        (rows x columns, W).

    Raises:
        ValueError: if the width is no multiple of 4 (sine and cosine, of row and column).
    """
    if width % 4:
        raise ValueError(f"width {width} is no multiple of 4, which sine-cosine positions need; choose one that is")
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    parts = []
    for place in (column.flatten(), row.flatten()):
        angle = place[:, None] * frequency
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, 1).float()
