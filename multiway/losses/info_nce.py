"""InfoNCE: which of all keys belongs to the query?

A. van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, arXiv 1807.03748, equation 4. As in
K. He et al., Momentum Contrast (MoCo), 2020, arXiv 1911.05722, equation 1, with q, k on the unit sphere, k+ the query's own key
and K others,

    L = mean_i - log [ exp(q_i . k+_i / tau) / ( exp(q_i . k+_i / tau) + sum over j of exp(q_i . k_j / tau) ) ]

The others are a queue or a bank (`negatives`), the same for all queries or some for each; or else the keys of all other rows of
this batch on all ranks, as in MoCo v3 (X. Chen et al., 2021, arXiv 2104.02057, section 3 and algorithm 1), which multiplies the
loss by 2 tau (`scaled`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.chance import Chance, uniform, uniform_over_rows
from multiway.losses.contrast import contrast
from multiway.losses.same import Same, gather_same
from multiway.losses.unit import exact, unit
from multiway.world import GradientMode, World

__all__ = ["InfoNceResult", "info_nce", "similarities"]


@dataclass(frozen=True)
class InfoNceResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient.
        accuracy: share of queries whose own key is the most similar, detached; against given negatives a tie is a miss.
        chance: the loss of similarities that are all equal.
        formula: how `chance` comes about: `ln 65537`.
    """

    loss: Tensor
    accuracy: Tensor
    chance: float
    formula: str


def similarities(query: Tensor, others: Tensor) -> Tensor:
    """Dot products of (b, D) with (K, D) that all share, or (b, K, D) of each row's own -> (b, K)."""
    return query @ others.t() if others.ndim == 2 else (others @ query[:, :, None]).squeeze(2)


def info_nce(
    query: Tensor,
    key: Tensor,
    world: World,
    temperature: float = 0.07,
    negatives: Tensor | None = None,
    key_id: Tensor | None = None,
    negative_id: Tensor | None = None,
    gradient: GradientMode = "none",
    scaled: bool = False,
    chunk: int | None = None,
) -> InfoNceResult:
    """The loss of this rank's queries, similarities in float32 or better; its mean over ranks is that of one rank.

    Args:
        query: (b, D), not yet normalised.
        key: (b, D), likewise; row i belongs to query i.
        world: the ranks.
        temperature: tau.
        negatives: (K, D) or (b, K, D) other keys, without gradient; K may be 0. None: the other rows of this batch, of all ranks.
        key_id: (b,) int64, whose picture each row is; keys of the same picture are left out of the denominator. The papers,
            whose queue is far smaller than their data, have no such thing.
        negative_id: (K,) or (b, K) int64, whose picture the negatives are; needed with `key_id` and `negatives`.
        gradient: how gradients reach keys of this batch (`World.gather`): `none` for a momentum encoder's, `global` to learn
            both ends. Of account where there are no `negatives`; with them the own key has what gradient it comes with.
        scaled: multiply by 2 tau.
        chunk: rows of similarities held at once, without `negatives`.

    Raises:
        ValueError: for shapes, ids or a temperature that do not fit.
    """
    _check(query, key, temperature, negatives, key_id, negative_id)
    query, key = unit(query), unit(key)
    if negatives is None:
        ids = gather_same(key_id, None, len(query), world)
        nll, right, chance = _among_rows(query, key, ids, temperature, world, gradient, chunk)
    else:
        left_out = None if key_id is None or negative_id is None else key_id[:, None] == negative_id
        nll, right, chance = _among_given(query, key, unit(negatives.detach()), left_out, temperature)
    loss, factor = nll.mean(), 2.0 * temperature if scaled else 1.0
    formula = f"{factor:g} x {chance.formula}" if scaled else chance.formula
    return InfoNceResult(factor * loss, right.to(loss.dtype).mean(), factor * chance.value, formula)


def _among_rows(
    query: Tensor, key: Tensor, ids: Same, temperature: float, world: World, gradient: GradientMode, chunk: int | None
) -> tuple[Tensor, Tensor, Chance]:
    keys, first = world.gather(key, gradient), world.rank * len(query)
    found = contrast(query, keys, query.new_tensor(1.0 / temperature), first, ignored=ids if ids else None, chunk=chunk)
    right = found.row_best == torch.arange(first, first + len(query), device=query.device)
    if not ids:
        return found.row_nll, right, uniform(len(keys))
    return found.row_nll, right, uniform_over_rows(len(keys) + 1 - ids.count[first : first + len(query)])


def _among_given(
    query: Tensor, key: Tensor, negatives: Tensor, left_out: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor, Chance]:
    with exact(query):
        positive = (query * key).sum(1) / temperature
        others = similarities(query, negatives) / temperature
        chance = uniform(others.shape[1] + 1)
        if left_out is not None:
            left_out = left_out.expand_as(others)
            # Finite, so that a row all of whose negatives are left out has no inf - inf; exp of it is 0 all the same.
            others = others.masked_fill(left_out, torch.finfo(others.dtype).min / 2)
            chance = uniform_over_rows(others.shape[1] + 1 - left_out.sum(1))
        # log(e^p + e^o) - p as a softplus of the difference: nothing cancels where the positive wins by far.
        nll = F.softplus(others.logsumexp(1) - positive, threshold=50.0)
        right = (others.detach() < positive.detach()[:, None]).all(1)
    return nll, right, chance


def _check(
    query: Tensor,
    key: Tensor,
    temperature: float,
    negatives: Tensor | None,
    key_id: Tensor | None,
    negative_id: Tensor | None,
) -> None:
    if query.ndim != 2 or query.shape != key.shape or len(query) == 0:
        raise ValueError(
            f"queries are {tuple(query.shape)} and keys {tuple(key.shape)}; expected two equal (b, D) with a row"
        )
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; expected more than 0")
    rows, width = query.shape
    if negatives is None:
        if negative_id is not None:
            raise ValueError("negative_id is given without negatives; give both, or key_id alone")
        return
    if negatives.shape[-1] != width or negatives.ndim not in (2, 3) or (negatives.ndim == 3 and len(negatives) != rows):
        raise ValueError(f"negatives are {tuple(negatives.shape)}; expected (K, {width}) or ({rows}, K, {width})")
    if (key_id is None) != (negative_id is None):
        raise ValueError(
            "one of key_id and negative_id is given; expected both, to leave out keys of the same picture, or none"
        )
    if negative_id is not None and negative_id.shape != negatives.shape[:-1]:
        raise ValueError(
            f"negative_id is {tuple(negative_id.shape)}; expected {tuple(negatives.shape[:-1])}, one per negative"
        )
