"""Search by words over the pictures of a source: one matrix product, exact, or tokens against tokens.

Pictures are encoded once and the embeddings (the tokens, of a model that compares by those) are kept beside the run, so that a second search answers at once. They are
kept under a name made of everything they depend on: the weights, how pictures are drawn, the arithmetic, the data's
fingerprint, and of pictures that are files their sizes and times.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from multiway.abilities import Encoded, require
from multiway.config import digest
from multiway.data.files import PictureFiles
from multiway.data.join import Joined
from multiway.data.open import ALL, open_source
from multiway.data.remote import RemoteFile
from multiway.data.shard_names import ShardFile
from multiway.data.shards import Shards
from multiway.data.source import BadRow, DataError, Source
from multiway.data.subset import Subset
from multiway.hub.identity import model_identity
from multiway.hub.model import Model
from multiway.serve.find import query_vector
from multiway.serve.index import Hit

__all__ = ["Hit", "PictureIndex"]


class PictureIndex:
    """A source's distinct pictures, encoded.

    Args:
        model: that encodes queries and compares.
        source: whose rows the hits are.
        rows: (N,) int64 row of each picture.
        pictures: N of them: (N, D) unit vectors, or their tokens where the model has no such vectors.

    Raises:
        LacksAbility: if the model cannot compare, and would have to read every picture again for each query.
    """

    def __init__(self, model: Model, source: Source, rows: Tensor, pictures: Encoded) -> None:
        require(model, ("encode_image", "encode_text", "compare"), "search")
        self.model, self.source, self.rows, self.pictures = model, source, rows, pictures

    @classmethod
    def build(cls, model: Model, source: Source | str | Path, cache: Path | None = None) -> PictureIndex:
        """Encode every distinct picture, or take what was encoded from the cache.

        Args:
            source: rows with pictures; or what names them, such as a folder of photos, captioned or not, all of which are taken.
            cache: folder to keep the embeddings in; None keeps nothing.

        Raises:
            LacksAbility: if the model cannot compare pictures with texts.
            DataError: if no picture can be read.
        """
        require(model, ("encode_image", "encode_text", "compare"), "search")
        if isinstance(source, str | Path):
            source = open_source(str(source), default_split=ALL, bare=True)
        file = (
            cache / f"index-{digest(model_identity(model))}-{_fingerprint_of_data(source)}.safetensors"
            if cache
            else None
        )
        kept = _kept(file)
        if kept is not None:
            return cls(model, source, *kept)
        rows, parts = _encode(model, source)
        if not rows:
            raise DataError(
                f"{source.name}@{source.split} has no readable picture to search; `multiway data check` says what ails them"
            )
        index = cls(model, source, torch.tensor(rows), Encoded.cat(parts))
        if file is not None:
            _keep(file, index)
        return index

    def search(self, queries: Sequence[str], top: int = 5) -> list[list[Hit]]:
        """The `top` pictures for each query, best first."""
        return self._best(self.model.compare(self.pictures, self.model.encode_text(queries), query="text").T, top)

    def _best(self, scores: Tensor, top: int) -> list[list[Hit]]:
        """Of (Q, N) scores."""
        best = scores.topk(min(top, len(self.rows)), dim=1)
        return [
            [
                self._hit(rank, float(score), int(place))
                for rank, (score, place) in enumerate(zip(values, places, strict=True), start=1)
            ]
            for values, places in zip(best.values, best.indices, strict=True)
        ]

    def find(self, words: str, picture: Image.Image | None = None, weight: float = 0.5, top: int = 10) -> list[Hit]:
        """The `top` pictures nearest to words, a picture, or both.

        Raises:
            ConfigError: if nothing is asked for, or a picture of a model that has no embedding.
        """
        if picture is None and words.strip():
            return self.search([words], top)[0]
        return self.nearest(query_vector(self.model, words, picture, weight)[None], top)[0]

    def nearest(self, vectors: Tensor, top: int = 10) -> list[list[Hit]]:
        """The `top` pictures nearest to each of (Q, D) vectors of length 1, best first; of a model with an embedding."""
        return self._best(vectors @ self.pictures.embedding.float().T, top)

    def similarities(self, words: str, picture: Image.Image | None = None, weight: float = 0.5) -> Tensor:
        """(N,) of every picture with words, a picture, or both.

        Raises:
            ConfigError: as of `find`.
        """
        if picture is None and words.strip():
            return self.model.compare(self.pictures, self.model.encode_text([words]), query="text")[:, 0]
        return self.pictures.embedding.float() @ query_vector(self.model, words, picture, weight)

    def picture(self, hit: Hit) -> Image.Image:
        """The picture of a hit."""
        return self.source.image(hit.index)

    def __len__(self) -> int:
        """Pictures that can be found."""
        return len(self.rows)

    def _hit(self, rank: int, score: float, place: int) -> Hit:
        row = int(self.rows[place])
        words = self.source.row(row)
        return Hit(rank, score, row, words.key, words.captions[0] if words.captions else "", words.where)


def _kept(file: Path | None) -> tuple[Tensor, Encoded] | None:
    """Rows and pictures of a cache file; None if there is none, or it is damaged and has to be made anew."""
    if file is None or not file.is_file():
        return None
    try:
        kept = load_file(str(file))
        return kept["rows"], Encoded(kept["embeddings"], kept.get("tokens"), kept.get("mask"))
    except (OSError, SafetensorError, KeyError):
        return None


def _keep(file: Path, index: PictureIndex) -> None:
    """Write the cache, aside first. Whoever may read a run but not write it can search it all the same."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        encoded = {"embeddings": index.pictures.embedding, "tokens": index.pictures.tokens, "mask": index.pictures.mask}
        kept = {name: tensor.contiguous() for name, tensor in encoded.items() if tensor is not None}
        save_file({"rows": index.rows, **kept}, str(aside))
        aside.replace(file)
    except (OSError, SafetensorError):
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _encode(model: Model, source: Source) -> tuple[list[int], list[Encoded]]:
    """Rows and encodings of the distinct pictures, decoded a batch at a time; unreadable ones are left out."""
    rows: list[int] = []
    parts: list[Encoded] = []
    seen: set[int] = set()
    pictures = []
    for index in range(len(source)):
        image_id = source.row(index).image_id
        if image_id not in seen:
            seen.add(image_id)
            try:
                pictures.append(source.image(index))
                rows.append(index)
            except BadRow:
                continue
        if len(pictures) == model.batch:
            parts.append(model.encode_image(pictures))
            pictures = []
    if pictures:
        parts.append(model.encode_image(pictures))
    return rows, parts


def _fingerprint_of_data(source: Source) -> str:
    """Sixteen hexadecimal digits that name the rows and, where pictures are files, the state of each."""
    total = hashlib.sha256(source.fingerprint.encode())
    if isinstance(source, Subset):
        total.update(f"{len(source)} of {len(source.source)} ".encode())
    for path in _files(source):
        if isinstance(path, RemoteFile):  # as its storage described it when the source was opened
            total.update(f"{path.size} {path.changed} ".encode())
            continue
        try:
            state = path.stat()
        except OSError:
            total.update(b"gone")
        else:
            total.update(f"{state.st_size} {state.st_mtime_ns} ".encode())
    return total.hexdigest()[:16]


def _files(source: Source) -> Iterator[ShardFile]:
    """The files that a source's pictures are read from; none for data that come with the package."""
    if isinstance(source, Subset):
        yield from _files(source.source)
    elif isinstance(source, Joined):
        for part in source.parts:
            yield from _files(part)
    elif isinstance(source, PictureFiles):
        yield from (source.root / file for file in source.files)
    elif isinstance(source, Shards):
        yield from source.tars
