"""What a network looks for in pixels: principal components of its patch filters, or the filters themselves.

Dosovitskiy et al., ViT, 2021, arXiv 2010.11929, section 4.5 and figure 7, left: the components of the patch embedding resemble a
basis of fine structure within a patch: even colours first, then waves of rising frequency.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["as_pictures", "principal_filters"]


def principal_filters(filters: Tensor, count: int = 28) -> tuple[Tensor, Tensor]:
    """Principal components of filters, the mean filter taken off; 28 are in the paper's figure.

    Args:
        filters: (F, C, k, k).
        count: how many, at most.

    Returns:
        (n, C, k, k) orthonormal components, and (n,) the shares of the variance that they hold, falling. The sign of a component
        is arbitrary: its largest value is positive.
    """
    flat = filters.detach().double().flatten(1)
    _, strengths, rows = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    shares = strengths**2 / (strengths**2).sum().clamp(min=1e-30)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    components = rows * torch.where(largest < 0, -1.0, 1.0)
    return components[:count].reshape(-1, *filters.shape[1:]).float(), shares[:count].float()


def as_pictures(filters: Tensor) -> Tensor:
    """Filters for the eye: 0 is mid-grey, the value that is largest in size 0 or 1, the same scale for all channels of a filter.

    Args:
        filters: (F, 3, k, k).

    Returns:
        (F, k, k, 3) float32 in [0, 1].
    """
    largest = filters.detach().float().abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return (0.5 + 0.5 * filters.detach().float() / largest).permute(0, 2, 3, 1)
