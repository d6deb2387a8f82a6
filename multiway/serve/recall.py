"""How much of what an exact search finds an index finds too, and how hard it has to look for that.

recall@k = share of the k nearest that are among the k found, over queries that the index was not made for: vectors of the index,
each itself left out of what can be found; and texts, which is what pictures are asked for with. A vector as near as the k-th
counts as well, so that equal ones do no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from multiway.serve.faiss_index import FaissIndex, How
from multiway.serve.index import imported

__all__ = ["Queries", "Recall", "held_out", "measured", "tuned"]

_TIE = 1e-5  # two cosines this close are equal in float32


@dataclass(frozen=True)
class Queries:
    """What is asked, and what there is to be found.

    Attributes:
        name: `pictures` (vectors of the index) or `texts`.
        vectors: (Q, D) of length 1.
        own: (Q,) place of each in the index, which does not count; -1 for none.
        kth: (Q,) cosine of the k-th nearest.
        k: how many are looked for.
    """

    name: str
    vectors: np.ndarray
    own: np.ndarray
    kth: np.ndarray
    k: int


@dataclass(frozen=True)
class Recall:
    """recall@k of an index, in [0, 1], with the number of queries that it is a mean of."""

    name: str
    k: int
    value: float
    n: int


def held_out(index: FaissIndex, texts: np.ndarray | None = None, k: int = 10, count: int = 1000) -> list[Queries]:
    """Queries with the answers of an exact search.

    Args:
        index: that they are asked of.
        texts: (m, D) vectors of texts, if there are any.
        k: how many are looked for; fewer in a smaller index.
        count: queries of either kind, spread evenly.
    """
    places, vectors = index.live()
    k = min(k, len(vectors) - 1)
    if k < 1:
        return []
    some = np.linspace(0, len(vectors) - 1, min(count, len(vectors))).astype(np.int64)
    found = [_answered(index, "pictures", vectors[some], places[some], vectors, places, k)]
    if texts is not None and len(texts):
        asked = np.asarray(texts[np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(np.int64)], np.float32)
        found.append(_answered(index, "texts", asked, np.full(len(asked), -1), vectors, places, k))
    return found


def _answered(
    index: FaissIndex, name: str, asked: np.ndarray, own: np.ndarray, vectors: np.ndarray, places: np.ndarray, k: int
) -> Queries:
    faiss = imported("faiss", "recall", "index")
    scores, rows = faiss.knn(asked, vectors, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
    others, _ = _without(scores, places[rows], own, k)
    return Queries(name, asked, own, others[:, -1], k)


def _without(scores: np.ndarray, places: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k of each line that are not the query itself."""
    order = np.argsort(places == own[:, None], axis=1, kind="stable")[:, :k]  # itself, if it is there, comes last
    return np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)


def measured(index: FaissIndex, queries: list[Queries], how: How | None = None) -> Iterator[Recall]:
    """recall@k of each kind of queries.

    Args:
        how: effort to search with; by default the index's own.
    """
    for each in queries:
        scores, places = _without(*index.nearest(each.vectors, each.k + 1, how), each.own, each.k)
        right = (places >= 0) & (scores >= each.kth[:, None] - _TIE)
        yield Recall(each.name, each.k, float(right.sum(1).mean() / each.k), len(each.vectors))


def tuned(index: FaissIndex, queries: list[Queries], wanted: float) -> How:
    """The least effort, doubled step by step, with which every kind of queries is answered with the recall that is wanted.

    Returns:
        The structure's settings with it; with all of it where none suffices.
    """
    how = index.how
    most = len(index) if how.kind == "hnsw" else how.nlist
    effort = 16 if how.kind == "hnsw" else 1
    while how.effort:
        how = how.with_effort(min(effort, max(1, most)))
        if effort >= most or all(each.value >= wanted for each in measured(index, queries, how)):
            break
        effort *= 2
    return how
