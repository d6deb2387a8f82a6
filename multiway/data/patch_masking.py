"""Which patches of a picture are hidden: in blocks, one by one, or on a grid.

In blocks: Bao et al., BEiT, 2022, arXiv 2106.08254, section 2.3 and algorithm 1: rectangles of random size and shape are hidden
until the wanted share of patches is. Single patches can be guessed from their neighbours; a block asks for what is in the picture.

At random: K. He et al., MAE, 2022, arXiv 2111.06377, section 3: patches in random order, of which the first are kept; so many are
hidden that neighbours no longer tell much. In squares of several patches: Z. Xie et al., SimMIM, 2022, arXiv 2111.09886, section 3.2.

On a grid: one of every so many patches is kept (MAE, figure 6); the easiest to guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from multiway.config import LATER

__all__ = ["PatchMasking", "mask_patches"]

_BLOCKS = 32  # rectangles tried for one picture, at most
_NUMBERS = 4  # draws that one rectangle takes


@dataclass(frozen=True)
class PatchMasking:
    """How patches are masked.

    Attributes:
        ratio: share of the patches that is masked; 0 masks nothing.
        patch: side of a patch, in pixels.
        least: patches of a block, at least.
        aspect: of a block, at least; at most its inverse.
        ratios: for methods that use the parts of a batch in different ways: the ratio of each of its equal parts, in order,
            instead of `ratio`.
        sampling: `block`, rounded to the nearest number of patches; `random`, where a started patch is hidden, as the codes of MAE
            and SimMIM have it; `grid`, where the share is 3/4, 8/9, 15/16, ...
        unit: of `random`, the side in pixels of the squares that are hidden or shown as one; 0 for a patch.
    """

    ratio: float = 0.0
    patch: int = 16
    least: int = 16
    aspect: float = 0.3
    ratios: tuple[float, ...] = ()
    sampling: Literal["block", "random", "grid"] = field(default="block", metadata=LATER)
    unit: int = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        shares = (self.ratio, *self.ratios)
        if (
            not all(0.0 <= share < 1.0 for share in shares)
            or self.patch < 1
            or self.least < 1
            or not 0 < self.aspect <= 1
        ):
            raise ValueError(
                f"patch masking needs ratios in [0, 1), patch and least of 1 or more, and an aspect in (0, 1]; given {self}"
            )
        if self.unit < 0 or self.unit % self.patch or (self.unit and self.sampling != "random"):
            raise ValueError(
                f"unit is {self.unit} with patches of {self.patch} and sampling '{self.sampling}'; expected a multiple of the patch, "
                "and sampling 'random'; 0 for single patches"
            )
        if self.sampling == "grid" and any(not _is_grid(share) for share in (self.ratios or (self.ratio,))):
            raise ValueError(
                f"on a grid one of every 4, 9, 16, ... patches is kept; given {self}: choose a ratio of 0.75, 8/9, 15/16, ..."
            )

    @property
    def some(self) -> bool:
        """Whether any patch is masked at all."""
        return any(share > 0 for share in (self.ratios or (self.ratio,)))

    def draws(self, size: int) -> int:
        """Uniform numbers that one picture of `size` pixels needs."""
        if self.sampling != "block":
            return (size // self.side) ** 2
        return _BLOCKS * _NUMBERS + (size // self.patch) ** 2

    @property
    def side(self) -> int:
        """Of what is hidden or shown as one, in pixels, where it is not hidden in blocks."""
        return self.unit or self.patch


def mask_patches(draws: np.ndarray, size: int, masking: PatchMasking) -> Tensor:
    """Choose patches.

    Args:
        draws: (B, `masking.draws(size)`) in [0, 1), a function of (seed, epoch, sample).
        size: side of the picture, in pixels.
        masking: shares and shapes.

    Returns:
        (B, N) bool, True at masked patches, row by row; every row of a part has equally many.

    Raises:
        ValueError: if patches, or the squares that they are hidden in, do not divide the picture.
    """
    if size % masking.patch:
        raise ValueError(
            f"size {size} is not divisible by patches of {masking.patch}; change view.size or patches.patch"
        )
    if size % masking.side:
        raise ValueError(
            f"size {size} is not divisible by the {masking.side} pixels that are hidden as one; change view.size or patches.unit"
        )
    side = size // masking.patch
    rows = len(draws)
    ratios = masking.ratios or (masking.ratio,)
    if masking.sampling != "block":
        shares = np.array([ratios[row * len(ratios) // rows] for row in range(rows)])
        chosen = _random(draws, shares) if masking.sampling == "random" else _grid(size // masking.side, shares)
        cells = chosen.reshape(rows, size // masking.side, size // masking.side)
        scale = masking.side // masking.patch
        return torch.from_numpy(cells.repeat(scale, 1).repeat(scale, 2).reshape(rows, -1))
    masked = np.zeros((rows, side, side), dtype=bool)
    for row in range(rows):
        wanted = round(ratios[row * len(ratios) // rows] * side * side)
        _blocks(masked[row], draws[row, : _BLOCKS * _NUMBERS].reshape(_BLOCKS, _NUMBERS), wanted, masking)
        # What no block fitted into is taken patch by patch, so that equally many are hidden in every picture.
        missing = wanted - int(masked[row].sum())
        order = np.where(masked[row].ravel(), 2.0, draws[row, _BLOCKS * _NUMBERS :])
        masked[row].ravel()[np.argsort(order, kind="stable")[:missing]] = True
    return torch.from_numpy(masked.reshape(rows, -1))


def _blocks(masked: np.ndarray, draws: np.ndarray, wanted: int, masking: PatchMasking) -> None:
    """Hide rectangles in place, as long as one more fits into what is still wanted."""
    side = masked.shape[0]
    low, high = math.log(masking.aspect), math.log(1 / masking.aspect)
    for area, shape, down, right in draws:
        left = wanted - int(masked.sum())
        if left < min(masking.least, wanted):
            return
        least = min(masking.least, left)
        area, shape = least + area * (left - least), math.exp(low + shape * (high - low))
        height, width = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if not (0 < height <= side and 0 < width <= side):
            continue
        top, start = int(down * (side - height + 1)), int(right * (side - width + 1))
        block = masked[top : top + height, start : start + width]
        if 0 < block.size - int(block.sum()) <= left:
            block[...] = True


def _random(draws: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(B, cells) bool: of the cells in the order of their draws the first are kept, the rest hidden."""
    cells = draws.shape[1]
    # A started cell is hidden; with a little play, since 0.9 of 10 cells is more than 9 of them in binary.
    hidden = np.ceil(shares * cells - 1e-9).astype(np.int64)
    place = draws.argsort(1, kind="stable").argsort(1, kind="stable")
    return np.asarray(place >= (cells - hidden)[:, None])


def _grid(side: int, shares: np.ndarray) -> np.ndarray:
    """(B, cells) bool: all are hidden but the first of every square of them; the same in every picture."""
    every = np.round((1.0 - shares) ** -0.5).astype(np.int64)[:, None, None]
    row, column = np.indices((side, side))
    return np.asarray((row % every != 0) | (column % every != 0)).reshape(len(shares), -1)


def _is_grid(share: float) -> bool:
    every = (1.0 - share) ** -0.5
    return abs(every - round(every)) < 1e-6
