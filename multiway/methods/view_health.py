"""How healthy a method on several views is, in figures that cost next to nothing: what the doctor reads in `report`.

    alignment        mean squared distance of two views of one picture: 0 alike, 2 unrelated (`losses/uniformity.py`)
    predictor_gain   cos(p, z') - cos(z, z'): what the predictor adds to what the projection alone says of the other view
    hardest_weight   share of the negatives' gradient that the hardest has: softmax of s / tau over negatives, its greatest
    negatives_felt   exp of that softmax's entropy over the number of negatives: 1 all weigh alike, 1 / K one has it all
    freshness        cosine of what is stored of a picture and its fresh feature, where the picture is seen again
    winners          outputs that are some row's greatest, over how many would be if all were equally likely

The gradient of InfoNCE and NT-Xent reaches a negative in proportion to its softmax, so that tau decides how many are felt: F. Wang
and H. Liu, Understanding the Behaviour of Contrastive Loss, 2021, arXiv 2012.09740, equations 3 to 5. All are of this rank and of
its first rows alone; the loop averages them over ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from multiway.losses.info_nce import similarities
from multiway.losses.uniformity import alignment
from multiway.losses.unit import exact, unit
from multiway.methods.method import Reps
from multiway.world import World

__all__ = ["QUERIES", "ROWS", "freshness", "of_views", "pressure", "winners"]

ROWS = 256  # of pairs of views
QUERIES = 64  # that meet all negatives, of which there may be 65,536
_ALONE = World()


@torch.no_grad()
def of_views(reps: Reps, twin: bool) -> dict[str, Tensor]:
    """`alignment` of two views, where two were encoded, and `predictor_gain`, where there is a predictor.

    Args:
        reps: as of `Siamese.encode`: `projected/v`, `predicted/v`, `target/v`, each (B, D).
        twin: whether targets are a twin's; if they are, target/0 stands in for a second view that the student did not see.
    """
    first, second = reps["projected/0"][:ROWS], reps.get("projected/1")
    if second is None and twin:
        second = reps.get("target/0")
    found = {}
    if second is not None:
        found["alignment"] = alignment(first, second[:ROWS], _ALONE)
    if "predicted/0" in reps and "target/1" in reps:
        aim, said = unit(reps["target/1"][:ROWS]), unit(reps["predicted/0"][:ROWS])
        found["predictor_gain"] = ((said - unit(first)) * aim).sum(1).mean()
    return found


@torch.no_grad()
def pressure(
    query: Tensor,
    negatives: Tensor,
    temperature: float,
    query_id: Tensor | None = None,
    negative_id: Tensor | None = None,
) -> dict[str, Tensor]:
    """`hardest_weight` and `negatives_felt`, means over the first `QUERIES` queries; nan while there are no negatives.

    Args:
        query: (B, D), not yet normalised.
        negatives: (K, D) that all share, or (B, K, D) of each query's own.
        temperature: tau.
        query_id: (B,) int64 of the picture.
        negative_id: (K,) or (B, K); those with the query's own id are no negatives.
    """
    query, negatives = unit(query[:QUERIES]), negatives[:QUERIES] if negatives.ndim == 3 else negatives
    if negatives.shape[-2] == 0:
        nothing = query.new_full((), torch.nan)
        return {"hardest_weight": nothing, "negatives_felt": nothing}
    with exact(query):
        logits = similarities(query, unit(negatives)) / temperature
    left = torch.full_like(logits[:, 0], logits.shape[1])
    if query_id is not None and negative_id is not None:
        own = query_id[:QUERIES, None] == (negative_id[:QUERIES] if negative_id.ndim == 2 else negative_id)
        logits, left = logits.masked_fill(own, -torch.inf), (~own).sum(1).to(logits)
    # A query whose negatives are all its own picture has a softmax of nan, which the mean leaves out.
    weight = logits.softmax(1)
    return {
        "hardest_weight": weight.amax(1).nanmean(),
        "negatives_felt": (torch.special.entr(weight).sum(1).exp() / left).nanmean(),
    }


@torch.no_grad()
def freshness(fresh: Tensor, ids: Tensor, stored: Tensor, stored_ids: Tensor) -> Tensor:
    """Mean cosine of stored features with the fresh ones of the same pictures: scalar, nan where none is met again.

    Args:
        fresh: (B, D), not yet normalised; the first `QUERIES` are looked up.
        ids: (B,) int64 of their pictures.
        stored: (K, D), not yet normalised.
        stored_ids: (K,) int64.
    """
    fresh, again = unit(fresh[:QUERIES]), ids[:QUERIES, None] == stored_ids
    with exact(fresh):
        cosine = fresh @ unit(stored).t()
    return (cosine * again).sum() / again.sum()


@torch.no_grad()
def winners(outputs: Sequence[Tensor]) -> Tensor:
    """Distinct greatest outputs over their expected number under even use, K (1 - (1 - 1 / K)^n) of n rows: scalar.

    Args:
        outputs: of each view (B, K).
    """
    tops = torch.cat([each.argmax(1) for each in outputs])
    count = outputs[0].shape[1]
    even = -count * math.expm1(len(tops) * math.log1p(-1.0 / count)) if count > 1 else 1.0
    # No `unique`, which would wait for a GPU.
    met = torch.zeros(count, device=tops.device).scatter_(0, tops, 1.0)
    return met.sum() / even
