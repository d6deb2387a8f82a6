"""`multiway embed`: the embedding of every picture and text of a source, on disk.

    OUT/images/000012.npy       (n, D) float16 or float32, unit vectors; opens with `numpy.load(..., mmap_mode="r")`
    OUT/images/000012.parquet   n rows beside it: row, key, image_id, captions, where; scores, the cosine of each caption
    OUT/texts/000012.npy        (m, D)
    OUT/texts/000012.parquet    m rows: row, key, image_id, caption, score

Row i of an array is row i of its table. `format` `parquet` puts the vectors into the tables, as a column of fixed-size lists. A
picture is encoded once, however many captions it has; texts of a part are encoded in order of their length, equal ones once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from multiway.abilities import LacksAbility, require
from multiway.config import to_json
from multiway.data.parquet import require_pyarrow
from multiway.data.source import Source
from multiway.hub.model import Model
from multiway.tasks.embed import checked, encode_texts
from multiway.workflows.blocks import Block
from multiway.workflows.bulk import Asked, Bulk, Say, Totals
from multiway.workflows.bulk_pictures import Drawn, Picture, drawn_parts, pictures_of, pixels_of, skipped_of
from multiway.workflows.bulk_place import Part, Skipped, Writer, npy, table
from multiway.world import World

__all__ = ["STAGE", "Embed", "embed"]

STAGE = "embeddings"
What = Literal["images", "texts", "both"]


@dataclass(frozen=True)
class Embed:
    """What is kept, and how.

    Attributes:
        what: `images`, `texts`, or `both`, which also keeps the cosine of every pair.
        format: where vectors stand: `npy` beside the tables, `parquet` in them.
        dtype: of the vectors on disk; `fp16` rounds unit vectors by at most 0.05 % and takes half the room.
    """

    what: What = "both"
    format: Literal["npy", "parquet"] = "npy"
    dtype: Literal["fp16", "fp32"] = "fp16"


def embed(model: Model, source: Source, how: Embed, asked: Asked, world: World, say: Say = lambda text: None) -> Totals:
    """Encode what is not encoded yet.

    Raises:
        LacksAbility: if the model cannot, or has no embedding.
        DataError: if too many pictures cannot be read, or pyarrow is missing.
        BulkError: if the folder holds another job, or cannot be written.
    """
    sides = ("image", "text") if how.what == "both" else (how.what.removesuffix("s"),)
    require(model, [f"encode_{side}" for side in sides], "embed")
    require_pyarrow("multiway embed")
    with Bulk("embed", model, source, asked, to_json(how), world, say) as job:
        return job.run(
            job.place(STAGE),
            lambda blocks: _parts(model, source, how, asked, blocks),
            "texts" if how.what == "texts" else "pictures",
        )


def _parts(model: Model, source: Source, how: Embed, asked: Asked, blocks: Sequence[Block]) -> Iterator[Part]:
    if how.what == "texts":
        for block in blocks:
            pictures = pictures_of(source, block.rows)
            yield _part(how, block, pictures, None, _texts(model, pictures), [])
        return
    for block, pictures, drawn in drawn_parts(source, blocks, model.processor.view, asked.batch, asked.workers):
        places, vectors, skipped = _pictures(model, pictures, drawn)
        whole = [pictures[place] for place in places]
        said = _texts(model, whole) if how.what == "both" else None
        yield _part(how, block, whole, vectors, said, skipped)


def _pictures(
    model: Model, pictures: Sequence[Picture], drawn: Iterator[Drawn]
) -> tuple[list[int], Tensor, list[Skipped]]:
    """Places of the pictures that could be read, their vectors (n, D), and the others."""
    places: list[int] = []
    vectors: list[Tensor] = []
    skipped: list[Skipped] = []
    for some in drawn:
        skipped += skipped_of(pictures, some)
        if len(some.places):
            vectors.append(
                _vectors(model, model.encode_image(pixels_of(model, some)), len(some.places), "encode_image")
            )
            places += some.places.tolist()
    return places, torch.cat(vectors) if vectors else torch.empty(0, 0), skipped


def _texts(model: Model, pictures: Sequence[Picture]) -> tuple[Tensor, list[int]]:
    """Vectors (m, D) of all captions, picture by picture, and the place of the picture of each."""
    of = [place for place, picture in enumerate(pictures) for _ in picture.captions]
    texts = [caption for picture in pictures for caption in picture.captions]
    if not texts:
        return torch.empty(0, 0), of
    return _vectors(model, encode_texts(model, texts), len(texts), "encode_text"), of


def _vectors(model: Model, encoded: Any, count: int, ability: str) -> Tensor:
    encoded = checked(encoded, count, ability, 0)
    if not encoded.has_embedding:
        raise LacksAbility(
            f"{model.name} has no embedding: it compares by tokens, or only by reading both together, and tokens of millions "
            "of pictures do not fit on a disk; `multiway search RUN` and `multiway eval` work with such a model"
        )
    vectors: Tensor = encoded.embedding
    return vectors


def _part(
    how: Embed,
    block: Block,
    pictures: Sequence[Picture],
    images: Tensor | None,
    said: tuple[Tensor, list[int]] | None,
    skipped: list[Skipped],
) -> Part:
    texts, of = said or (None, [])
    files: dict[str, Writer] = {}
    name, counts = f"{block.number:06d}", {}
    cosines = None
    if images is not None and texts is not None and len(of):
        cosines = (images[torch.tensor(of)] * texts).sum(1).numpy()
    if images is not None and len(images):
        columns = _columns(pictures) | {"captions": [list(each.captions) for each in pictures]}
        if cosines is not None:
            ends = np.cumsum([len(each.captions) for each in pictures])[:-1]
            columns["scores"] = [some.tolist() for some in np.split(cosines, ends)]
        files |= _files("images", name, images, columns, how)
    if texts is not None and len(texts):
        columns = _columns([pictures[place] for place in of])
        columns["caption"] = [caption for each in pictures for caption in each.captions]
        if cosines is not None:
            columns["score"] = cosines
        files |= _files("texts", name, texts, columns, how)
    if images is not None:
        counts["pictures"] = len(images)
    if texts is not None:
        counts["texts"] = len(texts)
    return Part(block.number, len(block.rows), files, counts, skipped)


def _columns(pictures: Sequence[Picture]) -> dict[str, Any]:
    return {
        "row": [each.row for each in pictures],
        "key": [each.key for each in pictures],
        "image_id": [each.image_id for each in pictures],
        "where": [each.where for each in pictures],
    }


def _files(kind: str, name: str, vectors: Tensor, columns: dict[str, Any], how: Embed) -> dict[str, Writer]:
    array = vectors.numpy().astype(np.float16 if how.dtype == "fp16" else np.float32)
    if how.format == "parquet":
        return {f"{kind}/{name}.parquet": table({**columns, "embedding": array})}
    return {f"{kind}/{name}.npy": npy(array), f"{kind}/{name}.parquet": table(columns)}
