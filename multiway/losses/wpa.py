"""Word-patch alignment (WPA): how far a text's words have to be moved to become the picture's patches.

Chen et al., UNITER, 2020, arXiv 1909.11740, section 3.2 (as word-region alignment), with the patches of ViLT, Kim et al.,
2021, arXiv 2102.03334, section 3.2. With C the cosine distances of N words and M patches, all words weighing 1/N and all
patches 1/M, the least cost of transport is

    d = min over T of <T, C>,     T 1 = 1/N,  T' 1 = 1/M,  T >= 0
    L = ( sum over pairs of d  -  sum over wrong pairs of d ) / rows

The plan T comes from IPOT (Xie et al., "A Fast Proximal Point Method for Computing Exact Wasserstein Distance", 2018,
arXiv 1802.04307, algorithm 1): proximal steps of strength beta, each made by Sinkhorn's scalings, one of them per step being
enough. No gradient flows through T, as published.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["WpaResult", "cosine_cost", "inner_words", "ipot", "transport_distance", "wpa"]


def cosine_cost(words: Tensor, patches: Tensor, word_mask: Tensor, patch_mask: Tensor) -> Tensor:
    """1 - cosine between every word and every patch, 0 wherever either is padding.

    Args:
        words: (B, N, W).
        patches: (B, M, W).
        word_mask, patch_mask: (B, N) and (B, M) bool, True at what counts.

    Returns:
        (B, N, M) in [0, 2].
    """
    cost = 1.0 - F.normalize(words, dim=-1) @ F.normalize(patches, dim=-1).transpose(1, 2)
    # `where`, not a product: whatever padding holds, an infinity too, leaves neither value nor gradient.
    return torch.where(word_mask[:, :, None] & patch_mask[:, None, :], cost, 0.0)


def inner_words(mask: Tensor) -> Tensor:
    """(B, L) bool, True at real tokens -> the same without the first and the last real token of each row.

    Those are the class and the separator token, which stand for no word.
    """
    after = F.pad(mask[:, 1:], (0, 1))  # whether another real token follows
    inner = mask & after
    inner[:, 0] = False
    return inner


@torch.no_grad()
def ipot(
    cost: Tensor, word_mask: Tensor, patch_mask: Tensor, beta: float = 0.5, outer: int = 50, inner: int = 1
) -> Tensor:
    """The transport plan between words and patches of uniform weight, by inexact proximal steps.

    Args:
        cost: (B, N, M), not negative.
        word_mask, patch_mask: (B, N) and (B, M) bool, True at what counts.
        beta: strength of the proximal term; the smaller, the larger the steps.
        outer: proximal steps.
        inner: Sinkhorn scalings in each.

    Returns:
        (B, N, M); 0 at padding. Its columns sum to 1/M over what counts, exactly; its rows to 1/N once it has converged. A row
        of the batch without words or without patches gets zeros.

    Raises:
        ValueError: if masks and costs do not fit, or a number is out of range.
    """
    if word_mask.shape != cost.shape[:2] or patch_mask.shape != (cost.shape[0], cost.shape[2]):
        raise ValueError(
            f"costs are {tuple(cost.shape)} with masks {tuple(word_mask.shape)} and {tuple(patch_mask.shape)}; expected "
            "(B, N, M) with (B, N) and (B, M)"
        )
    if beta <= 0 or outer < 1 or inner < 1:
        raise ValueError(f"IPOT needs beta > 0, outer >= 1 and inner >= 1; given {beta}, {outer}, {inner}")
    both = word_mask[:, :, None] & patch_mask[:, None, :]
    kernel = torch.where(both, torch.exp(-cost / beta), 0.0)
    plan = both.to(cost.dtype)
    word_share = _shares(word_mask, cost.dtype)
    patch_share = _shares(patch_mask, cost.dtype)
    patches = patch_share  # scaling of the columns, carried on from step to step
    for _ in range(outer):
        step = kernel * plan
        for _ in range(inner):
            words = _divide(word_share, (step @ patches[:, :, None]).squeeze(2))
            patches = _divide(patch_share, (words[:, None, :] @ step).squeeze(1))
        plan = words[:, :, None] * step * patches[:, None, :]
    return plan


def transport_distance(
    words: Tensor,
    patches: Tensor,
    word_mask: Tensor,
    patch_mask: Tensor,
    beta: float = 0.5,
    outer: int = 50,
    inner: int = 1,
) -> Tensor:
    """<T, C> of each row, (B,) in float32 or better, with gradient through the cosines alone.

    Args:
        words: (B, N, W).
        patches: (B, M, W).
        word_mask, patch_mask: (B, N) and (B, M) bool, True at what counts.
        beta, outer, inner: of `ipot`.
    """
    with torch.autocast(words.device.type, enabled=False):
        precise = torch.promote_types(words.dtype, torch.float32)
        cost = cosine_cost(words.to(precise), patches.to(precise), word_mask, patch_mask)
        return (ipot(cost, word_mask, patch_mask, beta, outer, inner) * cost).sum((1, 2))


@dataclass(frozen=True)
class WpaResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient.
        positive, negative: mean distance of pairs and of wrong pairs, detached; 0 where there are none.
        chance: what a model scores in which pairs lie as far apart as wrong pairs: 0 for as many of either.
        formula: how `chance` comes about.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    chance: float
    formula: str


def wpa(distance: Tensor, matched: Tensor) -> WpaResult:
    """Pulls the words of pairs to their patches and pushes those of wrong pairs away.

    Args:
        distance: (B,) of `transport_distance`.
        matched: (B,) bool, True where picture and text belong together.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if distance.shape != matched.shape or distance.ndim != 1:
        raise ValueError(f"distances are {tuple(distance.shape)}, matched {tuple(matched.shape)}; expected (B,) twice")
    sign = torch.where(matched, 1.0, -1.0).to(distance.dtype)
    mean = distance.detach().mean() if len(distance) else distance.detach().sum()
    # Exactly 0 for halves: the constant model, whose distances are all alike, gains nothing from either side.
    balance = int(sign.sum()) / max(1, len(distance))
    return WpaResult(
        loss=(sign * distance).sum() / max(1, len(distance)),
        positive=_mean(distance.detach(), matched),
        negative=_mean(distance.detach(), ~matched),
        chance=balance * float(mean) if balance else 0.0,
        formula="pairs as far apart as wrong pairs" + (f": {balance:+.2f} x mean distance" if balance else ""),
    )


def _shares(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, N) uniform weights over what counts."""
    return mask.to(dtype) / mask.sum(1, keepdim=True).clamp(min=1)


def _divide(share: Tensor, by: Tensor) -> Tensor:
    """share / by, and 0 where nothing is to be shared out."""
    return torch.where(by > 0, share / torch.where(by > 0, by, 1.0), 0.0)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
