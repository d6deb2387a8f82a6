"""Pictures of which most is hidden, and what a model makes of them.

K. He et al., MAE, 2022, arXiv 2111.06377, figures 2 to 4: three quarters of the patches are hidden; what is filled in is plausible
rather than true. A method that guesses pixels relative to each patch's own mean and deviation (MAE's better targets) never guessed
these two: its pictures take them from the original (`methods/masked_pictures.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.data.patch_masking import PatchMasking, mask_patches

__all__ = ["Reconstructed", "Reconstructs", "reconstruct"]


@runtime_checkable
class Reconstructs(Protocol):
    """Fills in hidden patches."""

    @property
    def hides(self) -> int:
        """Side of a patch, in pixels."""

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """(B, 3, H, W) and (B, N) bool, True at hidden patches -> (B, 3, H, W)."""


@dataclass(frozen=True)
class Reconstructed:
    """B pictures, normalised as the model sees them.

    Attributes:
        given: (B, 3, H, W).
        shown: (B, 3, H, W), hidden patches at 0, which is the mean colour.
        filled: (B, 3, H, W), hidden patches as the model guesses them.
        mask: (B, N) bool, row by row, True at hidden patches.
    """

    given: Tensor
    shown: Tensor
    filled: Tensor
    mask: Tensor


@torch.no_grad()
def reconstruct(method: Any, images: Tensor, ratio: float = 0.75, seed: int = 0) -> Reconstructed:
    """Hide patches at random and have them filled in.

    Args:
        method: see `Reconstructs`.
        images: (B, 3, H, W), normalised, square.
        ratio: share of patches that is hidden.
        seed: which are; every picture has its own, whatever the others are.

    Raises:
        TypeError: if the method fills nothing in.
        ValueError: if patches do not divide the pictures, all or none would be hidden, or a picture of another shape comes back.
    """
    if not isinstance(method, Reconstructs):
        raise TypeError(f"{type(method).__name__} fills in no hidden patches; ask a masked autoencoder (mae, simmim)")
    size, masking = images.shape[-1], PatchMasking(ratio, method.hides, sampling="random")
    draws = np.stack([np.random.default_rng([seed, row]).random(masking.draws(size)) for row in range(len(images))])
    mask = mask_patches(draws, size, masking).to(images.device)
    if mask.all() or not mask.any():
        raise ValueError(
            f"ratio {ratio} hides {int(mask[0].sum())} of {mask.shape[1]} patches; choose one that hides some and shows some"
        )
    side = size // method.hides
    cells = mask.reshape(-1, 1, side, side).to(images.dtype)
    hidden = F.interpolate(cells, size=(size, size), mode="nearest").bool()
    filled = method.reconstruct(images, mask)
    if filled.shape != images.shape:
        raise ValueError(
            f"`reconstruct` was given {tuple(images.shape)} and returned {tuple(filled.shape)}; expected the same"
        )
    return Reconstructed(images, images.masked_fill(hidden, 0.0), filled, mask)
