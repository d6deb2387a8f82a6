"""The pointing game: whether the hottest point of a map lies in what is meant.

Zhang et al., Top-down Neural Attention by Excitation Backprop, 2016, arXiv 1608.00507, section 4. No margin around boxes is allowed
here. Chance is a point drawn evenly in what the model sees of the picture: the boxes' share of it. Where several points are
equally hot the mean over them counts, so that a map that says nothing scores chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.data.examples import Box

__all__ = ["Hit", "drawn_at", "hit", "inside_of"]


@dataclass(frozen=True)
class Hit:
    """Where one map points.

    Attributes:
        point: the hottest point, across and down as shares of what the model sees.
        share: of the hottest points that lie in a box; nan without boxes.
        chance: share of all points that do; nan without boxes.
    """

    point: tuple[float, float]
    share: float
    chance: float


def drawn_at(maps: Tensor, resolution: int) -> Tensor:
    """(B, rows, columns) drawn finer, by bicubic interpolation: (B, resolution, resolution)."""
    size = (resolution, resolution)
    return F.interpolate(maps[:, None], size, mode="bicubic", align_corners=False)[:, 0]


def inside_of(boxes: Sequence[Box], resolution: int) -> Tensor:
    """(resolution, resolution) bool, True at points whose centre lies in one of the boxes."""
    at = (torch.arange(resolution, dtype=torch.float64) + 0.5) / resolution
    inside = torch.zeros(resolution, resolution, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        inside |= ((at >= top) & (at < bottom))[:, None] & ((at >= left) & (at < right))
    return inside


def hit(heat: Tensor, boxes: Sequence[Box]) -> Hit:
    """Point with a (resolution, resolution) map; boxes as shares of what the model sees, several where words mean several."""
    size = heat.shape[1]
    hottest = heat == heat.max()
    down, across = divmod(int(hottest.flatten().int().argmax()), size)
    point = ((across + 0.5) / size, (down + 0.5) / size)
    if not boxes:
        return Hit(point, np.nan, np.nan)
    inside = inside_of(boxes, size)
    return Hit(point, float(inside[hottest].double().mean()), float(inside.double().mean()))
