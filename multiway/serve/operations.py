"""What the model computes for the API, for several requests in one pass. Every function here runs in the model's thread.

Pictures arrive as squares, (n, side, side, 3) uint8, of each request n of them. What a request gets does not depend on which
others it shares a pass with, beyond rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from multiway.abilities import Encoded, Tokens
from multiway.config import ConfigError
from multiway.data.source import BadRow
from multiway.data.thumbnail import picture_uri
from multiway.data.view import from_squares
from multiway.explain.look import HeatMap
from multiway.hub.model import Model
from multiway.nn.generate import Generation
from multiway.serve.batcher import Operation
from multiway.serve.find import Finder, mixed, rerank
from multiway.serve.index import Hit, IndexFault
from multiway.serve.looking import Looked, Looks, look, looks_of
from multiway.serve.search import PictureIndex
from multiway.tasks.zeroshot import ZeroShotClassifier

__all__ = ["RERANKED", "Labels", "Operations", "Pairs", "Query", "Shown"]

RERANKED = 50
"""Hits that are read together with the words, where that is asked for."""

_ANSWER = 20  # tokens of a written answer, by three beams: as task `vqa-generate` asks


@dataclass(frozen=True)
class Pairs:
    """Pictures and texts of one request."""

    squares: np.ndarray
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """One search; see `schemas.Search`. `square` is (1, side, side, 3) or None."""

    text: str
    square: np.ndarray | None
    weight: float
    top: int
    rerank: bool
    thumbnail: int


@dataclass(frozen=True)
class Labels:
    """Pictures to be sorted into labels, by templates."""

    squares: np.ndarray
    labels: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """Pictures to be described, how, and the prompt of each caption."""

    squares: np.ndarray
    settings: Generation
    prompt: str
    seed: int


class Operations:
    """The operations of one model.

    Args:
        model: that answers.
        gallery: whose pictures are searched; None for no search.
    """

    def __init__(self, model: Model, gallery: Finder | PictureIndex | None) -> None:
        self.model, self.gallery = model, gallery
        self.image_width, self.text_width = self._width("image"), self._width("text")
        self.looks: Looks | None = looks_of(model) if "encode_image" in model.abilities() else None
        self._classifier = lru_cache(maxsize=32)(self._new_classifier)
        self.embed_image = Operation("embed_image", self._embed_image)
        self.embed_text = Operation("embed_text", self._embed_text)
        self.compare = Operation("compare", self._compare)
        self.match = Operation("match", self._match)
        self.search = Operation("search", self._search)
        self.caption = Operation("caption", self._caption)
        self.answer = Operation("answer", self._answer)
        self.classify = Operation("classify", self._classify)
        self.label = Operation("label", self._label)
        # Gradients and hooks of one picture at a time: nothing would be shared.
        self.explain = Operation("explain", self._explain, alone=True)
        self.call = Operation("call", lambda functions: [function() for function in functions], alone=True)

    def _width(self, side: Literal["image", "text"]) -> int:
        """Of the embeddings of pictures or texts: 0 for none. The first pass also makes the first request no slower than others."""
        if f"encode_{side}" not in self.model.abilities():
            return 0
        grey = np.full((1, *(self.model.processor.view.size,) * 2, 3), 127, np.uint8)
        encoded = self._pictures([grey]) if side == "image" else self._texts([["a picture"]])
        return encoded.embedding.shape[1]

    def _pictures(self, squares: Sequence[np.ndarray], tokens: Tokens = False) -> Encoded:
        pixels = torch.from_numpy(np.concatenate(squares))
        return self.model.encode_image(from_squares(pixels, self.model.processor.view), tokens)

    def _texts(self, texts: Sequence[Sequence[str]], tokens: Tokens = False) -> Encoded:
        return self.model.encode_text([text for some in texts for text in some], tokens)

    def _embed_image(self, asked: list[np.ndarray]) -> list[np.ndarray]:
        return [part.numpy() for part in self._pictures(asked).embedding.split([len(squares) for squares in asked])]

    def _embed_text(self, asked: list[tuple[str, ...]]) -> list[np.ndarray]:
        return [part.numpy() for part in self._texts(asked).embedding.split([len(texts) for texts in asked])]

    def _compare(self, asked: list[Pairs]) -> list[Tensor]:
        pictures = self._pictures([each.squares for each in asked])
        texts = self._texts([each.texts for each in asked])
        shown, said = _spans(len(each.squares) for each in asked), _spans(len(each.texts) for each in asked)
        return [
            self.model.compare(pictures.rows(some), texts.rows(others))
            for some, others in zip(shown, said, strict=True)
        ]

    def _match(self, asked: list[Pairs]) -> list[list[float]]:
        pictures = self._pictures([each.squares for each in asked], "only")
        texts = self._texts([each.texts for each in asked], "only")
        shown, said, counts = [], [], []
        spans = zip(_spans(len(each.squares) for each in asked), _spans(len(each.texts) for each in asked), strict=True)
        for some, others in spans:
            count = max(len(some), len(others))
            counts.append(count)
            shown.append(some.expand(count) if len(some) == 1 else some)
            said.append(others.expand(count) if len(others) == 1 else others)
        odds = self.model.match(pictures.rows(torch.cat(shown)), texts.rows(torch.cat(said)))
        return [part.tolist() for part in odds.split(counts)]

    def _search(self, asked: list[Query]) -> list[list[tuple[Hit, str | None]]]:
        gallery = self.gallery
        assert gallery is not None
        top = asked[0].top  # of all, as the key says: an index that approximates looks harder for more
        reach = max(top, RERANKED) if asked[0].rerank else top
        if isinstance(gallery, PictureIndex) and not gallery.pictures.has_embedding:
            found = gallery.search([each.text for each in asked], reach)
        else:
            found = gallery.nearest(self._vectors(asked), reach)
        results = []
        for each, hits in zip(asked, found, strict=True):
            if each.rerank:
                hits = rerank(self.model, each.text, hits, gallery.picture)
            results.append([(hit, self._thumbnail(hit, each.thumbnail)) for hit in hits[:top]])
        return results

    def _vectors(self, asked: Sequence[Query]) -> Tensor:
        """(Q, D) of words, pictures, or both."""
        words = [each.text for each in asked if each.text.strip()]
        squares = [each.square for each in asked if each.square is not None]
        said = iter(self._texts([words]).embedding if words else ())
        shown = iter(self._pictures(squares).embedding if squares else ())
        return torch.stack(
            [
                mixed(
                    next(said) if each.text.strip() else None,
                    next(shown) if each.square is not None else None,
                    each.weight,
                )
                for each in asked
            ]
        )

    def _thumbnail(self, hit: Hit, side: int) -> str | None:
        assert self.gallery is not None
        try:
            return picture_uri(self.gallery.picture(hit), side) if side else None
        except (BadRow, IndexFault):
            return None

    def _caption(self, asked: list[Shown]) -> list[list[list[str]]]:
        pictures = self._pictures([each.squares for each in asked], tokens=True)
        first, counts = asked[0], [len(each.squares) for each in asked]
        prompts = [each.prompt for each in asked for _ in each.squares] if first.prompt else None
        try:
            return _split(self.model.generate(pictures, first.settings, prompts, first.seed), counts)
        except ValueError as error:  # prompts and lengths that do not fit the decoder
            raise ConfigError(str(error)) from error

    def _answer(self, asked: list[Pairs]) -> list[tuple[Tensor, str | None]]:
        pictures = self._pictures([each.squares for each in asked], tokens=True)
        texts = self._texts([each.texts for each in asked], tokens=True)
        written: list[str] | list[None] = [None] * len(asked)
        if "write_answers" in self.model.abilities():
            written = self.model.write_answers(pictures, texts, Generation("beam", max_length=_ANSWER))
        return list(zip(self.model.answer(pictures, texts), written, strict=True))

    def _classify(self, asked: list[np.ndarray]) -> list[Tensor]:
        scores = self.model.classify(self._pictures(asked, tokens=True))
        return list(scores.split([len(squares) for squares in asked]))

    def _label(self, asked: list[Labels]) -> list[Tensor]:
        pictures = self._pictures([each.squares for each in asked])
        classifier = self._classifier(asked[0].labels, asked[0].templates)
        with torch.inference_mode():
            return list(classifier.scores(pictures).split([len(each.squares) for each in asked]))

    def _new_classifier(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> ZeroShotClassifier:
        return ZeroShotClassifier(self.model, labels, templates)

    def _explain(self, asked: list[Looked]) -> list[HeatMap]:
        return [look(self.model, each) for each in asked]


def _spans(counts: Iterable[int]) -> Iterator[Tensor]:
    """Numbers of the rows of each request."""
    start = 0
    for count in counts:
        yield torch.arange(start, start + count)
        start += count


def _split(items: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
    ends = np.cumsum(counts).tolist()
    return [list(items[end - count : end]) for end, count in zip(ends, counts, strict=True)]
