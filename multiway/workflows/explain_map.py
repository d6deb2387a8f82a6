"""Where pictures lie among others: a map of a split's embeddings, and the nearest neighbours of each given picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multiway.data.rejected import Rejected, refuse_too_many
from multiway.data.source import BadRow, DataError, Source
from multiway.data.view import draw
from multiway.explain.embedding_map import embedding_map
from multiway.hub.model import Model
from multiway.nn.pool import masked_mean
from multiway.tasks.embed import encode_images
from multiway.tasks.knn import nearest
from multiway.workflows.explain_figures import Panel, panels, scatter
from multiway.workflows.explain_sections import Drawn, Given, Section
from multiway.workflows.fusion import spread

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
    model: Model, given: Sequence[Given], source: Source, rows: int, seed: int, own: Sequence[int] = ()
) -> list[Section]:
    """The map and the neighbours.

    Args:
        model: gives each picture a vector, or tokens.
        given: pictures that are marked, and whose neighbours are looked for.
        source: the split.
        rows: pictures of it that are embedded, at most.
        seed: of the map.
        own: rows of the given pictures, where they are of this split: none is its own neighbour.

    Raises:
        DataError: if there are no rows, or too many of them cannot be read.
        BadEmbedding: if a vector is not finite.
    """
    where = f"{source.name}@{source.split}"
    if not len(source):
        raise DataError(f"{where} has no rows to map; name another split with --data")
    chosen = spread_rows(source, rows)
    lost: list[Rejected] = []
    held: list[int] = []
    parts: list[Tensor] = []
    for some, pictures in _read(source, chosen, lost):
        held += some
        parts.append(_vectors(model, pictures))
    refuse_too_many(lost, len(chosen), where)
    bank, queries = torch.cat(parts), _vectors(model, [one.picture for one in given])
    missing = f" {len(lost)} of {len(chosen)} rows could not be read: {lost[0]}." if lost else ""
    return [
        _map(given, source, held, bank, queries, seed, where, missing),
        _neighbours(model, given, source, held, bank, queries, [source.row(row).image_id for row in own], where),
    ]


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
    """(n, D) embeddings; the mean of the last tokens where there are none, as the tasks on frozen features have it."""
    held, every = _Held(pictures), range(len(pictures))
    encoded = encode_images(model, held, every, _BATCH)
    if encoded.has_embedding or encoded.tokens is None:
        return encoded.embedding
    return masked_mean(encoded.tokens.float(), encoded.mask)


def _name(source: Source, row: int) -> str:
    own = source.row(row)
    return source.classes[own.label] if 0 <= own.label < len(source.classes) else own.group


def _map(
    given: Sequence[Given],
    source: Source,
    held: list[int],
    bank: Tensor,
    queries: Tensor,
    seed: int,
    where: str,
    missing: str,
) -> Section:
    laid = embedding_map(torch.cat([queries, bank]), seed)
    places = laid.places.numpy()
    names = [_name(source, row) for row in held]
    marked = [(place, np.asarray(one.square)) for place, one in zip(places, given, strict=False)]
    png = scatter(places[len(given) :], names, marked, laid.kind == "PCA")
    how = "t-SNE: what lies together was near before; distances between groups say nothing"
    if laid.kind == "PCA":
        how = f"the first two principal components, which hold {laid.kept:.0%} of the variance"
    kind = "class" if source.classes else "kind"
    coloured = f"coloured by {kind}; " if any(names) else ""
    return Section(
        f"Embeddings of {where}",
        f"{len(held)} pictures by {how}. {coloured.capitalize()}the pictures looked at are framed and numbered.{missing}",
        [Drawn("embedding.png", png)],
        {"map": laid.kind, "mapped": len(held)},
    )


def _neighbours(
    model: Model, given: Sequence[Given], source: Source, held: list[int], bank: Tensor, queries: Tensor,
    own: Sequence[int], where: str,
) -> Section:  # fmt: skip
    cosines, numbers = nearest(queries, bank, min(_NEIGHBOURS + 1, len(bank)))
    rows = []
    listed = []
    for query, one in enumerate(given):
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
        f"The pictures of {where} nearest to each, of the {len(held)} that were embedded, with their cosine"
        + (f" and {'class' if source.classes else 'kind'}." if any(_name(source, row) for row in held) else "."),
        [Drawn("neighbours.png", panels(rows))],
        {"neighbours": listed},
    )
