"""What changes a token's score before one is chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from multiway.nn.generate.settings import Generation

__all__ = ["nucleus", "penalise"]


def penalise(scores: Tensor, written: Tensor, settings: Generation, end: int) -> Tensor:
    """Repetition penalty, then minimum length.

    Args:
        scores: (R, V) logits, or log-probabilities in beam search.
        written: (R, L) the texts so far.
        end: id of the end token.
    """
    if settings.repetition_penalty != 1.0:
        own = scores.gather(1, written)
        factor = settings.repetition_penalty
        scores = scores.scatter(1, written, torch.where(own < 0, own * factor, own / factor))
    if written.shape[1] < settings.min_length:
        scores = scores.clone()
        scores[:, end] = -torch.inf
    return scores


def nucleus(scores: Tensor, draws: Tensor, top_p: float, temperature: float = 1.0) -> Tensor:
    """Draw a token from each row's nucleus: the likeliest tokens, as few as have the mass `top_p` together.

    Holtzman et al. 2020, arXiv 1904.09751, equations 2 and 3. Of equally likely tokens those with the smaller ids come
    first.

    Args:
        scores: (R, V) logits.
        draws: (R,) float64 in [0, 1): what decides, by the inverse of the cumulative distribution.

    Returns:
        (R,) token ids.
    """
    p, order = (scores.double() / temperature).softmax(1).sort(dim=1, descending=True, stable=True)
    mass = p.cumsum(1)
    inside = mass - p < top_p  # a token belongs if those before it have not reached the mass yet
    total = (p * inside).sum(1, keepdim=True)
    place = torch.searchsorted(mass, draws[:, None] * total, right=True)
    # A draw close to 1 may round to just past the nucleus.
    place = place.minimum(inside.sum(1, keepdim=True) - 1)
    return order.gather(1, place)[:, 0]
