"""A score for every row of some data by a trained model: what a curriculum ranks rows by, and what shows which rows are odd.

    contrast     nats; how hard a picture and its caption are to find among others' (InfoNCE both ways, in galleries of chance rows)
    similarity   of the picture and its caption alone, as the model compares them
    match        probability, by a model that reads both together, that they are a pair
    caption      nats a token; how unlikely a caption is to a model that writes

Of several captions of a row the mean counts. The easiest rows have the lowest `contrast` and `caption`, the highest `similarity` and
`match`. Galleries are drawn by the seed: rows that lie side by side in a file are often alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from multiway.abilities import Encoded, abilities_of, require
from multiway.data.draws import permutation
from multiway.data.source import BadRow, DataError, Row, Source
from multiway.hub.model import Model
from multiway.tasks.embed import encode_images, encode_texts

__all__ = ["HIGH_IS_EASY", "NEEDS", "By", "RowScores", "best_kind", "score_rows"]

By = Literal["contrast", "similarity", "match", "caption"]

NEEDS: dict[By, tuple[str, ...]] = {
    "match": ("encode_image", "encode_text", "match"),
    "contrast": ("encode_image", "encode_text", "compare"),
    "caption": ("encode_image", "caption_likelihood"),
    "similarity": ("encode_image", "encode_text", "compare"),
}
HIGH_IS_EASY: frozenset[By] = frozenset({"similarity", "match"})
_TEMPERATURE = 0.07


@dataclass(frozen=True)
class RowScores:
    """What a model makes of every row.

    Attributes:
        keys: of the rows, in order.
        scores: (rows,) float64. A picture that cannot be read is as hard as the hardest that can.
        unreadable: messages about such pictures.
    """

    keys: tuple[str, ...]
    scores: np.ndarray
    unreadable: tuple[str, ...]


def best_kind(model: Model) -> By:
    """What a model is able to tell of rows: the first of `match`, `contrast`, `caption`.

    Raises:
        LacksAbility: if it reads no pictures with texts.
    """
    able = abilities_of(model.method)
    found = next((kind for kind, needs in NEEDS.items() if set(needs) <= set(able)), None)
    if found is None:
        require(model.method, NEEDS["contrast"], "score", ("clip", "siglip", "albef", "blip", "coca"))
        raise AssertionError  # `require` has refused it
    return found


def score_rows(model: Model, source: Source, by: By, gallery: int = 256, seed: int = 0) -> RowScores:
    """Score all rows.

    Args:
        model: trained.
        source: rows of pictures and captions.
        by: what counts; see above.
        gallery: rows that are encoded at once; with `contrast`, and compared.
        seed: of who is in a gallery with whom.

    Raises:
        LacksAbility: if the model cannot tell.
        DataError: if no picture can be read.
    """
    require(model.method, NEEDS[by], f"score --by {by}", ("clip", "siglip", "albef", "blip", "coca"))
    ways: dict[By, Callable[[Model, Source, list[int], list[Row]], list[float]]] = {
        "contrast": _contrast,
        "similarity": _similarity,
        "match": _match,
        "caption": _caption,
    }
    scores = np.full(len(source), np.nan)
    unreadable: list[str] = []
    order = permutation(seed, 0, len(source)).tolist()
    for start in range(0, len(order), gallery):
        rows = [row for row in order[start : start + gallery] if _readable(source, row, unreadable)]
        if rows:
            scores[rows] = ways[by](model, source, rows, [source.row(row) for row in rows])
    if np.isnan(scores).all():
        raise DataError(
            f"no picture of {source.name}@{source.split} can be read, the first: {[*unreadable, 'no rows'][0]}"
        )
    hardest = np.nanmin(scores) if by in HIGH_IS_EASY else np.nanmax(scores)
    keys = tuple(source.row(row).key for row in range(len(source)))
    return RowScores(keys, np.where(np.isnan(scores), hardest, scores), tuple(unreadable))


def _readable(source: Source, row: int, unreadable: list[str]) -> bool:
    try:
        source.image(row)
    except BadRow as error:
        unreadable.append(str(error))
        return False
    return True


def _texts(said: Sequence[Row]) -> tuple[list[str], Tensor]:
    """Captions of all rows, and (T,) which of the rows each belongs to."""
    owners = [place for place, row in enumerate(said) for _ in row.captions]
    return [caption for row in said for caption in row.captions], torch.tensor(owners)


def _means(values: Tensor, owners: Tensor, rows: int) -> list[float]:
    """(T,) values of captions -> the mean of each row's."""
    sums = torch.zeros(rows, dtype=torch.float64).index_add_(0, owners, values.double())
    return (sums / torch.bincount(owners, minlength=rows)).tolist()  # type: ignore[no-any-return]


def _contrast(model: Model, source: Source, rows: list[int], said: list[Row]) -> list[float]:
    texts, owners = _texts(said)
    images, words = encode_images(model, source, rows), encode_texts(model, texts)
    scale = getattr(model.method, "log_scale", None)
    factor = float(scale.detach().exp()) if isinstance(scale, Tensor) and scale.numel() == 1 else 1 / _TEMPERATURE
    # Rows that show the same picture, or carry the same words, are no negatives.
    pictures = torch.tensor([row.image_id for row in said])
    carried = [set(row.captions) for row in said]
    same = pictures[:, None] == pictures[owners][None]
    same |= torch.tensor([[text in mine for text in texts] for mine in carried])
    losses = torch.zeros(len(texts), dtype=torch.float64)
    for query in ("image", "text"):
        scores = factor * model.compare(images, words, query=query).double()  # type: ignore[arg-type]
        own = scores[owners, torch.arange(len(texts))]
        others = scores.masked_fill(same, -torch.inf)
        all_others = torch.logsumexp(others[owners] if query == "image" else others.T, 1)
        losses += 0.5 * (torch.logaddexp(all_others, own) - own)
    return _means(losses, owners, len(rows))


def _similarity(model: Model, source: Source, rows: list[int], said: list[Row]) -> list[float]:
    texts, owners = _texts(said)
    scores = model.compare(encode_images(model, source, rows), encode_texts(model, texts))
    return _means(scores[owners, torch.arange(len(texts))], owners, len(rows))


def _match(model: Model, source: Source, rows: list[int], said: list[Row]) -> list[float]:
    texts, owners = _texts(said)
    images = encode_images(model, source, rows, tokens=True)
    words = encode_texts(model, texts, tokens=True)
    parts = torch.arange(len(texts)).split(256)  # a picture's tokens stand once for all of its captions
    odds = torch.cat([model.match(images.rows(owners[part]), words.rows(part)) for part in parts])
    return _means(odds.double().sigmoid(), owners, len(rows))


def _caption(model: Model, source: Source, rows: list[int], said: list[Row]) -> list[float]:
    texts, owners = _texts(said)
    images = encode_images(model, source, rows, tokens=True)
    return _means(torch.cat([*_nats(model, images, texts, owners)]), owners, len(rows))


def _nats(model: Model, images: Encoded, texts: Sequence[str], owners: Tensor) -> Iterator[Tensor]:
    """Nats a token of each text, some texts at a time."""
    for part in torch.arange(len(texts)).split(256):
        words = model.processor.texts([texts[place] for place in part.tolist()])
        scores = model.caption_likelihood(images.rows(owners[part]), words.ids, words.mask)
        yield -scores.logp.double().sum(1) / (words.mask.sum(1) - 1).clamp(min=1)
