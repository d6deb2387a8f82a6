"""Regions of pictures: how far boxes overlap, and which of those that can be chosen are meant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multiway.data.examples import Box, Pointed

__all__ = ["RIGHT", "overlaps", "region_targets", "spanned"]

RIGHT = 0.5
"""Intersection over union from which on a region is the one that is meant."""


def overlaps(ours: Sequence[Box], theirs: Sequence[Box]) -> Tensor:
    """Intersection over union of every box with every other: (K, M) float64; 0 for boxes without area."""
    a, b = (torch.tensor(boxes, dtype=torch.float64).view(-1, 4) for boxes in (ours, theirs))
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    sizes = [(each[:, 2:] - each[:, :2]).clamp(min=0).prod(-1) for each in (a, b)]
    union = sizes[0][:, None] + sizes[1] - common
    return torch.where(union > 0, common / union.clamp(min=1e-12), 0.0)


def region_targets(examples: Sequence[Pointed], candidates: Sequence[Sequence[Box]]) -> dict[str, Tensor]:
    """The fields of `Batch` that a choice of regions needs.

    Args:
        examples: B, with boxes.
        candidates: of each, any number, or none.

    Returns:
        `boxes` (B, K, 4) with `boxes_mask` (B, K), and as `targets` (B, K) whether each overlaps what is meant by `RIGHT`.
    """
    widest = max(map(len, candidates))
    boxes, mask = torch.zeros(len(examples), widest, 4), torch.zeros(len(examples), widest, dtype=torch.bool)
    targets = torch.zeros(len(examples), widest)
    for row, (each, own) in enumerate(zip(examples, candidates, strict=True)):
        if own:
            boxes[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = True
            targets[row, : len(own)] = (overlaps(own, each.boxes).amax(1) >= RIGHT).float()
    return {"boxes": boxes, "boxes_mask": mask, "targets": targets}


def spanned(cells: int) -> tuple[Box, ...]:
    """Every rectangle whose sides lie on the lines of a grid: (cells (cells + 1) / 2)^2 of them, to choose from where an example
    brings no candidates."""
    edges = [place / cells for place in range(cells + 1)]
    spans = [(low, high) for place, low in enumerate(edges) for high in edges[place + 1 :]]
    return tuple((left, top, right, bottom) for top, bottom in spans for left, right in spans)
