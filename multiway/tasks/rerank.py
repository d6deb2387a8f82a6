"""Retrieval in two steps: the encoders propose, the fused encoder decides.

Li et al., ALBEF, 2021, arXiv 2107.07651, section 4.1: the k items whose embeddings are nearest to the query are scored again,
together with it, by image-text matching. With s the cosine, m the log-odds of `match` and T_k(q) the k nearest items,

    score(q, g) = m(q, g) + mix s(q, g) / tau    for g in T_k(q), ranked before all others
    score(q, g) = s(q, g)                        for the others, in their old order

For a model that compares in another way (FILIP) s is what its `compare` says.
`mix` 0 is ALBEF's released code; BLIP's (Li et al., 2022, arXiv 2201.12086) adds the cosine, there with tau = 1. `top` 0 scores
every pair, which is *full fusion*: N x M passes of the fused encoder where re-ranking takes k (N + M). That needs no
cosine, so models without a shared space (ViLT) can do it; there is then no dual ranking to set beside it.

Every picture and every text is encoded once, and a pair that both directions ask for is matched once. Pairs are matched in
order of the text's length, so that little is computed for padding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from multiway.abilities import Encoded, abilities_of, require
from multiway.data.source import Source
from multiway.tasks import statistics
from multiway.tasks.embed import encode_images, encode_texts
from multiway.tasks.ranking import Ranking, rank_scores
from multiway.tasks.retrieval import Gallery, RetrievalDetails, Ways, groups_of
from multiway.tasks.similarity import Similarity
from multiway.tasks.task import Metric, Result, collect, require_rows

__all__ = ["Rerank", "RerankDetails"]

# Added to the score of re-ranked items: above any cosine, and exact in float64 beside log-odds.
_FIRST = 1e6

_STEP = 4096  # pairs whose tokens are laid out at a time
_SAMPLE = 64  # pairs that are matched first, to tell how long all of them will take
_SILENCE = 30.0  # seconds between two words on how far it has come


@dataclass(frozen=True)
class RerankDetails:
    """What became of each query before and after.

    Attributes:
        dual: by the encoders alone; None where the model cannot compare.
        fused: after the fused encoder had its say.
        encoded, matched: passes of the encoders and of the fused encoder.
    """

    dual: RetrievalDetails | None
    fused: RetrievalDetails
    encoded: int
    matched: int


@dataclass(frozen=True)
class Rerank:
    """Finds pictures and texts by cosine, then by matching.

    Attributes:
        task: `rerank`, or `fusion` for every pair.
        top: k, items per query that are matched; 0 for all.
        mix: weight of the cosine over `tau` in the score of matched items.
        tau: temperature of the cosine in that score.
        ks: the k of R@k.
        batch: pictures decoded and encoded at a time.
        resamples, seed: of the bootstrap.
        say: told what it will cost before it starts, and then how far it has come; lines for people.
    """

    name: str = "rerank"
    top: int = 16
    mix: float = 0.0
    tau: float = 1.0
    ks: tuple[int, ...] = (1, 5, 10, 16)
    batch: int = 256
    resamples: int = statistics.RESAMPLES
    seed: int = 0
    say: Callable[[str], None] | None = field(default=None, repr=False, compare=False)

    @property
    def needs(self) -> tuple[str, ...]:
        """Abilities: to compare as well, unless every pair is matched and nothing else counts."""
        compares = ("compare",) if self.top or self.mix else ()
        return ("encode_image", "encode_text", *compares, "match")

    def run(self, model: Any, source: Source) -> Result:
        """Encode everything once, rank both ways, match the best, rank again.

        Raises:
            LacksAbility: if the model has no fused encoder, or nothing by which to propose what that should look at.
            DataError: if the source has no rows.
        """
        require(model, self.needs, self.name)
        require_rows(self.name, source)
        gallery = Gallery.of(source)
        self._told(f"encoding {len(gallery.rows):,} pictures and {len(gallery.texts):,} texts, each once")
        pictures = encode_images(model, source, gallery.rows, self.batch, tokens=True)
        texts = encode_texts(model, gallery.texts, tokens=True)
        sizes = len(gallery.rows), len(gallery.texts)
        similarity = Similarity.of(model, pictures, texts) if "compare" in abilities_of(model) else None
        ways = similarity.ways if similarity else (None, None)
        nearest = self._nearest(ways[0], *sizes), self._nearest(ways[1], *sizes[::-1])
        odds, pairs = self._match(model, pictures, texts, *nearest)

        def score(way: int, rows: slice) -> Tensor:
            similar = ways[way]
            if similar is None:  # every pair was matched, in the gallery's order
                return odds[way][rows]
            values, best = similar(rows).double(), nearest[way][rows]
            fused = odds[way][rows] + self.mix * values.gather(1, best) / self.tau
            return values.scatter(1, best, fused + _FIRST)

        def ranked(way: int) -> Ranking:
            answers = (gallery.texts_of, gallery.pictures_of)[way]
            return rank_scores(lambda rows: score(way, rows), sizes[way], sizes[1 - way], answers)

        dual = RetrievalDetails.of(gallery, similarity) if similarity else None
        details = RerankDetails(dual, RetrievalDetails(gallery, ranked(0), ranked(1)), sum(sizes), pairs)
        return collect(self, source, self.metrics(details, source), details)

    def _told(self, line: str) -> None:
        if self.say is not None:
            self.say(f"{self.name}: {line}")

    def _nearest(self, similar: Callable[[slice], Tensor] | None, queries: int, items: int) -> Tensor:
        """(Q, k) the items most similar to each query; all of them, in the gallery's order, where all are wanted."""
        if similar is None or not 0 < self.top < items:
            return torch.arange(items).expand(queries, items)
        rows = max(1, (1 << 23) // items)
        slices = (slice(at, min(at + rows, queries)) for at in range(0, queries, rows))
        return torch.cat([similar(some).topk(self.top).indices for some in slices])

    def _match(
        self, model: Any, pictures: Encoded, texts: Encoded, texts_near: Tensor, pictures_near: Tensor
    ) -> tuple[tuple[Tensor, Tensor], int]:
        """Log-odds of both directions' candidates, shaped like them, and how many pairs were matched."""
        count = len(texts.embedding)
        asked = torch.cat(
            [
                (torch.arange(len(texts_near))[:, None] * count + texts_near).flatten(),
                (pictures_near * count + torch.arange(count)[:, None]).flatten(),
            ]
        )
        pair, place = asked.unique(return_inverse=True)
        picture, text = pair // count, pair % count
        lengths = texts.mask.sum(1) if texts.mask is not None else torch.zeros(count, dtype=torch.int64)
        order = lengths[text].argsort(stable=True)
        odds = torch.empty(len(pair), dtype=torch.float64)

        def match(some: Tensor) -> None:
            odds[some] = model.match(pictures.rows(picture[some]), texts.rows(text[some])).double()

        # A few pairs of every length come first, and their time is that of a share of all.
        sampled = torch.zeros(len(order), dtype=torch.bool)
        sampled[torch.arange(0, len(order), max(1, len(order) // _SAMPLE))] = True
        began = time.monotonic()
        match(order[sampled])
        rest, done = order[~sampled], int(sampled.sum())
        rate = done / max(1e-9, time.monotonic() - began)
        self._told(
            f"matching {len(order):,} pairs, {_duration(len(rest) / rate)} ({rate:,.0f} pairs/s on the first {done})"
        )
        last = began = time.monotonic()
        for start in range(0, len(rest), _STEP):
            match(rest[start : start + _STEP])
            now, share = time.monotonic(), min(1.0, (start + _STEP) / len(rest))
            if now - last > _SILENCE and share < 1.0:
                last = now
                self._told(f"{share:.0%} of the pairs are matched, {_duration((now - began) * (1 / share - 1))} left")
        if not odds.isfinite().all():
            raise ValueError(f"`match` returned nan or inf for {int((~odds.isfinite()).sum())} of {len(odds)} pairs")
        both = odds[place].split([texts_near.numel(), pictures_near.numel()])
        return (both[0].view_as(texts_near), both[1].view_as(pictures_near)), len(pair)

    def metrics(self, details: RerankDetails, source: Source) -> Iterator[Metric]:
        """Recall after; where there is a before, that too and the difference on the same queries."""
        options = {"resamples": self.resamples, "seed": self.seed}
        after = Ways.of(details.fused)
        yield from after.metrics(self.ks, options, groups_of(source, details.fused.gallery))
        if details.dual is None:
            return
        before = Ways.of(details.dual)
        for metric in before.metrics((1,), options):
            if not metric.name.endswith("median_rank"):
                yield Metric(f"dual/{metric.name}", metric.value, metric.low, metric.high, metric.n, metric.chance)
        gained = [new.ranking.hits(1) - old.ranking.hits(1) for new, old in zip(after.both, before.both, strict=True)]
        interval = statistics.joint_mean(gained, [way.units for way in after.both], **options)
        yield Metric("mean/R@1_gain", *interval, n=sum(map(len, gained)), chance=0.0)


def _duration(seconds: float) -> str:
    """`about 40 s`, `about 12 min`, `about 3.5 h`."""
    if seconds < 1:
        return "less than a second"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
