"""Layers whose output directions lie on the unit sphere: SwAV's prototypes and DINO's last layer.

M. Caron et al., SwAV, 2020, arXiv 2006.09882, section 3.1: the scores of a row are its cosines with K learned prototypes, which
are put back on the sphere after every step. M. Caron et al., DINO, 2021, arXiv 2104.14294, appendix C: the last layer is weight
normalised (T. Salimans and D. Kingma, 2016, arXiv 1602.07868) with its gains fixed at 1; the direction of a row is what counts,
whatever its length.

Both papers hold this layer still at first, for an epoch. A still layer gets gradients of exactly zero rather than none, so that
every rank's backward pass is the same; its weight may then be shortened by weight decay, which changes neither.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiway.nn.sharded import local

__all__ = ["Prototypes", "WeightNormalised"]


def _still(weight: Tensor) -> Tensor:
    """The same values, with gradients of zero."""
    return weight.detach() + 0.0 * weight


class Prototypes(nn.Module):
    """K prototypes in D dimensions.

    Args:
        width: D.
        count: K.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        if width < 1 or count < 2:
            raise ValueError(f"{count} prototypes in {width} dimensions; expected 2 or more in 1 or more")
        self.weight = nn.Parameter(torch.empty(count, width))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as a linear layer's, the published code's start
        self.normalise()

    def forward(self, features: Tensor, still: bool = False) -> Tensor:
        """Cosines with the prototypes: (..., D), not yet normalised -> (..., K) in float32 or better.

        Args:
            still: no gradient for the prototypes.
        """
        precision = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            weight = _still(self.weight) if still else self.weight
            return F.linear(F.normalize(features.to(precision), dim=-1), weight.to(precision))

    @torch.no_grad()
    def normalise(self) -> None:
        """Put the prototypes back on the sphere: once after each optimiser step.

        The published code does it before each forward pass, which is the same sequence.
        """
        own = local(self.weight)  # whole rows, where ranks hold parts
        own.copy_(F.normalize(own, dim=1))


class WeightNormalised(nn.Module):
    """A linear layer without bias, each row of whose matrix has the length 1.

    Args:
        width: D of the input.
        outputs: K.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, width))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, features: Tensor, still: bool = False) -> Tensor:
        """(..., D) -> (..., K); `still`: no gradient for the rows."""
        return F.linear(features, F.normalize(_still(self.weight) if still else self.weight, dim=1))
