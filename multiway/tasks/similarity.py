"""How like everything in a gallery is to everything else, some rows at a time: what rankings are made from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from multiway.abilities import Encoded

__all__ = ["Similarity"]


@dataclass(frozen=True)
class Similarity:
    """Similarities of pictures with texts, asked for in slices so that no (P, T) table is ever held.

    A model compares by whatever it has, a dot product of embeddings or tokens against tokens; nothing here knows which.

    Attributes:
        model: has `compare` (`hub.model.Model`, or a stand-in).
        pictures: P of them, as `encode_image` gave them.
        texts: T of them, as `encode_text` gave them.
        table: (P, T) all similarities, where they are at hand.
    """

    model: Any
    pictures: Encoded
    texts: Encoded
    table: Tensor | None = None

    @classmethod
    def of(cls, model: Any, pictures: Encoded, texts: Encoded) -> Similarity:
        """With token features dropped where the embeddings say it all: slicing rows would copy them."""
        return cls(model, pictures.slim(), texts.slim())

    def held(self, most: int) -> Similarity:
        """The same with its table worked out once for both directions, if that has at most `most` entries and both agree on it.

        They do where embeddings are compared (`Encoded`); by tokens, a picture and a text may measure differently.
        """
        if not self.pictures.has_embedding or math.prod(self.sizes) > most:
            return self
        return replace(self, table=self.of_pictures(slice(0, self.sizes[0])))

    def of_pictures(self, rows: slice) -> Tensor:
        """(rows, T): what some pictures, each looking for its text, make of every text."""
        if self.table is not None:
            return self.table[rows]
        return self.model.compare(self.pictures.rows(_numbers(rows)), self.texts, query="image")  # type: ignore[no-any-return]

    def of_texts(self, rows: slice) -> Tensor:
        """(rows, P): what some texts, each looking for its picture, make of every picture."""
        if self.table is not None:
            return self.table[:, rows].T
        return self.model.compare(self.pictures, self.texts.rows(_numbers(rows)), query="text").T  # type: ignore[no-any-return]

    @property
    def ways(self) -> tuple[Callable[[slice], Tensor], Callable[[slice], Tensor]]:
        """Both directions: pictures as queries, then texts."""
        return self.of_pictures, self.of_texts

    @property
    def sizes(self) -> tuple[int, int]:
        """P and T."""
        return len(self.pictures.embedding), len(self.texts.embedding)


def _numbers(rows: slice) -> Tensor:
    return torch.arange(rows.start, rows.stop)
