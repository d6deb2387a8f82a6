"""Several tasks on one split with each picture and each text encoded once.

A task encodes what it needs by itself, which is right on the command line; a report runs five tasks on the same split, and
four of them would draw and encode the same pictures again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from PIL import Image

from multiway.abilities import Encoded, Tokens, abilities_of
from multiway.data.source import KnowsWords, Row, Source
from multiway.tasks import Result, Task
from multiway.tasks.embed import encode_images
from multiway.tasks.frozen import LearnsFirst

__all__ = ["EncodedOnce"]


class EncodedOnce:
    """A model and a split; the tasks that are run here share what was encoded.

    Rows that share an `image_id` show the same picture, which is encoded for the first of them. Memory: N x W numbers of
    token features a picture where the model is fused, as re-ranking holds anyway, and D where it is not.

    Attributes:
        model: has `encode_image` and `encode_text` as `hub.model.Model` has them.
        source: the split, with its pictures.
    """

    def __init__(self, model: Any, source: Source) -> None:
        self.model = model
        self.source = source
        self._rows = _Rows(source)
        self._memory = _Remembering(model)

    def run(self, task: Task) -> Result:
        """What `task.run(model, source)` gives."""
        return task.run(self._memory, self._rows)

    def taught(self, task: LearnsFirst, train: Source) -> Task:
        """`task.taught(train)`, to be run here: what it learns from is encoded once too, for all such tasks."""
        return task.taught(_Rows(train))

    def images(self, rows: Sequence[int]) -> Encoded:
        """Rows of the split, encoded now or before."""
        return encode_images(self._memory, self._rows, rows)

    def texts(self, texts: Sequence[str]) -> Encoded:
        """Texts, encoded now or before."""
        return self._memory.encode_text(texts)

    def beside(self, source: Source) -> EncodedOnce:
        """Another split, with the memory of this one: a training split is encoded once for all that are measured."""
        other = EncodedOnce(self.model, source)
        other._memory = self._memory
        return other


class _Rows:
    """The split, with tickets in place of its pictures: nothing is decoded that was encoded before."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name, self.split, self.fingerprint = source.name, source.split, source.fingerprint
        self.classes, self.templates = source.classes, source.templates
        if isinstance(source, KnowsWords):
            self.word_classes = source.word_classes
        self._known: dict[int, Row] = {}

    def __len__(self) -> int:
        return len(self.source)

    def row(self, index: int) -> Row:
        # A procedural world writes its captions anew each time.
        if index not in self._known:
            self._known[index] = self.source.row(index)
        return self._known[index]

    def image(self, index: int) -> Image.Image:
        """A picture without pixels that says whose place it holds; whoever looked at it would fail at once."""
        ticket = Image.Image()
        ticket.info["row"], ticket.info["of"] = index, self
        return ticket


class _Remembering:
    """The model, which knows tickets and remembers; all else it does by itself."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._fused = {"match", "fill_mask"} & set(abilities_of(model))
        self._pictures: dict[Hashable, Encoded] = {}
        self._texts: dict[Hashable, Encoded] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def abilities(self) -> tuple[str, ...]:
        return abilities_of(self._model)

    def encode_image(self, tickets: Sequence[Image.Image], tokens: Tokens = False) -> Encoded:
        held: list[tuple[_Rows, int]] = [(ticket.info["of"], int(ticket.info["row"])) for ticket in tickets]
        ids = [rows.row(number).image_id for rows, number in held]
        new = {name: place for name, place in zip(ids, held, strict=True) if name not in self._pictures}
        if new:
            pictures = [rows.source.image(number) for rows, number in new.values()]
            self._keep(self._pictures, list(new), self._encode(self._model.encode_image, pictures))
        return _joined([self._pictures[name] for name in ids], tokens)

    def encode_text(self, texts: Sequence[str], tokens: Tokens = False) -> Encoded:
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            self._keep(self._texts, new, self._encode(self._model.encode_text, new))
        return _joined([self._texts[text] for text in texts], tokens)

    def _encode(self, encode: Any, items: list[Any]) -> Encoded:
        encoded: Encoded = encode(items, tokens=True) if self._fused else encode(items)
        return encoded

    @staticmethod
    def _keep(memory: dict[Hashable, Encoded], names: Sequence[Hashable], encoded: Encoded) -> None:
        if len(encoded.embedding) != len(names):
            raise ValueError(
                f"the model was given {len(names)} inputs and returned {len(encoded.embedding)} embeddings; expected one each"
            )
        for place, name in enumerate(names):
            memory[name] = encoded.rows(torch.tensor([place]))


def _joined(parts: list[Encoded], tokens: Tokens) -> Encoded:
    return Encoded.cat(parts if tokens else [part.slim() for part in parts])
