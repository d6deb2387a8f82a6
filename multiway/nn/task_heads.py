"""Heads that are put on a fused pair to fine-tune it for a task.

The classifier is that of UNITER and ViLT (Chen et al., 2020, arXiv 1909.11740; Kim et al., 2021, arXiv 2102.03334, released
code): a hidden layer twice as wide, LayerNorm, GELU, the classes. Two readings of one text are compared by attention as in
UNITER's `pair-attention`, regions of a picture scored by what lies in them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multiway.nn.attention import Attention, Visibility
from multiway.nn.transformer import init_weights

__all__ = ["Classifier", "PairAttention", "RegionScorer", "region_features"]


class Classifier(nn.Sequential):
    """(B, width) to (B, classes).

    Args:
        width: of what it reads.
        classes: scores to give.
        hidden: width of the hidden layer; twice `width` by default.
        prior: of the scores, which all begin near it.
    """

    def __init__(self, width: int, classes: int, hidden: int = 0, prior: float = 0.0) -> None:
        hidden = hidden or 2 * width
        last = nn.Linear(hidden, classes)
        super().__init__(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), last)
        init_weights(self)
        nn.init.constant_(last.bias, prior)


class PairAttention(nn.Module):
    """The tokens of either of two readings attend to those of the other, and are pooled by attention (UNITER, section 4.2).

    Args:
        width: of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = next(count for count in range(max(1, width // 64), 0, -1) if width % count == 0)
        self.attention = Attention(width, heads, memory_width=width)
        self.norm = nn.LayerNorm(width)
        self.weigh = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        init_weights(self)

    def forward(self, left: Tensor, right: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """(B, L, width) tokens of both readings and (B, L) bool, True at real ones -> two vectors (B, width)."""
        found = []
        visibility = Visibility.of(mask, left.shape[1], left.device)
        for own, other in ((left, right), (right, left)):
            tokens = self.norm(own + self.attention(own, other, visibility))
            weights = self.weigh(tokens)[..., 0]
            if mask is not None:
                weights = weights.masked_fill(~mask, torch.finfo(weights.dtype).min)
            found.append((weights.softmax(1)[..., None] * tokens).sum(1))
        return found


class RegionScorer(nn.Module):
    """How well each region fits the words: (B, K).

    The pair's vector and the region's mean picture token meet by product, beside both of them, and where the region lies.

    Args:
        width: of the pair's vector.
        picture_width: of picture tokens.
    """

    def __init__(self, width: int, picture_width: int) -> None:
        super().__init__()
        self.pair, self.region = nn.Linear(width, picture_width), nn.Linear(picture_width + 5, picture_width)
        init_weights(self)
        self.score = Classifier(3 * picture_width, 1, picture_width)

    def forward(self, pooled: Tensor, patches: Tensor, boxes: Tensor) -> Tensor:
        """(B, width), (B, N, W) tokens of a square grid of patches, (B, K, 4) boxes -> (B, K)."""
        regions, place = region_features(patches, boxes), boxes.to(patches.dtype)
        area = ((place[..., 2] - place[..., 0]) * (place[..., 3] - place[..., 1]))[..., None]
        pair = self.pair(pooled)[:, None].expand(-1, boxes.shape[1], -1)
        region = self.region(torch.cat([regions, place, area], -1))
        return self.score(torch.cat([pair, region, pair * region], -1))[..., 0]  # type: ignore[no-any-return]


def region_features(patches: Tensor, boxes: Tensor) -> Tensor:
    """Mean of a picture's tokens over each box, every patch weighed by the share of it that lies within: (B, K, W).

    Args:
        patches: (B, N, W), row by row over a square grid; tokens in front of the grid (class tokens) are left out.
        boxes: (B, K, 4) left, top, right, bottom as shares of the picture.

    Returns:
        (B, K, W); zeros for a box without area.
    """
    side = int(patches.shape[1] ** 0.5)
    grid = patches[:, patches.shape[1] - side * side :]
    edges = torch.arange(side + 1, device=boxes.device) / side
    low, high = edges[:-1], edges[1:]

    def within(start: Tensor, stop: Tensor) -> Tensor:
        """(B, K, side) share of each row or column of patches that lies between."""
        common = torch.minimum(stop[..., None], high) - torch.maximum(start[..., None], low)
        return common.clamp(min=0) * side

    across, down = within(boxes[..., 0], boxes[..., 2]), within(boxes[..., 1], boxes[..., 3])
    weight = (down[..., :, None] * across[..., None, :]).flatten(2).to(grid.dtype)
    return weight @ grid / weight.sum(-1, keepdim=True).clamp(min=1e-6)
