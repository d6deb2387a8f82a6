"""What a report shows of a model that sees picture and text together: re-ranking, hidden words, and where words look."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from multiway.abilities import abilities_of
from multiway.data.source import DataError, KnowsWords, Source
from multiway.data.view import draw
from multiway.explain.look import explain
from multiway.explain.overlay import drawn_part, with_heat
from multiway.hub.model import Model
from multiway.tasks import TASKS, Result
from multiway.tasks.masked_words import Guess
from multiway.tasks.rerank import RerankDetails
from multiway.tasks.retrieval import Retrieval, groups_of
from multiway.tasks.task import collect
from multiway.workflows.encoded_once import EncodedOnce

__all__ = ["Fused", "Hidden", "Looks", "Moved", "fused_section", "masked_words", "spread"]

Uri = Callable[[Image.Image], str]
_SIDE = 128  # pixels of a map


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
        retrieval: by the encoders alone, as the task of that name measures it.
        rerank, matching, masked: results; `masked` is None for models that guess no words, and for captions without any
            that could be asked about.
        up, down: queries that re-ranking put right first, and ones that it took from there.
        matched, every: pairs matched by re-ranking, and pairs there are.
        hidden: guesses.
        looks: maps.
    """

    title: str
    retrieval: Result
    rerank: Result
    matching: Result
    masked: Result | None
    up: list[Moved]
    down: list[Moved]
    matched: int
    every: int
    hidden: list[Hidden]
    looks: list[Looks]


def fused_section(once: EncodedOnce, uri: Uri, count: int = 4) -> Fused:
    """Everything about one split; examples are spread evenly, not chosen.

    Args:
        once: a model that has `compare` and `match`, and the split.
        uri: picture to data URI.
        count: examples of each kind.
    """
    source, able = once.source, abilities_of(once.model)
    rerank = once.run(TASKS["rerank"])
    details: RerankDetails = rerank.details
    up, down = _moved(source, details, uri, count)
    masked = masked_words(once)
    assert details.dual is not None
    gallery = details.dual.gallery
    return Fused(
        title=f"{source.name}@{source.split}",
        retrieval=_by_encoders(source, details),
        rerank=rerank,
        matching=once.run(TASKS["matching"]),
        masked=masked,
        up=up,
        down=down,
        matched=details.matched,
        every=len(gallery.rows) * len(gallery.texts),
        hidden=_hidden(source, masked.details, uri, 3 * count) if masked else [],
        looks=_looks(once.model, source, uri, count) if "match_with_maps" in able else [],
    )


def masked_words(once: EncodedOnce) -> Result | None:
    """The task of that name; None where the model guesses no words or the captions hold none to ask about."""
    if "fill_mask" not in abilities_of(once.model):
        return None
    try:
        return once.run(TASKS["masked-words"])
    except DataError:
        return None


def _by_encoders(source: Source, details: RerankDetails) -> Result:
    """What the task `retrieval` would find: re-ranking has ranked by cosine already."""
    task = TASKS["retrieval"]
    assert isinstance(task, Retrieval) and details.dual is not None
    return collect(task, source, task.metrics(details.dual, groups_of(source, details.dual.gallery)), details.dual)


def spread(items: list[int], count: int) -> list[int]:
    """At most `count` of the items, evenly spread."""
    count = min(count, len(items))
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def _moved(source: Source, details: RerankDetails, uri: Uri, count: int) -> tuple[list[Moved], list[Moved]]:
    assert details.dual is not None
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
    return [moved(query) for query in spread(first, count)], [moved(query) for query in spread(lost, count)]


def _hidden(source: Source, guesses: list[Guess], uri: Uri, count: int) -> list[Hidden]:
    blanks = _blanks(guesses)
    shown = []
    # Every n-th guess of each class, so that colours do not crowd out the rest.
    kinds = sorted({guess.kind for guess in guesses})
    for kind in kinds:
        own = [number for number, guess in enumerate(guesses) if guess.kind == kind and blanks[number]]
        for number in spread(own, max(1, count // len(kinds))):
            guess, (start, stop) = guesses[number], blanks[number]
            shown.append(Hidden(uri(source.image(guess.row)), guess.caption[:start], guess.caption[stop:], guess))
    return shown


def _blanks(guesses: list[Guess]) -> list[tuple[int, ...]]:
    """Where in its caption each hidden word stands, (start, stop); () where the tokeniser spells it otherwise.

    A word may occur twice, and inside others: the n-th guess of a word in a row is its n-th occurrence as a whole word.
    """
    seen: Counter[tuple[int, str]] = Counter()
    found: list[tuple[int, ...]] = []
    for guess in guesses:
        places = [
            match.span()
            for match in re.finditer(rf"(?<!\w){re.escape(guess.word)}(?!\w)", guess.caption, re.IGNORECASE)
        ]
        number = seen[guess.row, guess.word]
        seen[guess.row, guess.word] += 1
        found.append(places[number] if number < len(places) else ())
    return found


def _looks(model: Model, source: Source, uri: Uri, count: int) -> list[Looks]:
    known = (
        {word for words in source.word_classes.values() for word in words} if isinstance(source, KnowsWords) else None
    )
    shown = []
    for row in spread(list(range(len(source))), count):
        picture, caption = source.image(row), source.row(row).captions[0]
        maps = explain(model, picture, caption, ["cross-attention", "grad-cam"])
        square = Image.fromarray(draw(picture, model.processor.view, _SIDE))

        def over(kind: str, heat: Tensor, square: Image.Image = square) -> str:
            return uri(Image.fromarray(with_heat(square, drawn_part(kind, heat).numpy())))

        each = zip(maps["cross-attention"].each_word(), maps["grad-cam"].each_word(), strict=True)
        words = [
            (word.text, over("cross-attention", attention), over("grad-cam", cam))
            for (word, attention), (_, cam) in each
            if (word.text in known if known is not None else len(word.text) > 2)
        ]
        odds = maps["grad-cam"].score
        assert odds is not None
        shown.append(Looks(uri(picture), caption, odds, words[:9]))
    return shown
