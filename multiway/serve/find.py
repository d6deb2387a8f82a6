"""From words and a picture to hits: how a query is encoded, how an index is asked, and how what it found is matched again.

Words and picture together are one vector, q = u / |u| with u = w t + (1 - w) v for the unit vectors t and v of text and picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from multiway.abilities import require
from multiway.config import ConfigError, differences
from multiway.data.open import ALL, open_source
from multiway.data.source import BadRow, DataError, Source
from multiway.hub.identity import model_identity
from multiway.hub.model import Model
from multiway.serve.index import Hit, IndexFault, VectorIndex

__all__ = ["Finder", "PictureOf", "mixed", "query_vector", "rerank"]

PictureOf = Callable[[Hit], Image.Image]
"""The picture of a hit; raises BadRow if it cannot be read."""


def query_vector(model: Model, words: str, picture: Image.Image | None, weight: float = 0.5) -> Tensor:
    """(D,) of length 1.

    Args:
        words: may be empty where there is a picture.
        picture: None where there are only words.
        weight: of the words beside the picture, in [0, 1].

    Raises:
        LacksAbility: if the model cannot encode what is given.
        ConfigError: if nothing is given, the weight is none, or the model has no embedding.
    """
    if not words.strip() and picture is None:
        raise ConfigError("the query is empty; say what to look for, or show it: --image PICTURE")
    if not 0.0 <= weight <= 1.0:
        raise ConfigError(f"--weight is {weight}; expected the share of the words, from 0 to 1")
    said = shown = None
    if words.strip():
        require(model, ("encode_text",), "search")
        said = model.encode_text([words])
    if picture is not None:
        require(model, ("encode_image",), "search")
        shown = model.encode_image([picture])
    if not all(each.has_embedding for each in (said, shown) if each is not None):
        raise ConfigError(f"{model.name} has no embedding, so that a picture is no query; ask it by words alone")
    return mixed(None if said is None else said.embedding[0], None if shown is None else shown.embedding[0], weight)


def mixed(words: Tensor | None, picture: Tensor | None, weight: float) -> Tensor:
    """The (D,) query vector of the embeddings of words, a picture, or both; see the head of this file."""
    if words is None or picture is None:
        alone = picture if words is None else words
        assert alone is not None
        sum_ = alone.float()
    else:
        sum_ = weight * words.float() + (1.0 - weight) * picture.float()
    return sum_ / sum_.norm().clamp(min=1e-12)


def rerank(model: Model, words: str, hits: Sequence[Hit], picture_of: PictureOf) -> list[Hit]:
    """The hits in the order in which the fused encoder, reading picture and words together, holds them for a match.

    Li et al., ALBEF, 2021, arXiv 2107.07651, section 4.1. Hits whose picture cannot be read come last, as they were.

    Args:
        hits: best first; all of them are matched.

    Returns:
        The same with new ranks; `score` is the log-odds of a match.

    Raises:
        LacksAbility: if the model does not read both together.
        ConfigError: if there are no words to match.
    """
    require(model, ("encode_image", "encode_text", "match"), "search --rerank", ("albef", "blip", "vilt", "vlmo"))
    if not words.strip():
        raise ConfigError(
            "--rerank matches pictures with words, and there are none; leave it out, or say what to look for"
        )
    pictures, whole, lost = [], [], []
    for hit in hits:
        try:
            pictures.append(picture_of(hit))
            whole.append(hit)
        except BadRow:
            lost.append(hit)
    if not whole:
        return list(hits)
    shown = model.encode_image(pictures, tokens="only")
    said = model.encode_text([words], tokens="only").rows(torch.zeros(len(whole), dtype=torch.int64))
    odds = model.match(shown, said)
    order = odds.argsort(descending=True, stable=True).tolist()
    best = [replace(whole[place], score=float(odds[place])) for place in order]
    return [replace(hit, rank=rank) for rank, hit in enumerate([*best, *lost], 1)]


@dataclass
class Finder:
    """An index with the model that its vectors are of.

    Args:
        index: that is asked.
        model: that encodes queries.

    Raises:
        IndexFault: if the index was made by another model.
    """

    index: VectorIndex
    model: Model
    _sources: dict[int, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made, own = dict(self.index.about.get("model", {})), model_identity(self.model)
        # Arithmetic may differ between those who ask and those who answer; all else decides what a vector means.
        changed = differences({**made, "precision": ""}, {**own, "precision": ""})
        if changed:
            raise IndexFault(
                f"the index was made by another model ({'; '.join(map(str, changed))}); name that one with --model, or embed "
                "the pictures anew"
            )

    def find(self, words: str, picture: Image.Image | None = None, weight: float = 0.5, top: int = 10) -> list[Hit]:
        """The nearest to words, a picture, or both."""
        return self.nearest(query_vector(self.model, words, picture, weight)[None], top)[0]

    def nearest(self, vectors: Tensor, top: int = 10) -> list[list[Hit]]:
        """The `top` pictures nearest to each of (Q, D) vectors of length 1, best first."""
        return self.index.search(vectors.numpy(), top)

    def __len__(self) -> int:
        """Pictures that can be found."""
        return len(self.index)

    def picture(self, hit: Hit) -> Image.Image:
        """The picture of a hit, from the source it was embedded from.

        Raises:
            BadRow: if it cannot be read.
            IndexFault: if the source is not where it was, or not what it was.
        """
        if hit.source not in self._sources:
            self._sources[hit.source] = self._opened(hit.source)
        return self._sources[hit.source].image(hit.index)

    def _opened(self, number: int) -> Source:
        known = self.index.about.get("sources", [])
        if not 0 <= number < len(known):
            raise IndexFault("the index does not say where its pictures lie; they cannot be shown or matched again")
        about = known[number]
        columns = about.get("image_column") or None, about.get("caption_column") or None
        try:
            source = open_source(about["data"], about.get("images", ""), ALL, *columns)
        except DataError as error:
            raise IndexFault(f"the pictures of the index cannot be opened: {error}") from error
        if source.fingerprint != about["fingerprint"]:
            raise IndexFault(f"{about['data']} has been changed since it was embedded; embed it anew")
        return source
