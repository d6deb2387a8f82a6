"""What `multiway embed` wrote, read back: vectors with what stands beside them, part by part, in the order of the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multiway.config import digest
from multiway.data.parquet import read_columns, vectors_of
from multiway.engine.manifest import file_record
from multiway.workflows.bulk_embed import STAGE
from multiway.workflows.bulk_folder import BulkError, read_about
from multiway.workflows.bulk_place import Manifest, Place

__all__ = ["EmbeddedPart", "Embeddings"]


@dataclass(frozen=True)
class EmbeddedPart:
    """One part.

    Attributes:
        vectors: (n, D) float16 or float32; mapped from the disk where they lie in an `.npy`.
        table: `pyarrow.Table` of n rows.
    """

    vectors: np.ndarray
    table: Any


@dataclass(frozen=True)
class Embeddings:
    """A finished folder of embeddings.

    Attributes:
        folder: of them.
        identity: model, data and settings that they are of.
        where: how model and data were named.
        manifests: of all parts.
    """

    folder: Path
    identity: dict[str, Any]
    where: dict[str, Any]
    manifests: tuple[Manifest, ...]

    @classmethod
    def open(cls, folder: str | Path) -> Embeddings:
        """Open a folder.

        Raises:
            BulkError: if it holds no embeddings, or not yet all of them.
        """
        folder = Path(folder)
        about = read_about(folder)
        identity = about["identity"]
        if identity.get("verb") != "embed":
            raise BulkError(
                f"{folder} was written by `multiway {identity.get('verb')}`; expected the --out of `multiway embed`"
            )
        place = Place(folder, STAGE, identity)
        found = [place.finished(number) for number in range(identity["data"]["parts"])]
        there = tuple(each for each in found if each is not None)
        if len(there) < len(found):
            raise BulkError(
                f"{folder}: {len(found) - len(there):,} of {len(found):,} parts are missing or damaged; give the same `multiway "
                "embed` again to make them"
            )
        return cls(folder, identity, dict(about.get("where", {})), there)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name these embeddings."""
        return digest(self.identity)

    def count(self, kind: Literal["images", "texts"]) -> int:
        """How many vectors there are of a kind."""
        return sum(each.counts.get("pictures" if kind == "images" else "texts", 0) for each in self.manifests)

    def parts(self, kind: Literal["images", "texts"], verify: bool = False) -> Iterator[EmbeddedPart]:
        """The parts that have vectors of a kind, in order.

        Args:
            verify: hold every file's SHA-256 against its manifest first.

        Raises:
            BulkError: naming the file that is damaged.
        """
        for manifest in self.manifests:
            name = f"{kind}/{manifest.part:06d}"
            if f"{name}.parquet" not in manifest.files:
                continue
            for file in (f"{name}.parquet", f"{name}.npy"):
                if verify and file in manifest.files:
                    self._verify(file, manifest)
            table = read_columns(self.folder / f"{name}.parquet")
            if f"{name}.npy" in manifest.files:
                vectors = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            else:
                vectors, table = vectors_of(table, "embedding"), table.drop_columns(["embedding"])
            yield EmbeddedPart(vectors, table)

    def sample(self, kind: Literal["images", "texts"], count: int) -> np.ndarray | None:
        """(at most count, D) float32 vectors of a kind, spread evenly over all parts; None if there are none."""
        every = self.count(kind)
        wanted = np.linspace(0, every - 1, min(count, every)).astype(np.int64)
        found, start = [], 0
        for part in self.parts(kind) if every else ():
            stop = start + len(part.vectors)
            here = wanted[(wanted >= start) & (wanted < stop)] - start
            found.append(np.asarray(part.vectors[here], np.float32))
            start = stop
        return np.concatenate(found) if found else None

    def _verify(self, file: str, manifest: Manifest) -> None:
        if file_record(self.folder / file).sha256 != manifest.files[file]["sha256"]:
            raise BulkError(
                f"{self.folder / file} has another SHA-256 than when it was written; remove it and give the same "
                "`multiway embed` again"
            )
