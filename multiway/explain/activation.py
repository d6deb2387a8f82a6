"""What a convolutional network looks at, which has no attention: how strongly places speak, and for what.

Selvaraju et al., Grad-CAM, 2017, arXiv 1610.02391, equations 1 and 2. With A^k the k-th channel of the last feature map (Z places)
and S a score,

    a_k = 1/Z sum_ij dS / dA^k_ij,     L = ReLU( sum_k a_k A^k )

For a mean pool and a linear score this is the class activation map of Zhou et al., 2016, arXiv 1512.04150, over Z.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["activation_map", "feature_norms"]


def activation_map(features: Tensor, score: Tensor) -> Tensor:
    """Grad-CAM.

    Args:
        features: (B, C, h, w), part of the graph.
        score: (B,), each depending on its own row alone.

    Returns:
        (B, h, w), not negative, without a graph.

    Raises:
        ValueError: if the score does not depend on the features.
    """
    (gradient,) = torch.autograd.grad(score.sum(), [features], allow_unused=True)
    if gradient is None:
        raise ValueError("the score does not depend on the feature map, so that it explains nothing")
    weights = gradient.float().mean((2, 3), keepdim=True)
    return (weights * features.detach().float()).sum(1).clamp(min=0)


def feature_norms(features: Tensor) -> Tensor:
    """How strongly each place answers, whatever to: (B, C, h, w) -> (B, h, w) lengths of the feature vectors."""
    return features.detach().float().norm(dim=1)
