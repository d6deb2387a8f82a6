"""Image-text retrieval, both ways, counting every caption.

The gallery of pictures holds each distinct picture once (by `image_id`), the gallery of texts each distinct string.
The score is what the model's `compare` makes of picture i and text j, each encoded by itself, and nothing else: where
both have a unit vector in one space, v and w, that is their cosine,

    s_ij = <v_i, w_j>

- `text_retrieval/R@k`, picture -> text: share of pictures for which at least one of their captions is among the k
  texts that score highest (Karpathy & Fei-Fei 2015, section 4.2: the standard protocol of Flickr30K and COCO).
- `image_retrieval/R@k`, text -> picture: share of texts for which a picture that carries this text is among the first k.
- `median_rank` of the first right answer, from 1; `mean/R@1`, the mean of R@1 both ways.

Departures from common scripts: all captions of a picture count, not the first five; a string that describes two
pictures is one text with two right pictures (elsewhere it is two queries, each of which scores the other's picture as
wrong); equal scores count as a random order. Intervals resample pictures, together with their captions. Chance is
exact: hypergeometric in each query's number of right answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from multiway.abilities import require
from multiway.data.source import Source
from multiway.tasks import statistics
from multiway.tasks.embed import encode_images, encode_texts
from multiway.tasks.ranking import CHUNK, Answers, Ranking, chance_of_hit, chance_of_median_rank, rank_scores
from multiway.tasks.similarity import Similarity
from multiway.tasks.task import Metric, Result, collect, require_rows

__all__ = ["Gallery", "Retrieval", "RetrievalDetails", "Ways", "groups_of"]


@dataclass(frozen=True)
class Gallery:
    """The pictures and texts of a source, each once, and which belong together.

    Attributes:
        rows: for each picture, its first row in the source.
        texts: distinct strings, in order of appearance.
        texts_of: right texts of each picture.
        pictures_of: right pictures of each text.
    """

    rows: list[int]
    texts: list[str]
    texts_of: Answers
    pictures_of: Answers

    @classmethod
    def of(cls, source: Source) -> Gallery:
        """Read off the rows' words; no picture is decoded."""
        rows: list[int] = []
        pictures: dict[int, int] = {}
        texts: dict[str, int] = {}
        texts_of: list[dict[int, None]] = []  # dictionaries as ordered sets
        pictures_of: list[dict[int, None]] = []
        for number in range(len(source)):
            row = source.row(number)
            picture = pictures.setdefault(row.image_id, len(pictures))
            if picture == len(rows):
                rows.append(number)
                texts_of.append({})
            for caption in row.captions:
                text = texts.setdefault(caption, len(texts))
                if text == len(pictures_of):
                    pictures_of.append({})
                texts_of[picture][text] = None
                pictures_of[text][picture] = None
        return cls(
            rows, list(texts), Answers.of([[*each] for each in texts_of]), Answers.of([[*each] for each in pictures_of])
        )


@dataclass(frozen=True)
class RetrievalDetails:
    """What became of each query; reports draw their hits and misses from it.

    Attributes:
        gallery: numbers in the rankings are indices into its `rows` and `texts`.
        text_retrieval: queries are pictures, items are texts.
        image_retrieval: queries are texts, items are pictures.
    """

    gallery: Gallery
    text_retrieval: Ranking
    image_retrieval: Ranking

    @classmethod
    def of(cls, gallery: Gallery, similarity: Similarity) -> RetrievalDetails:
        """Rank both ways by similarity alone."""
        pictures, texts = similarity.sizes
        similarity = similarity.held(CHUNK)
        return cls(
            gallery,
            text_retrieval=rank_scores(similarity.of_pictures, pictures, texts, gallery.texts_of),
            image_retrieval=rank_scores(similarity.of_texts, texts, pictures, gallery.pictures_of),
        )


@dataclass(frozen=True)
class Retrieval:
    """Finds the texts of a picture and the pictures of a text, counting every caption.

    Attributes:
        ks: the k of R@k.
        batch: pictures decoded and encoded at a time.
        resamples, seed: of the bootstrap.
    """

    name: ClassVar[str] = "retrieval"
    needs: ClassVar[tuple[str, ...]] = ("encode_image", "encode_text", "compare")

    ks: tuple[int, ...] = (1, 5, 10)
    batch: int = 256
    resamples: int = statistics.RESAMPLES
    seed: int = 0

    def run(self, model: Any, source: Source) -> Result:
        """Encode everything once, rank both ways, count.

        Raises:
            LacksAbility: if the model does not encode pictures and texts, or cannot compare them.
            DataError: if the source has no rows.
        """
        require(model, self.needs, self.name)
        require_rows(self.name, source)
        gallery = Gallery.of(source)
        pictures = encode_images(model, source, gallery.rows, self.batch)
        details = RetrievalDetails.of(gallery, Similarity.of(model, pictures, encode_texts(model, gallery.texts)))
        return collect(self, source, self.metrics(details, groups_of(source, gallery)), details)

    def metrics(self, details: RetrievalDetails, groups: Sequence[str] = ()) -> Iterator[Metric]:
        """All numbers, from the rankings; `groups` as `groups_of` gives them."""
        options = {"resamples": self.resamples, "seed": self.seed}
        yield from Ways.of(details).metrics(self.ks, options, groups)


def groups_of(source: Source, gallery: Gallery) -> list[str]:
    """The group of each picture (`Row.group`); empty where all are of one."""
    groups = [source.row(row).group for row in gallery.rows]
    return groups if len(set(groups)) > 1 else []


@dataclass(frozen=True)
class _Way:
    """One direction of retrieval."""

    name: str
    ranking: Ranking
    answers: Answers
    units: np.ndarray = field(repr=False)

    def chance(self, k: int) -> float:
        return chance_of_hit(self.answers, self.ranking.gallery, k)


@dataclass(frozen=True)
class Ways:
    """Both directions of retrieval, and all that is counted of them."""

    both: tuple[_Way, _Way]

    @classmethod
    def of(cls, details: RetrievalDetails) -> Ways:
        """From the rankings."""
        gallery = details.gallery
        # A text that several pictures share is resampled with the first of them.
        first_picture = gallery.pictures_of.items[gallery.pictures_of.starts[:-1]]
        there = _Way("text_retrieval", details.text_retrieval, gallery.texts_of, np.arange(len(gallery.rows)))
        return cls((there, _Way("image_retrieval", details.image_retrieval, gallery.pictures_of, first_picture)))

    def metrics(self, ks: tuple[int, ...], options: dict[str, int], groups: Sequence[str] = ()) -> Iterator[Metric]:
        """R@k, median ranks and the mean R@1, then R@1 of each group of pictures."""
        for way in self.both:
            for k in ks:
                interval = statistics.mean(way.ranking.hits(k), way.units, **options)
                yield Metric(f"{way.name}/R@{k}", *interval, n=len(way.ranking), chance=way.chance(k))
            interval = statistics.median(way.ranking.rank, way.units, **options)
            chance = chance_of_median_rank(way.answers, way.ranking.gallery)
            yield Metric(f"{way.name}/median_rank", *interval, n=len(way.ranking), chance=chance)
        hits, units = [way.ranking.hits(1) for way in self.both], [way.units for way in self.both]
        chance = float(np.mean([way.chance(1) for way in self.both]))
        yield Metric("mean/R@1", *statistics.joint_mean(hits, units, **options), n=sum(map(len, hits)), chance=chance)
        of = np.asarray(groups)
        for group in sorted(set(groups)):
            for way in self.both:
                own = of[way.units] == group
                interval = statistics.mean(way.ranking.hits(1)[own], way.units[own], **options)
                yield Metric(f"{way.name}/R@1[{group}]", *interval, n=int(own.sum()), chance=way.chance(1))
