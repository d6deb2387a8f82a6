"""Masked patch prediction (MPP): the mean colour of patches that were hidden.

Kim et al., ViLT, 2021, arXiv 2102.03334, section 4.4 (an ablation there, without gain), after section 4.6 of the ViT paper
(Dosovitskiy et al., 2021, arXiv 2010.11929, appendix B.1.2). A hidden patch's mean red, green and blue are three classes of
256 each:

    L = - mean over hidden patches and channels of log p(colour)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.chance import label_entropy

__all__ = ["LEVELS", "MppResult", "mpp", "patch_colours"]

LEVELS = 256


@torch.no_grad()
def patch_colours(
    images: Tensor, patch: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """Mean colour of every patch, in whole steps of 1/255.

    Args:
        images: (B, 3, H, W) normalised pixels; H and W are multiples of `patch`.
        patch: side of a patch in pixels.
        mean, std: the normalisation, which is undone first.

    Returns:
        (B, N, 3) int64 in [0, 255], patches row by row.
    """
    shape = (1, 3, 1, 1)
    pixels = images.float() * images.new_tensor(std).view(shape) + images.new_tensor(mean).view(shape)
    averaged = F.avg_pool2d(pixels, patch).flatten(2).transpose(1, 2)
    # A little above the exact product, so that pure colours (254.99999 in float32) stay themselves when cut to whole numbers.
    return (averaged * (LEVELS - 1) + 1e-3).long().clamp(0, LEVELS - 1)


@dataclass(frozen=True)
class MppResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient, the mean over hidden patches and channels; 0 where nothing was hidden.
        error: mean absolute difference of the likeliest colour from the true one, in [0, 255], detached.
        chance: mean entropy of the three channels' colours in this batch.
        formula: how `chance` comes about.
    """

    loss: Tensor
    error: Tensor
    chance: float
    formula: str


def mpp(logits: Tensor, target: Tensor) -> MppResult:
    """Cross entropy of colours in float32.

    Args:
        logits: (P, 3 x 256), of the hidden patches alone: red's classes, green's, blue's.
        target: (P, 3) int64 in [0, 255].

    Raises:
        ValueError: if the shapes do not fit.
    """
    if logits.ndim != 2 or logits.shape[1] != 3 * LEVELS or target.shape != (len(logits), 3):
        raise ValueError(
            f"logits are {tuple(logits.shape)} and targets {tuple(target.shape)}; expected (P, {3 * LEVELS}) and (P, 3)"
        )
    logits = logits.float()
    if len(target) == 0:
        zero = logits.sum()  # keeps the graph, so that every rank takes the same backward
        return MppResult(zero, zero.detach(), 0.0, "nothing hidden")
    by_channel = logits.unflatten(1, (3, LEVELS))
    loss = F.cross_entropy(by_channel.flatten(0, 1), target.flatten())
    entropies = [label_entropy(torch.bincount(target[:, channel], minlength=LEVELS)).value for channel in range(3)]
    error = (by_channel.detach().argmax(2) - target).abs().float().mean()
    return MppResult(loss, error, sum(entropies) / 3, "mean entropy of the batch's colours over 3 channels")
