"""What a report shows of a model that sees picture and text together: re-ranking, hidden words, and where words look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from multiway.abilities import abilities_of
from multiway.data.source import KnowsWords, Source
from multiway.explain.words import overlay, word_maps
from multiway.hub.model import Model
from multiway.tasks import TASKS, Result
from multiway.tasks.masked_words import Guess
from multiway.tasks.rerank import RerankDetails

__all__ = ["Fused", "Hidden", "Looks", "Moved", "fused_section"]

Uri = Callable[[Image.Image], str]


@dataclass(frozen=True)
class Moved:
    """A text whose right picture moved: its rank before and after, and the first five pictures before and after."""

    words: str
    before_rank: float
    after_rank: float
    before: list[tuple[str, bool]]  # data URI, whether right
    after: list[tuple[str, bool]]


@dataclass(frozen=True)
class Hidden:
    """A caption with a word hidden, and what was guessed."""

    picture: str
    start: str
    end: str
    guess: Guess


@dataclass(frozen=True)
class Looks:
    """A picture, its caption, and for some words (word, attention, Grad-CAM) as data URIs."""

    picture: str
    caption: str
    odds: float
    words: list[tuple[str, str, str]]


@dataclass
class Fused:
    """One split of data seen by a fused model.

    Attributes:
        title: data and split.
        rerank, matching, masked: results; `masked` is None for models that guess no words.
        up, down: queries that re-ranking put right first, and ones that it took from there.
        matched, every: pairs matched by re-ranking, and pairs there are.
        hidden: guesses.
        looks: maps.
    """

    title: str
    rerank: Result
    matching: Result
    masked: Result | None
    up: list[Moved]
    down: list[Moved]
    matched: int
    every: int
    hidden: list[Hidden]
    looks: list[Looks]


def fused_section(model: Model, source: Source, uri: Uri, count: int = 4) -> Fused:
    """Everything about one split; examples are spread evenly, not chosen.

    Args:
        model: has `match`.
        source: the split.
        uri: picture to data URI.
        count: examples of each kind.
    """
    able = abilities_of(model)
    rerank = TASKS["rerank"].run(model, source)
    details: RerankDetails = rerank.details
    up, down = _moved(source, details, uri, count)
    masked = TASKS["masked-words"].run(model, source) if "fill_mask" in able else None
    gallery = details.dual.gallery
    return Fused(
        title=f"{source.name}@{source.split}",
        rerank=rerank,
        matching=TASKS["matching"].run(model, source),
        masked=masked,
        up=up,
        down=down,
        matched=details.matched,
        every=len(gallery.rows) * len(gallery.texts),
        hidden=_hidden(source, masked.details, uri, 3 * count) if masked else [],
        looks=_looks(model, source, uri, count) if "match_with_maps" in able else [],
    )


def _spread(items: list[int], count: int) -> list[int]:
    """At most `count` of the items, evenly spread."""
    count = min(count, len(items))
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def _moved(source: Source, details: RerankDetails, uri: Uri, count: int) -> tuple[list[Moved], list[Moved]]:
    before, after = details.dual.image_retrieval, details.fused.image_retrieval
    gallery = details.dual.gallery

    def five(top: np.ndarray, right: set[int]) -> list[tuple[str, bool]]:
        return [(uri(source.image(gallery.rows[int(place)])), int(place) in right) for place in top]

    def moved(query: int) -> Moved:
        right = set(gallery.pictures_of[query].tolist())
        return Moved(
            gallery.texts[query],
            float(before.rank[query]),
            float(after.rank[query]),
            five(before.top[query], right),
            five(after.top[query], right),
        )

    first = [int(query) for query in np.flatnonzero((after.rank <= 1) & (before.rank > 1))]
    lost = [int(query) for query in np.flatnonzero((after.rank > 1) & (before.rank <= 1))]
    return [moved(query) for query in _spread(first, count)], [moved(query) for query in _spread(lost, count)]


def _hidden(source: Source, guesses: list[Guess], uri: Uri, count: int) -> list[Hidden]:
    shown = []
    # Every n-th guess of each class, so that colours do not crowd out the rest.
    kinds = sorted({guess.kind for guess in guesses})
    for kind in kinds:
        own = [number for number, guess in enumerate(guesses) if guess.kind == kind]
        for number in _spread(own, max(1, count // len(kinds))):
            guess = guesses[number]
            start, _, end = guess.caption.partition(guess.word)
            shown.append(Hidden(uri(source.image(guess.row)), start, end, guess))
    return shown


def _looks(model: Model, source: Source, uri: Uri, count: int) -> list[Looks]:
    known = (
        {word for words in source.word_classes.values() for word in words} if isinstance(source, KnowsWords) else None
    )
    shown = []
    for row in _spread(list(range(len(source))), count):
        picture, caption = source.image(row), source.row(row).captions[0]
        maps = word_maps(model, picture, caption)
        words = [
            (word, uri(overlay(picture, maps.attention[place])), uri(overlay(picture, maps.grad_cam[place])))
            for place, word in enumerate(maps.words)
            if (word in known if known is not None else len(word) > 2)
        ]
        shown.append(Looks(uri(picture), caption, maps.odds, words[:9]))
    return shown
