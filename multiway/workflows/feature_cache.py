"""Embeddings kept on disk: a second evaluation of the same weights on the same data encodes nothing.

    multiway eval runs/a --task retrieval --data coco:data/coco@test --cache features/

A folder holds, in plain safetensors, one file of texts for each model and one of pictures for each model and split. The names
say what they are of: digests of the weights, the method's config, preprocessing and precision; and of the split's fingerprint
with the size and time of every file that its pictures lie in, since a fingerprint is of rows and not of pixels. Whatever
differs in any of these is another file, so that nothing old is ever read for something new.

Embeddings alone are kept. Tokens, which fused models read, take N x W numbers a picture and are encoded again each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multiway.abilities import Encoded, Tokens, abilities_of
from multiway.config import digest
from multiway.data.annotated.msrvtt import HasFrames
from multiway.data.source import Source, stable_id
from multiway.hub.identity import model_identity
from multiway.hub.model import Model
from multiway.version import __version__

__all__ = ["CacheError", "FeatureCache"]


class CacheError(ValueError):
    """A folder of features that cannot be read or written."""


class FeatureCache:
    """A model, and the sources that it is measured on, with what was encoded before.

    Use it in a `with` statement: what is new is written at the end, also of an evaluation that was interrupted.

    Args:
        folder: made if need be; several models and data sets share one.
        model: `hub.model.Model`.

    Attributes:
        read, encoded: pictures and texts that were at hand, and that were not.

    Raises:
        CacheError: if a file in the folder is damaged.
    """

    def __init__(self, folder: str | Path, model: Model) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"--cache {folder}: {error.strerror}; name a folder that can be written") from error
        self._model = model
        about = model_identity(model)
        self._key = digest(about | {"version": __version__})
        self._about = {name: about[name] for name in ("method", "weights", "precision")}
        self.texts = _Vectors(self.folder / f"{self._key}-texts.safetensors", self._about)
        self._pictures: dict[str, _Vectors] = {}
        self.read = self.encoded = 0

    def source(self, source: Source) -> Any:
        """The source as tasks are to be given it: its pictures are drawn only where their embedding is not at hand."""
        key = digest([source.fingerprint, *_files(source)])
        if key not in self._pictures:
            about = {**self._about, "data": source.name, "split": source.split, "fingerprint": source.fingerprint}
            self._pictures[key] = _Vectors(self.folder / f"{self._key}-{key}-pictures.safetensors", about)
        return (
            _VideoRows(source, self._pictures[key])
            if isinstance(source, HasFrames)
            else _Rows(source, self._pictures[key])
        )

    @property
    def model(self) -> Any:
        """The model as tasks are to be given it."""
        return _CachedModel(self._model, self)

    def save(self) -> None:
        """Write what is new: aside first, then renamed.

        Raises:
            CacheError: if it cannot be written.
        """
        for vectors in (self.texts, *self._pictures.values()):
            vectors.save()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.save()

    def look_up(self, vectors: _Vectors, keys: Sequence[int], encode: Callable[[Sequence[int]], Encoded]) -> Encoded:
        """Embeddings by key; those that are not at hand come from `encode`, which is given their places.

        A model without an embedding leaves nothing to keep: all of it is encoded.
        """
        new = {key: place for place, key in enumerate(keys) if key not in vectors}
        if new:
            encoded = encode(list(new.values()))
            if not encoded.has_embedding:
                self.encoded += len(keys)
                return encoded if len(new) == len(keys) else encode(range(len(keys)))
            if len(encoded.embedding) != len(new):
                raise ValueError(
                    f"the model was given {len(new)} inputs and returned {len(encoded.embedding)} embeddings"
                )
            vectors.add(list(new), encoded.embedding)
        self.encoded += len(new)
        self.read += len(keys) - len(new)
        return Encoded(vectors.of(keys))


class _Vectors:
    """Unit vectors by a 63-bit number, in one file."""

    def __init__(self, path: Path, about: dict[str, str]) -> None:
        self.path, self.about = path, about
        self._place: dict[int, int] = {}
        self._parts: list[Tensor] = []
        self._changed = False
        if path.exists():
            self._read()

    def __contains__(self, key: int) -> bool:
        return key in self._place

    def of(self, keys: Sequence[int]) -> Tensor:
        """(n, D) float32."""
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]
        return self._parts[0][torch.tensor([self._place[key] for key in keys])]

    def add(self, keys: Sequence[int], vectors: Tensor) -> None:
        """Keep (n, D) vectors under n keys that are not here yet."""
        for key in keys:
            self._place[key] = len(self._place)
        self._parts.append(vectors.float().cpu().clone())
        self._changed = True

    def save(self) -> None:
        if not self._changed:
            return
        tensors = {"key": torch.tensor(list(self._place), dtype=torch.int64), "embedding": torch.cat(self._parts)}
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            save_file(tensors, str(aside), metadata={"about": json.dumps(self.about)})
            aside.replace(self.path)
        except (OSError, SafetensorError) as error:
            raise CacheError(
                f"could not write {self.path}: {error}; free some space or name another --cache"
            ) from error
        finally:
            aside.unlink(missing_ok=True)
        self._changed = False

    def _read(self) -> None:
        try:
            with safe_open(str(self.path), framework="pt") as file:
                keys, vectors = file.get_tensor("key"), file.get_tensor("embedding")
        except (SafetensorError, OSError) as error:
            raise CacheError(f"{self.path} cannot be read ({error}); delete it, and it is made again") from error
        sound = vectors.ndim == 2 and keys.shape == vectors.shape[:1] and keys.dtype == torch.int64
        if not sound or not vectors.isfinite().all() or len(keys.unique()) != len(keys):
            raise CacheError(
                f"{self.path} does not hold a finite vector for each of its keys; delete it, and it is made again"
            )
        self._place = {key: place for place, key in enumerate(keys.tolist())}
        self._parts = [vectors]


class _Ticket(Image.Image):
    """A picture that is not drawn yet: under which key its embedding is kept, and how to draw it."""

    vectors: _Vectors
    key: int
    draw: Callable[[], Image.Image]

    @classmethod
    def of(cls, vectors: _Vectors, key: int, draw: Callable[[], Image.Image]) -> _Ticket:
        ticket = cls()
        ticket.vectors, ticket.key, ticket.draw = vectors, key, draw
        return ticket


class _Rows:
    """A source with tickets for pictures; all else is the source's."""

    def __init__(self, source: Any, vectors: _Vectors) -> None:
        self._source, self._vectors = source, vectors

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_source", "_vectors"):
            raise AttributeError(name)
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def image(self, index: int) -> Image.Image:
        key = int(self._source.row(index).image_id)
        return _Ticket.of(self._vectors, key, lambda: self._source.image(index))


class _VideoRows(_Rows):
    """A source of videos with tickets for frames as well."""

    def frames(self, index: int, count: int) -> list[Image.Image]:
        video, drawn = self._source.row(index).image_id, dict[int, list[Image.Image]]()

        def draw(place: int) -> Image.Image:
            if not drawn:  # all frames at once: a video is opened once
                drawn[0] = self._source.frames(index, count)
            return drawn[0][place]

        return [
            _Ticket.of(self._vectors, stable_id(f"{video} frame {place} of {count}"), lambda place=place: draw(place))  # type: ignore[misc]
            for place in range(count)
        ]


class _CachedModel:
    """The model, which encodes what is not at hand; all else it does by itself."""

    def __init__(self, model: Model, cache: FeatureCache) -> None:
        self._model, self._cache = model, cache

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_model", "_cache"):
            raise AttributeError(name)
        return getattr(self._model, name)

    def abilities(self) -> tuple[str, ...]:
        return abilities_of(self._model)

    def encode_image(self, images: Sequence[Any], tokens: Tokens = False) -> Encoded:
        tickets = [image for image in images if isinstance(image, _Ticket)]

        def encode(places: Iterable[int]) -> Encoded:
            some = (images[place] for place in places)
            return self._model.encode_image(
                [each.draw() if isinstance(each, _Ticket) else each for each in some], tokens
            )

        if tokens or len(tickets) < len(images) or len({id(each.vectors) for each in tickets}) != 1:
            return encode(range(len(images)))
        return self._cache.look_up(tickets[0].vectors, [each.key for each in tickets], encode)

    def encode_text(self, texts: Sequence[str], tokens: Tokens = False) -> Encoded:
        def encode(places: Iterable[int]) -> Encoded:
            return self._model.encode_text([texts[place] for place in places], tokens)

        if tokens or isinstance(texts, str) or not texts:
            return self._model.encode_text(texts, tokens)
        return self._cache.look_up(self._cache.texts, [stable_id(text) for text in texts], encode)


def _files(source: Any) -> Iterator[str]:
    """Size and time of every file that pictures lie in: one that is put in the place of another is another picture."""
    parts = getattr(source, "parts", None) or ([source.source] if hasattr(source, "source") else [])
    for part in parts:
        yield from _files(part)
    paths = [Path(tar) for tar in getattr(source, "tars", ())]
    if hasattr(source, "root") and hasattr(source, "files"):
        clips = getattr(source, "clips", None)
        names = source.files if clips is None else [name for clip in clips for name in clip]
        paths += [Path(source.root) / name for name in names]
    for path in paths:
        try:
            status = path.stat()
        except OSError:  # whoever opens it says what is wrong
            yield f"{path.name} missing"
        else:
            yield f"{path.name} {status.st_size} {status.st_mtime_ns}"
