"""Where pictures lie among others: a map of a split's embeddings, and the nearest neighbours of each given picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.abilities import Encoded
from multiway.data.rejected import Rejected, refuse_too_many
from multiway.data.source import BadRow, DataError, Source
from multiway.data.view import draw, on_background
from multiway.explain.embedding_map import EmbeddingMap, Layout, embedding_map
from multiway.hub.model import Model
from multiway.nn.pool import masked_mean
from multiway.tasks.embed import encode_images
from multiway.tasks.knn import nearest
from multiway.workflows.encoded_once import EncodedOnce
from multiway.workflows.explain_figures import Panel, panels, scatter
from multiway.workflows.explain_sections import Drawn, Given, Section
from multiway.workflows.fusion import spread
from multiway.workflows.hover_map import Dot, hover_map
from multiway.workflows.space import measure_space

__all__ = ["map_sections", "spread_rows"]

_BATCH = 64  # pictures that are decoded at a time
_NEIGHBOURS = 7
_THUMB = 96


def spread_rows(source: Source, count: int) -> list[int]:
    """Rows of different pictures, at most `count`, evenly spread over the split."""
    first: dict[int, int] = {}
    for row in range(len(source)):
        first.setdefault(source.row(row).image_id, row)
    return spread(list(first.values()), count)


def map_sections(
    model: Model,
    given: Sequence[Given],
    source: Source,
    rows: int,
    seed: int,
    own: Sequence[int] = (),
    layout: Layout = "auto",
    once: EncodedOnce | None = None,
) -> list[Section]:
    """The map and the neighbours; where texts lie in the same space, how the two do.

    Args:
        model: gives each picture a vector, or tokens.
        given: pictures that are marked, and whose neighbours are looked for.
        source: the split.
        rows: pictures of it that are embedded, at most.
        seed: of the map.
        own: rows of the given pictures, where they are of this split: none is its own neighbour.
        layout: of the map.
        once: what was encoded of the split before, and is taken from there.

    Raises:
        DataError: if there are no rows, or too many of them cannot be read.
        BadEmbedding: if a vector is not finite.
        ConfigError: for a layout that cannot be had.
    """
    where = f"{source.name}@{source.split}"
    if not len(source):
        raise DataError(f"{where} has no rows to map; name another split with --data")
    chosen = spread_rows(source, rows)
    lost: list[Rejected] = []
    held: list[int] = []
    parts: list[Tensor] = []
    small: list[Image.Image] = []
    for some, pictures in _read(source, chosen, lost):
        held += some
        small += [_small(picture) for picture in pictures]
        parts.append(_vectors(model, pictures) if once is None else _vector(once.images(some)))
    refuse_too_many(lost, len(chosen), where)
    bank, queries = (
        torch.cat(parts),
        _vectors(model, [one.picture for one in given]) if once is None or not own else _vector(once.images(own)),
    )
    missing = f" {len(lost)} of {len(chosen)} rows could not be read: {lost[0]}." if lost else ""
    mapped = _Mapped(given, source, held, small, bank, queries, where)
    found = [_map(mapped, seed, layout, missing)]
    texts = _texts(model, source, held, once)
    if texts is not None and len(held) >= 8 and texts.shape == bank.shape:
        found.append(_space(mapped, texts, seed, layout))
    return [*found, _neighbours(model, mapped, [source.row(row).image_id for row in own])]


@dataclass(frozen=True)
class _Mapped:
    """What is laid out: pictures that were asked about, and those of a split.

    Attributes:
        held: rows of the split.
        small: their pictures.
        bank: (N, D) their vectors.
        queries: (n, D) those of the pictures asked about.
        where: what the split is called.
    """

    given: Sequence[Given]
    source: Source
    held: list[int]
    small: list[Image.Image]
    bank: Tensor
    queries: Tensor
    where: str

    def dots(self, places: np.ndarray) -> list[Dot]:
        """Of the pictures asked about, then of the split, at (n + N, 2) places."""
        spots = [(float(x), float(y)) for x, y in places]
        mine = [Dot(spot, "", one.name, one.square, True) for spot, one in zip(spots, self.given, strict=False)]
        rows = zip(spots[len(self.given) :], self.held, self.small, strict=True)
        return mine + [
            Dot(spot, _name(self.source, row), next(iter(self.source.row(row).captions), ""), picture)
            for spot, row, picture in rows
        ]


def _small(picture: Image.Image) -> Image.Image:
    """On white, so small that thousands may be held."""
    small = on_background(picture, 255).copy()
    small.thumbnail((_THUMB, _THUMB))
    return small


def _texts(model: Model, source: Source, held: Sequence[int], once: EncodedOnce | None) -> Tensor | None:
    """(N, D) of each row's first caption; None where there is no space that both share."""
    captions = [next(iter(source.row(row).captions), "") for row in held]
    if not {"encode_text", "compare"} <= set(model.abilities()) or not all(captions):
        return None
    said = model.encode_text(captions) if once is None else once.texts(captions)
    return said.embedding if said.has_embedding else None


@dataclass(frozen=True)
class _Held:
    """Pictures at hand."""

    pictures: Sequence[Image.Image]

    def __len__(self) -> int:
        return len(self.pictures)

    def image(self, index: int) -> Image.Image:
        return self.pictures[index]


def _read(source: Source, rows: Sequence[int], lost: list[Rejected]) -> Iterator[tuple[list[int], list[Image.Image]]]:
    """A batch at a time, the rows that can be read and their pictures."""
    for start in range(0, len(rows), _BATCH):
        good: list[int] = []
        pictures: list[Image.Image] = []
        for row in rows[start : start + _BATCH]:
            try:
                pictures.append(source.image(row))
                good.append(row)
            except BadRow as error:
                lost.append(Rejected(source.row(row).where or source.row(row).key, str(error)))
        if good:
            yield good, pictures


def _vectors(model: Model, pictures: Sequence[Image.Image]) -> Tensor:
    """(n, D) of pictures at hand."""
    return _vector(encode_images(model, _Held(pictures), range(len(pictures)), _BATCH))


def _vector(encoded: Encoded) -> Tensor:
    """(n, D) embeddings; the mean of the last tokens where there are none, as the tasks on frozen features have it."""
    if encoded.has_embedding or encoded.tokens is None:
        return encoded.embedding
    return masked_mean(encoded.tokens.float(), encoded.mask)


def _name(source: Source, row: int) -> str:
    own = source.row(row)
    return source.classes[own.label] if 0 <= own.label < len(source.classes) else own.group


def _map(mapped: _Mapped, seed: int, layout: Layout, missing: str) -> Section:
    laid = embedding_map(torch.cat([mapped.queries, mapped.bank]), seed, layout)
    places, given = laid.places.numpy(), mapped.given
    names = [_name(mapped.source, row) for row in mapped.held]
    marked = [(place, np.asarray(one.square)) for place, one in zip(places, given, strict=False)]
    png = scatter(places[len(given) :], names, marked, laid.kind == "PCA")
    kind = "class" if mapped.source.classes else "kind"
    coloured = f"coloured by {kind}; " if any(names) else ""
    return Section(
        f"Embeddings of {mapped.where}",
        f"{len(mapped.held)} pictures by {_how(laid)}. {coloured.capitalize()}the pictures looked at are drawn large. embedding.png is the same for print.{missing}",
        [Drawn("embedding.png", png, paged=False)],
        {"map": laid.kind, "mapped": len(mapped.held)},
        drawing=hover_map(mapped.dots(places), f"map of {len(mapped.held)} pictures"),
    )


def _how(laid: EmbeddingMap) -> str:
    if laid.kind == "PCA":
        return f"the first two principal components, which hold {laid.kept:.0%} of the variance"
    return f"{laid.kind}: what lies together was near before; distances between groups say nothing"


def _space(mapped: _Mapped, texts: Tensor, seed: int, layout: Layout) -> Section:
    """Pictures and their texts on one map, and how far apart the two kinds are."""
    found = measure_space(mapped.bank, texts, seed)
    laid = embedding_map(torch.cat([mapped.bank, texts]), seed, layout)
    places, count = laid.places.tolist(), len(mapped.held)
    rows = [mapped.source.row(row) for row in mapped.held]
    captions = [next(iter(row.captions), "") for row in rows]
    seen = [
        Dot((x, y), "pictures", caption, picture)
        for (x, y), caption, picture in zip(places[:count], captions, mapped.small, strict=True)
    ]
    read = [Dot((x, y), "texts", caption) for (x, y), caption in zip(places[count:], captions, strict=True)]
    return Section(
        "Pictures and texts in one space",
        f"{count} pairs of {mapped.where} by {_how(laid)}. Pictures and texts often lie in two cones apart (the modality gap, arXiv "
        "2203.02053): pairs are then nearest among others of their kind, not near. Alignment and uniformity (arXiv 2005.10242) are what a "
        "contrastive loss trades off; by chance are two random halves, a plane that tells nothing, pairs that are none, and "
        "directions drawn evenly.",
        [],
        {"space": asdict(found)},
        found.table(),
        hover_map([*seen, *read], f"map of {count} pictures and their texts"),
    )


def _neighbours(model: Model, mapped: _Mapped, own: Sequence[int]) -> Section:
    source, held, queries, bank = mapped.source, mapped.held, mapped.queries, mapped.bank
    cosines, numbers = nearest(queries, bank, min(_NEIGHBOURS + 1, len(bank)))
    rows = []
    listed = []
    for query, one in enumerate(mapped.given):
        mine = own[query] if query < len(own) else None
        found = [
            (held[int(number)], float(cosine))
            for number, cosine in zip(numbers[query], cosines[query], strict=True)
            if mine is None or source.row(held[int(number)]).image_id != mine
        ][:_NEIGHBOURS]
        shown = [
            Panel(
                draw(source.image(row), model.processor.view, _THUMB),
                f"{cosine:.3f}\n{_name(source, row)}".strip(),
                smooth=True,
            )
            for row, cosine in found
        ]
        rows.append([one.panel, *shown])
        listed.append([{"key": source.row(row).key, "cosine": round(cosine, 4)} for row, cosine in found])
    return Section(
        "Nearest neighbours",
        f"The pictures of {mapped.where} nearest to each, of the {len(held)} that were embedded, with their cosine"
        + (f" and {'class' if source.classes else 'kind'}." if any(_name(source, row) for row in held) else "."),
        [Drawn("neighbours.png", panels(rows))],
        {"neighbours": listed},
    )
