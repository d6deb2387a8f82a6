"""Masking patches of pictures in blocks.

Bao et al., BEiT, 2022, arXiv 2106.08254, section 2.3 and algorithm 1: rectangles of random size and shape are hidden until
the wanted share of patches is. Single patches can be guessed from their neighbours; a block asks for what is in the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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
    """

    ratio: float = 0.0
    patch: int = 16
    least: int = 16
    aspect: float = 0.3
    ratios: tuple[float, ...] = ()

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

    @property
    def some(self) -> bool:
        """Whether any patch is masked at all."""
        return any(share > 0 for share in (self.ratios or (self.ratio,)))

    def draws(self, size: int) -> int:
        """Uniform numbers that one picture of `size` pixels needs."""
        return _BLOCKS * _NUMBERS + (size // self.patch) ** 2


def mask_patches(draws: np.ndarray, size: int, masking: PatchMasking) -> Tensor:
    """Choose patches.

    Args:
        draws: (B, `masking.draws(size)`) in [0, 1), a function of (seed, epoch, sample).
        size: side of the picture, in pixels.
        masking: shares and shapes.

    Returns:
        (B, N) bool, True at masked patches, row by row; every row of a part has equally many.

    Raises:
        ValueError: if patches do not divide the picture.
    """
    if size % masking.patch:
        raise ValueError(
            f"size {size} is not divisible by patches of {masking.patch}; change view.size or patches.patch"
        )
    side = size // masking.patch
    rows = len(draws)
    ratios = masking.ratios or (masking.ratio,)
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
