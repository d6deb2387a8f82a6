"""Contrastive predictive coding: which latent vector comes k steps later?

A. van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, arXiv 1807.03748, equations 3 and 4.
With z_t the latent vectors of a sequence, c_t the context of the first t, and a matrix W_k for each step k,

    f_k(z, c_t) = exp(z' W_k c_t)
    L_k = mean over sequences and t of - log [ f_k(z_t+k, c_t) / sum over candidates z of f_k(z, c_t) ]

and L their mean over k. L_k bounds what contexts and futures share: I(z_t+k; c_t) >= ln N - L_k for N candidates (section 2.3).
Candidates are the latents k or more steps into a sequence, as the positives are: of all sequences on all ranks, of the own
sequence alone, or of all but the own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from multiway.losses.chance import Chance, uniform
from multiway.losses.contrast import contrast
from multiway.losses.same import Same
from multiway.losses.unit import exact, precise
from multiway.world import GradientMode, World

__all__ = ["CpcResult", "cpc"]

Negatives = Literal["all", "own", "others"]


@dataclass(frozen=True)
class CpcResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient, the mean over steps.
        steps: (S,) loss of each step, detached.
        accuracy: (S,) share of contexts whose best candidate is the true future, detached.
        information: (S,) ln N - L_k, a lower bound in nats, detached.
        chance: the loss of scores that are all equal.
        formula: how `chance` comes about.
    """

    loss: Tensor
    steps: Tensor
    accuracy: Tensor
    information: Tensor
    chance: float
    formula: str


def cpc(
    context: Tensor,
    latents: Tensor,
    weights: Tensor,
    world: World,
    negatives: Negatives = "all",
    gradient: GradientMode = "global",
    chunk: int | None = None,
) -> CpcResult:
    """The loss of this rank's sequences in float32 or better; its mean over ranks is that of one rank.

    Args:
        context: (b, T, C).
        latents: (b, T, D). Pictures: rows of a grid of patches are time, its columns sequences.
        weights: (S, D, C) the matrices W_1 ... W_S, S < T.
        world: the ranks; every one brings the same b.
        negatives: `all` candidates; `own`, those of the same sequence, which are harder; `others`, none of the same sequence.
        gradient: how gradients reach other ranks' latents.
        chunk: rows of scores held at once, but for `own`.

    Raises:
        ValueError: for shapes or options that do not fit.
    """
    if context.ndim != 3 or latents.ndim != 3 or context.shape[:2] != latents.shape[:2] or len(context) == 0:
        raise ValueError(
            f"contexts are {tuple(context.shape)}, latents {tuple(latents.shape)}; expected (b, T, C), (b, T, D)"
        )
    length, width = latents.shape[1:]
    if weights.ndim != 3 or weights.shape[1:] != (width, context.shape[2]) or not 0 < len(weights) < length:
        raise ValueError(
            f"weights are {tuple(weights.shape)}; expected (S, {width}, {context.shape[2]}) with S from 1 to {length - 1}, as a "
            f"sequence has {length} steps"
        )
    if negatives not in ("all", "own", "others"):
        raise ValueError(f"negatives is {negatives!r}; expected 'all', 'own' or 'others'")
    everyone = world.gather(precise(latents), gradient) if negatives != "own" else precise(latents)
    losses, accuracies, chances = [], [], []
    for k in range(1, len(weights) + 1):
        with exact(context):
            asked = precise(context[:, :-k]) @ precise(weights[k - 1]).t()
        if negatives == "own":
            nll, right, chance = _within(asked, everyone[:, k:])
        else:
            nll, right, chance = _among(asked, everyone[:, k:], world, negatives == "others", chunk)
        losses.append(nll.mean())
        accuracies.append(right.to(nll.dtype).mean())
        chances.append(chance)
    steps = torch.stack(losses)
    even = steps.new_tensor([chance.value for chance in chances])
    formula = chances[0].formula if len(chances) == 1 else f"mean of {chances[0].formula} to {chances[-1].formula}"
    mean = sum(chance.value for chance in chances) / len(chances)
    return CpcResult(steps.mean(), steps.detach(), torch.stack(accuracies), even - steps.detach(), mean, formula)


def _among(
    asked: Tensor, futures: Tensor, world: World, others: bool, chunk: int | None
) -> tuple[Tensor, Tensor, Chance]:
    """Against all ranks' futures (R b, T - k, D), of all sequences or of all but the own."""
    rows, times, _ = asked.shape
    query, candidates = asked.flatten(0, 1), futures.flatten(0, 1)
    first = world.rank * rows * times
    sequence = torch.arange(len(candidates), device=asked.device) // times
    ignored = Same(sequence) if others else None
    found = contrast(query, candidates, query.new_ones(()), first, ignored=ignored, chunk=chunk)
    right = found.row_best == torch.arange(first, first + len(query), device=asked.device)
    return found.row_nll, right, uniform(len(candidates) - (times - 1 if others else 0))


def _within(asked: Tensor, futures: Tensor) -> tuple[Tensor, Tensor, Chance]:
    """Each sequence by itself: (b, T - k, T - k) scores."""
    with exact(asked):
        scores = asked @ futures.transpose(1, 2)
    nll = scores.logsumexp(2) - scores.diagonal(dim1=1, dim2=2)
    right = scores.detach().argmax(2) == torch.arange(scores.shape[1], device=scores.device)
    return nll, right, uniform(scores.shape[1])
