"""Noise-contrastive estimation over instances: is this stored feature the query's own, or noise?

Z. Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination (InstDisc), 2018, arXiv 1805.01978,
equations 2, 4-8 and 10; Y. Tian et al., Contrastive Multiview Coding (CMC), 2020, arXiv 1906.05849, uses the same with one
bank per view. For n stored features v_j, a query f, and m of them drawn evenly as noise,

    P(j | f) = exp(v_j . f / tau) / Z        h(j, f) = P(j | f) / (P(j | f) + m / n)
    L = mean over queries of [ - log h(own, f)  -  sum over noise of log(1 - h(j, f)) ]

Z is a constant, estimated from the first batch: Z = n mean exp(v_j . f / tau) (`log_partition`). h is the sigmoid of
v_j . f / tau - ln Z - ln(m / n), and is taken as that: nothing overflows, and the published code's 1e-7 is not needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multiway.losses.chance import sigmoid_pairs
from multiway.losses.info_nce import similarities
from multiway.losses.unit import exact, unit
from multiway.world import World

__all__ = ["NceResult", "log_partition", "nce", "proximal"]


@dataclass(frozen=True)
class NceResult:
    """The loss and what to report of it.

    Attributes:
        loss: scalar with gradient, `data + noise`.
        data, noise: its two sums per query, detached.
        accuracy: share of queries that are closer to their own feature than to all noise, detached; a tie is a miss.
        chance: the loss of the best constant h, 1 / (m + 1).
        formula: how `chance` comes about: `4097 H(1/4097)`.
    """

    loss: Tensor
    data: Tensor
    noise: Tensor
    accuracy: Tensor
    chance: float
    formula: str


def nce(
    query: Tensor,
    own: Tensor,
    noise: Tensor,
    samples: int,
    log_z: Tensor | float,
    temperature: float = 0.07,
) -> NceResult:
    """The loss of this rank's queries in float32 or better; its mean over ranks is that of one rank.

    Args:
        query: (b, D), not yet normalised; all that learns.
        own: (b, D) the stored features of the same samples.
        noise: (m, D) stored features drawn evenly, the same for all queries, or (b, m, D). The own may be among them.
        samples: n.
        log_z: ln Z.
        temperature: tau.

    Raises:
        ValueError: for shapes or numbers that do not fit.
    """
    data, others = _scores(query, own, noise, temperature)
    drawn = others.shape[1]
    if samples < 1 or drawn < 1:
        raise ValueError(f"{samples} samples and {drawn} noise features; expected at least one of each")
    with exact(query):
        shift = log_z + math.log(drawn / samples)
        of_data = -F.logsigmoid(data - shift).mean()
        of_noise = -F.logsigmoid(shift - others).sum(1).mean()
    right = (others.detach() < data.detach()[:, None]).all(1).to(data.dtype).mean()
    return NceResult(of_data + of_noise, of_data.detach(), of_noise.detach(), right, *sigmoid_pairs(drawn + 1, 1))


@torch.no_grad()
def log_partition(
    query: Tensor, own: Tensor, noise: Tensor, samples: int, world: World, temperature: float = 0.07
) -> Tensor:
    """ln Z, scalar: ln n + ln mean exp(v . f / tau) over all ranks' queries, their own features and their noise.

    As published, the own feature is one of the m + 1 that the mean is over. To be called once and kept.

    Args: as of `nce`.
    """
    data, others = _scores(query, own, noise, temperature)
    scores = torch.cat([data[:, None], others], 1)
    total = torch.logsumexp(world.gather(scores.flatten().logsumexp(0)[None]), 0)
    return total - math.log(scores.numel() * world.size) + math.log(samples)


def proximal(feature: Tensor, previous: Tensor) -> Tensor:
    """mean_i ||f_i - v_i||^2, scalar: equation 10's hold on the features of the last epoch, to be weighted by lambda = 30.

    Args:
        feature: (b, D), not yet normalised.
        previous: (b, D) the stored feature of the same sample, without gradient.
    """
    if feature.shape != previous.shape:
        raise ValueError(
            f"features are {tuple(feature.shape)} and stored ones {tuple(previous.shape)}; expected equal (b, D)"
        )
    return (unit(feature) - unit(previous.detach())).square().sum(1).mean()


def _scores(query: Tensor, own: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(b,) and (b, m) similarities over the temperature."""
    if query.ndim != 2 or query.shape != own.shape or len(query) == 0 or temperature <= 0:
        raise ValueError(
            f"queries are {tuple(query.shape)}, their stored features {tuple(own.shape)}, temperature {temperature}; expected "
            "two equal (b, D) with a row, and more than 0"
        )
    rows, width = query.shape
    if noise.shape[-1] != width or noise.ndim not in (2, 3) or (noise.ndim == 3 and len(noise) != rows):
        raise ValueError(f"noise is {tuple(noise.shape)}; expected (m, {width}) or ({rows}, m, {width})")
    query, own, noise = unit(query), unit(own.detach()), unit(noise.detach())
    with exact(query):
        return (query * own).sum(1) / temperature, similarities(query, noise) / temperature
