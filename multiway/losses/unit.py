"""Points on the unit sphere, in a precision in which sums over many of them can be trusted.

Every cosine of the self-supervised losses is taken here: float32 for half-precision features and under autocast, float64 for
float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["exact", "precise", "unit"]


def exact(at: Tensor) -> torch.autocast:
    """A context in which products keep the precision of their factors; autocast would cast them down."""
    return torch.autocast(at.device.type, enabled=False)


def precise(features: Tensor) -> Tensor:
    """The same values in float32, or as they are in float64."""
    return features if features.dtype == torch.float64 else features.float()


def unit(features: Tensor) -> Tensor:
    """(..., D) -> (..., D) on the unit sphere, in float32 or better; a zero stays zero."""
    return F.normalize(precise(features), dim=-1)
