"""From a checked request to its answer, a method for each route: what the model is asked, and how its numbers are written down."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from multiway.abilities import LacksAbility
from multiway.config import ConfigError
from multiway.explain.look import HeatMap
from multiway.explain.pairs import CannotShow
from multiway.nn.generate import Generation
from multiway.serve import schemas
from multiway.serve.batcher import Batcher, Operation
from multiway.serve.bounds import rows_of
from multiway.serve.explained import Plan, plan, written
from multiway.serve.limits import Limits
from multiway.serve.looking import Looked
from multiway.serve.operations import RERANKED, Labels, Operations, Pairs, Query, Shown
from multiway.serve.problems import Problem
from multiway.serve.uploads import Squares

__all__ = ["ROUTES", "Answers", "Route", "routes_of"]

_SHORT = 4_000  # characters that are counted in tokens beside other work; more would keep others waiting


@dataclass(frozen=True)
class Route:
    """One of `/v1`.

    Attributes:
        path: after `/v1/`.
        name: of the method of `Answers`.
        body, gives: types of request and answer.
        needs: abilities, all of one of these sets.
        about: for the document.
        index: whether an index is needed.
    """

    path: str
    name: str
    body: type[schemas.Asked]
    gives: type[Any]
    needs: tuple[tuple[str, ...], ...]
    about: str
    index: bool = False


_BOTH = ("encode_image", "encode_text")
ROUTES = (
    Route("embed/image", "embed_image", schemas.EmbedImage, schemas.Embedded, (("encode_image",),), "Embed pictures"),
    Route("embed/text", "embed_text", schemas.EmbedText, schemas.Embedded, (("encode_text",),), "Embed texts"),
    Route("compare", "compare", schemas.Compare, schemas.Compared, ((*_BOTH, "compare"),), "Pictures with texts"),
    Route("search", "search", schemas.Search, schemas.Found, ((*_BOTH, "compare"),), "Find pictures", index=True),
    Route("match", "match", schemas.Match, schemas.Matched, ((*_BOTH, "match"),), "Do they belong together?"),
    Route("caption", "caption", schemas.Caption, schemas.Captioned, (("encode_image", "generate"),), "Describe pictures"),
    Route("answer", "answer", schemas.Ask, schemas.Answered, ((*_BOTH, "answer"),), "Answer a question"),
    Route(
        "classify", "classify", schemas.Classify, schemas.Classified,
        ((*_BOTH, "compare"), ("encode_image", "classify")), "Sort pictures into labels",
    ),
    Route("explain", "explain", schemas.Explain, schemas.Explained, (("encode_image",),), "Show where it looks"),
)  # fmt: skip


def routes_of(operations: Operations) -> list[Route]:
    """Those that a model is able to answer."""
    able = set(operations.model.abilities())
    # What reads pictures and texts together only has no embedding of either.
    without = {"embed/image": not operations.image_width, "embed/text": not operations.text_width}
    without["explain"] = operations.looks is None or not operations.looks.any
    return [
        route
        for route in ROUTES
        if any(able.issuperset(needs) for needs in route.needs)
        and not (route.index and operations.gallery is None)
        and not without.get(route.path)
    ]


class Answers:
    """What is answered to each request.

    Args:
        limits, batcher, operations, squares: of the app.
    """

    def __init__(self, limits: Limits, batcher: Batcher, operations: Operations, squares: Squares) -> None:
        self.limits, self.batcher, self.operations, self.squares = limits, batcher, operations, squares
        self.model = operations.model
        # Cosines where both sides have an embedding, else similarities of tokens.
        self.measure = "cosine" if operations.image_width and operations.text_width else "similarity"

    async def embed_image(self, asked: schemas.EmbedImage, deadline: float) -> dict[str, Any]:
        """(n, D) of n pictures."""
        squares = await self.squares.draw(asked.images)
        return self._embedded(await self._ask("embed_image", squares, len(squares), deadline), asked.encoding)

    async def embed_text(self, asked: schemas.EmbedText, deadline: float) -> dict[str, Any]:
        """(n, D) of n texts."""
        await self._fit("texts", asked.texts, asked.truncate)
        found = await self._ask("embed_text", tuple(asked.texts), len(asked.texts), deadline)
        return self._embedded(found, asked.encoding)

    def _embedded(self, vectors: np.ndarray, encoding: str) -> dict[str, Any]:
        rows: Any = vectors.tolist()
        if encoding == "base64":
            rows = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        return {"model": self.model.name, "width": vectors.shape[1], "embeddings": rows}

    async def compare(self, asked: schemas.Compare, deadline: float) -> dict[str, Any]:
        """Every picture with every text."""
        pairs = await self._pairs(asked)
        found = await self._ask("compare", pairs, len(asked.images) + len(asked.texts), deadline)
        return {"measure": self.measure, "similarities": found.tolist()}

    async def match(self, asked: schemas.Match, deadline: float) -> dict[str, Any]:
        """Pairs read together."""
        counts = {len(asked.images), len(asked.texts)}
        if len(counts) > 1 and 1 not in counts:
            raise Problem(
                "invalid",
                f"{len(asked.images)} pictures and {len(asked.texts)} texts; expected as many, or one of either",
                "send pairs, or one picture with its texts",
            )
        odds = await self._ask("match", await self._pairs(asked), max(counts), deadline)
        return {"log_odds": odds, "probabilities": [1 / (1 + math.exp(-max(-700.0, each))) for each in odds]}

    async def search(self, asked: schemas.Search, deadline: float) -> dict[str, Any]:
        """Hits, best first."""
        words = bool(asked.text.strip())
        bare = not self.operations.image_width or not self.operations.text_width
        if not words and asked.image is None:
            raise Problem("invalid", "the query is empty", "send `text`, `image` or both")
        if asked.image is not None and bare:
            raise Problem("invalid", f"{self.model.name} has no embedding: a picture is no query", "send `text` alone")
        if asked.rerank and not (words and "match" in self.model.abilities()):
            raise Problem("invalid", "`rerank` takes words, and a model that matches", "send `text`, or leave it out")
        if words:
            await self._fit("text", [asked.text], asked.truncate)
        square = None if asked.image is None else await self.squares.draw([asked.image])
        query = Query(asked.text, square, asked.weight, asked.top, asked.rerank, asked.thumbnail)
        rows = 1 if not asked.rerank else max(asked.top, RERANKED)
        found = await self._ask("search", query, rows, deadline, key=(asked.top, asked.rerank))
        gallery = self.operations.gallery
        assert gallery is not None
        hits = [
            {"rank": rank, "score": hit.score, "key": hit.key, "caption": hit.caption, "thumbnail": thumbnail}
            for rank, (hit, thumbnail) in enumerate(found, 1)
        ]
        return {"measure": "log-odds" if asked.rerank else self.measure, "among": len(gallery), "hits": hits}

    async def caption(self, asked: schemas.Caption, deadline: float) -> dict[str, Any]:
        """Texts for each picture."""
        try:
            settings = Generation(
                strategy=asked.strategy, max_length=asked.max_length, min_length=asked.min_length, beams=asked.beams,
                repetition_penalty=asked.repetition_penalty, top_p=asked.top_p, temperature=asked.temperature,
                texts=asked.samples,
            )  # fmt: skip
        except ValueError as error:
            raise Problem("invalid", str(error), "`greedy` writes 1 sample, `beam` at most `beams`") from None
        if asked.prompt:
            await self._fit("prompt", [asked.prompt], asked.truncate)
        squares = await self.squares.draw(asked.images)
        shown = Shown(squares, settings, asked.prompt, asked.seed)
        # What is drawn depends on the rows before it, so that requests that draw share nothing.
        key = (settings, bool(asked.prompt), object() if asked.strategy == "nucleus" else None)
        captions = await self._ask("caption", shown, len(squares) * asked.samples, deadline, key)
        return {"captions": captions}

    async def answer(self, asked: schemas.Ask, deadline: float) -> dict[str, Any]:
        """The best of the model's list."""
        await self._fit("question", [asked.question], asked.truncate)
        pair = Pairs(await self.squares.draw([asked.image]), (asked.question,))
        scores, written = await self._ask("answer", pair, 1, deadline)
        best = scores.topk(min(asked.top, len(scores)))
        answers = [
            {"answer": self.model.answers[place], "score": score}
            for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        measure = "score" if written is None else "log-probability"
        return {"measure": measure, "among": len(scores), "answers": answers, "written": written}

    async def classify(self, asked: schemas.Classify, deadline: float) -> dict[str, Any]:
        """Into labels that are given, or into the classes that the model was tuned for."""
        able = set(self.model.abilities())
        free, tuned = able.issuperset({"encode_text", "compare"}), "classify" in able
        if not asked.labels and not tuned:
            raise Problem("invalid", "no labels are given, and the model has none of its own", "send `labels`")
        if asked.labels and not free:
            raise Problem("invalid", f"{self.model.name} reads no labels", "leave `labels` out: it knows its classes")
        if asked.labels:
            self._sentences(asked)
            await self._fit("labels", [_fill(asked.templates[0], label) for label in asked.labels], asked.truncate)
        squares = await self.squares.draw(asked.images)
        if not asked.labels:
            scores = await self._ask("classify", squares, len(squares), deadline)
            return self._sorted(scores, self.model.classes, asked.top, "logit", scores.softmax(1))
        labels, templates = tuple(asked.labels), tuple(asked.templates)
        payload = Labels(squares, labels, templates)
        scores = await self._ask("label", payload, len(squares), deadline, (labels, templates))
        return self._sorted(scores, labels, asked.top, self.measure)

    def _sentences(self, asked: schemas.Classify) -> None:
        for template in asked.templates:
            if template.count("{}") != 1:
                raise Problem("invalid", f"the template {template[:80]!r} has not one {{}}", "write {} once in each")
        count = len(asked.labels) * len(asked.templates)
        if count > self.limits.labels:
            raise Problem(
                "invalid",
                f"{len(asked.labels)} labels in {len(asked.templates)} templates are {count:,} sentences; at most "
                f"{self.limits.labels:,} are read",
                "send fewer of either",
            )

    def _sorted(
        self, scores: Tensor, labels: Sequence[str], top: int, measure: str, shares: Tensor | None = None
    ) -> dict[str, Any]:
        best = scores.topk(min(top, len(labels)), dim=1)
        rows = []
        for number, (values, places) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            probable = [None] * len(places) if shares is None else shares[number][places].tolist()
            rows.append(
                [
                    {"label": labels[place], "score": score, "probability": share}
                    for score, place, share in zip(values, places, probable, strict=True)
                ]
            )
        return {"measure": measure, "labels": rows}

    def rows(self, asked: schemas.Asked) -> int:
        """How much work a request is, in rows; for maps in passes.

        Raises:
            Problem: for maps that are too much, or that there are not.
        """
        if isinstance(asked, schemas.Explain):
            return max(1, sum(self._plan(asked).passes.values()))
        return rows_of(asked)

    def _plan(self, asked: schemas.Explain) -> Plan:
        looks, processor = self.operations.looks, self.model.processor
        assert looks is not None
        return plan(asked, self.model.name, looks, processor.view.size, processor.tokenizer, self.limits)

    async def explain(self, asked: schemas.Explain, deadline: float) -> dict[str, Any]:
        """Maps over the picture. Each kind waits for the model by itself, so that others come between, and what is late is not begun."""
        if asked.text.strip():
            await self._fit("text", [asked.text], asked.truncate)
        await self._fit("against", asked.against, asked.truncate)
        found = self._plan(asked)
        square = (await self.squares.draw([asked.image]))[0]
        maps, absent = {}, dict(found.absent)
        for kind in found.kinds:
            payload = Looked(square, asked.text, kind, found.look)
            try:
                own: HeatMap = await self._ask("explain", payload, found.passes[kind], deadline)
            except CannotShow as error:  # layers may be asked for of which a kind says nothing
                if asked.kinds:
                    raise Problem("invalid", str(error), "ask for what /v1/model says that it does") from None
                absent[kind] = str(error)
                continue
            maps[kind] = await written(asked, own, square)
        return {"text": asked.text, "maps": maps, "absent": absent}

    async def _pairs(self, asked: schemas.Compare | schemas.Match) -> Pairs:
        await self._fit("texts", asked.texts, asked.truncate)
        return Pairs(await self.squares.draw(asked.images), tuple(asked.texts))

    async def _ask(self, name: str, payload: Any, rows: int, deadline: float, key: Hashable = None) -> Any:
        operation: Operation = getattr(self.operations, name)
        try:
            return await self.batcher.ask(operation, payload, rows, deadline, key)
        except (ConfigError, LacksAbility) as error:
            # The model's own refusals of settings: more tokens than it has positions for, nothing to show.
            raise Problem("invalid", str(error), "ask for what /v1/model says that it does") from None

    async def _fit(self, name: str, texts: Sequence[str], truncate: bool) -> None:
        """Refuse texts that would be cut."""
        tokenizer = self.model.processor.tokenizer
        if truncate or tokenizer is None:
            return
        count: Callable[[Sequence[str]], list[int]] = tokenizer.lengths
        total = sum(map(len, texts))
        lengths = count(texts) if total < _SHORT else await asyncio.to_thread(count, texts)
        errors = [
            {"at": name if len(texts) == 1 else f"{name}.{number}", "detail": f"{length} tokens"}
            for number, length in enumerate(lengths)
            if length > tokenizer.context
        ]
        if errors:
            raise Problem(
                "text-too-long",
                f"{errors[0]['at']} has {errors[0]['detail']}; the model reads {tokenizer.context}, its own included",
                "shorten it, or send `truncate: true` to have the end cut off",
                errors[:20],
            )


def _fill(template: str, label: str) -> str:
    return template.replace("{}", label)
