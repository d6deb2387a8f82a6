"""How far heads look: mean attention distance, what the receptive field is to a convolution.

Dosovitskiy et al., ViT, 2021, arXiv 2010.11929, section 4.5, figure 7 right and appendix D.7, figure 11: the distance between the
patch that asks and those that it attends to, weighted by attention, mean over patches and pictures. Some heads of the first blocks
look everywhere; others stay near, as convolutions do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from multiway.explain.attention import grid_of

__all__ = ["attention_distance", "patch_distances"]


def patch_distances(side: int, patch: float) -> Tensor:
    """Between the centres of patches.

    Args:
        side: patches in a row.
        patch: side of one, in pixels.

    Returns:
        (side^2, side^2) float32, in pixels.
    """
    steps = torch.arange(side, dtype=torch.float32)
    places = torch.cartesian_prod(steps, steps) * patch
    return torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")


def attention_distance(attention: Tensor, patch: float) -> Tensor:
    """Mean over pictures and patches.

    The class token has no place: it is left out on both sides, and what a patch attends to of other patches is brought to a sum of
    1 again, so that a head which mostly rests on the class token is not taken for a near-sighted one.

    Args:
        attention: (B, heads, N, N) of one block.
        patch: side of a patch, in pixels.

    Returns:
        (heads,) in pixels.

    Raises:
        ValueError: if the attention is not of all tokens over all.
    """
    if attention.shape[-1] != attention.shape[-2]:
        raise ValueError(
            f"attention is {tuple(attention.shape[-2:])}; distances need that of every token over every token"
        )
    side, before = grid_of(attention.shape[-1])
    among = attention[..., before:, before:].float()
    among = among / among.sum(-1, keepdim=True).clamp(min=1e-12)
    return (among * patch_distances(side, patch).to(among.device)).sum(-1).mean((0, 2))
