"""Ranking a gallery by cosine: the rank of the right answer, hits at k, and what chance would score.

Equal scores are in no order, so they are counted in every order: a query's hit at k is the *probability* that a right
answer is among the first k when ties are broken at random. A model that maps everything to one point thereby scores
exactly chance, instead of the 100 % that `score >= best` would grant it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = [
    "CHUNK",
    "Answers",
    "Ranking",
    "chance_of_hit",
    "chance_of_median_rank",
    "hit_probability",
    "rank",
    "rank_scores",
]

# Products of identical float32 rows differ by up to about 3e-7 with their place in the matrix; they are ties.
TIE = 1e-6
CHUNK = 1 << 23
"""Scores held at once: 32 MB of float32."""
_TILE = 1 << 18  # scores counted at a time: 1 MB

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """The right answers of each query, in compressed rows: query q owns `items[starts[q]:starts[q + 1]]`.

    Attributes:
        items: (P,) int64 numbers of gallery items.
        starts: (Q + 1,) int64.
    """

    items: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Answers:
        """From a list of distinct right answers per query.

        Raises:
            ValueError: if a query has no right answer: no rank could be given to it.
        """
        sizes = [len(each) for each in lists]
        if not sizes or min(sizes) == 0:
            which = f"query {sizes.index(0)} has none" if sizes else "there are no queries"
            raise ValueError(f"every query needs at least one right answer; {which}")
        flat = np.fromiter((item for each in lists for item in each), dtype=np.int64, count=sum(sizes))
        return cls(flat, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, query: int) -> NDArray[np.int64]:
        """The right answers of one query."""
        return self.items[self.starts[query] : self.starts[query + 1]]

    @property
    def counts(self) -> NDArray[np.int64]:
        """(Q,) number of right answers of each query."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Ranking:
    """What became of each of Q queries.

    Attributes:
        gallery: number of items that were ranked.
        top: (Q, T) int64 the best items, best first; T is 5, or the gallery's size if that is smaller.
        scores: (Q, T) float32 their cosines.
        right: (Q,) int64 the right answer that scored best.
        right_score: (Q,) float32 its cosine.
        ahead: (Q,) int64 items that score higher than it.
        tied: (Q,) int64 items that score the same, itself included.
        tied_right: (Q,) int64 right answers among the tied.
    """

    gallery: int
    top: NDArray[np.int64]
    scores: NDArray[np.float32]
    right: NDArray[np.int64]
    right_score: NDArray[np.float32]
    ahead: NDArray[np.int64]
    tied: NDArray[np.int64]
    tied_right: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ahead)

    @property
    def rank(self) -> Floats:
        """(Q,) expected rank, from 1, of the first right answer: g + (t + 1) / (p + 1) with p of t ties right."""
        return self.ahead + (self.tied + 1) / (self.tied_right + 1)

    def hits(self, k: int) -> Floats:
        """(Q,) probability that a right answer is among the first `k`: 0 or 1 where nothing is tied."""
        return hit_probability(self.tied, self.tied_right, np.clip(k - self.ahead, 0, self.tied))


def hit_probability(items: ArrayLike, right: ArrayLike, draws: ArrayLike) -> Floats:
    """Probability that at least one of `right` items is among `draws` of `items` without replacement.

    Hypergeometric: 1 - C(items - right, draws) / C(items, draws). All arguments broadcast; `draws` is small.
    """
    n, p, k = np.broadcast_arrays(*(np.asarray(each, dtype=np.float64) for each in (items, right, draws)))
    missed = np.ones(n.shape)
    for drawn in range(int(k.max(initial=0))):
        step = np.clip(n - p - drawn, 0, None) / np.maximum(n - drawn, 1)
        missed = np.where(drawn < k, missed * step, missed)
    return 1.0 - missed


def chance_of_hit(answers: Answers, gallery: int, k: int) -> float:
    """Expected share of hits at `k` when the gallery is in random order, exact for each query's number of answers."""
    counts, queries = np.unique(answers.counts, return_counts=True)
    return float(np.average(hit_probability(gallery, counts, min(k, gallery)), weights=queries))


def chance_of_median_rank(answers: Answers, gallery: int) -> float:
    """Median, over queries and random orders of the gallery, of the rank of the first right answer."""
    counts, queries = np.unique(answers.counts, return_counts=True)
    drawn = np.arange(gallery)
    beyond = np.zeros(gallery)  # P(rank > r) for r = 1 ... gallery
    for p, weight in zip(counts, queries / queries.sum(), strict=True):
        beyond += weight * np.cumprod(np.clip(gallery - p - drawn, 0, None) / (gallery - drawn))
    return float(1 + np.argmax(beyond <= 0.5 + 1e-12))


@torch.no_grad()
def rank(queries: Tensor, gallery: Tensor, answers: Answers, keep: int = 5) -> Ranking:
    """Rank the whole gallery for every query by s = <q, g>, in chunks: memory is O(chunk), not O(Q x G).

    Args:
        queries: (Q, D) L2-normalised.
        gallery: (G, D) L2-normalised.
        answers: which items are right.
        keep: how many of the best items to remember.

    Raises:
        ValueError: if sizes do not fit.
    """
    if len(answers) != len(queries) or queries.shape[1] != gallery.shape[1] or answers.items.max() >= len(gallery):
        raise ValueError(
            f"given {tuple(queries.shape)} queries, {tuple(gallery.shape)} items and answers for {len(answers)} queries up to item "
            f"{answers.items.max()}; expected answers for every query, equal widths, and answers within the gallery"
        )
    return rank_scores(lambda rows: queries[rows] @ gallery.T, len(queries), len(gallery), answers, keep)


@torch.no_grad()
def rank_scores(
    scores: Callable[[slice], Tensor], queries: int, gallery: int, answers: Answers, keep: int = 5
) -> Ranking:
    """Rank the whole gallery for every query by any score.

    Args:
        scores: for a slice of the queries, (rows, gallery) floats, higher is better; called once for each slice.
        queries, gallery: how many there are.
        answers: which items are right.
        keep: how many of the best items to remember.
    """
    rows = max(1, CHUNK // gallery)
    parts = [
        _rank_chunk(scores(slice(at, min(at + rows, queries))), at, answers, min(keep, gallery))
        for at in range(0, queries, rows)
    ]
    joined = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    return Ranking(gallery, *joined)


def _count(scores: Tensor, bounds: Tensor, compare: Callable[..., Tensor] = torch.gt) -> Tensor:
    """(rows,) int64 how many scores of each row are greater than its bound (rows,), or as `compare` says: `torch.ge`."""
    found = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    wide = min(scores.shape[1], _TILE)
    tall = max(1, _TILE // wide)
    # Marked by 0 and 1 in the scores' own type: comparing into bools and adding those takes four times as long on a CPU. In tiles,
    # which stay in its cache, and whose sums are far below 2^24, from which on float32 cannot count.
    marked = torch.empty(tall * wide, dtype=scores.dtype, device=scores.device)
    for top in range(0, len(scores), tall):
        for tile in scores[top : top + tall].split(wide, 1):
            into = marked[: tile.numel()].view(tile.shape)
            compare(tile, bounds[top : top + tall, None], out=into)
            found[top : top + tall] += into.sum(1).long()
    return found


def _best(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """(rows, keep) the greatest scores of each row, greatest first, and their places.

    The `keep` best of a row lie in the `keep` groups of columns whose greatest are greatest; only those are sorted.
    """
    rows, columns = scores.shape
    size = math.isqrt(columns // keep)  # so that there are about as many groups as columns in the chosen ones
    groups = columns // max(1, size)
    if size < 4:
        return scores.topk(keep, 1)  # type: ignore[return-value]
    # Columns `groups` apart are one group: their maxima are then found for neighbouring columns at once.
    chosen = scores[:, : groups * size].unflatten(1, (size, groups)).amax(1).topk(keep, 1, sorted=False).indices
    places = (chosen[:, None] + groups * torch.arange(size, device=scores.device)[:, None]).view(rows, -1)
    rest = torch.arange(groups * size, columns, device=scores.device).expand(rows, -1)
    places = torch.cat([places, rest], 1)
    values, order = scores.gather(1, places).topk(keep, 1)
    return values, places.gather(1, order)


def _rank_chunk(scores: Tensor, first: int, answers: Answers, keep: int) -> tuple[Tensor, ...]:
    # Of texts the scores come transposed; every pass below reads whole rows.
    scores = scores.contiguous()
    device, queries = scores.device, len(scores)
    starts = answers.starts[first : first + queries + 1]
    items = torch.from_numpy(answers.items[starts[0] : starts[-1]]).to(device)
    owner = torch.arange(queries, device=device).repeat_interleave(torch.from_numpy(np.diff(starts)).to(device))
    of_right = scores[owner, items]
    best = torch.full((queries,), -torch.inf, dtype=scores.dtype, device=device).scatter_reduce(
        0, owner, of_right, "amax"
    )
    # Where several right answers are equally good, the first is the one that is shown.
    place = torch.arange(len(items), device=device)
    candidates = torch.where(of_right == best[owner], place, len(items))
    shown = items[torch.full_like(owner[:1], len(items)).repeat(queries).scatter_reduce(0, owner, candidates, "amin")]
    above = _count(scores, best + TIE)
    # Where scores are so great that TIE is lost in them, the best still ties with itself.
    tied = _count(scores, best - TIE, torch.ge) - above
    tied_right = torch.zeros_like(above).index_add_(0, owner, (of_right >= (best - TIE)[owner]).long())
    values, places = _best(scores, keep)
    return places, values, shown, best, above, tied, tied_right
