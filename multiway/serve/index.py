"""An index of vectors with what stands beside them: the protocol, and which implementation a name means.

    INDEX                        a folder: FAISS, exact, IVF or HNSW (`faiss_index.py`)
    qdrant:URL/COLLECTION        a collection of a Qdrant server (`qdrant_index.py`)
    qdrant:PATH                  the same embedded, in a folder

Vectors are of length 1, and their score is the cosine. Beside each stand a key, which names it, and what a search shows: an entry
of `COLUMNS`. What an index was made of (`about`) is kept in it: without the model that encoded them, vectors say nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from multiway.data.parquet import TYPES, table_of

__all__ = [
    "ABOUT",
    "COLUMNS",
    "QDRANT",
    "Hit",
    "IndexFault",
    "VectorIndex",
    "entries",
    "imported",
    "is_index",
    "open_index",
    "require_entries",
    "with_source",
]

COLUMNS = ("key", "image_id", "captions", "where", "row", "source")
"""Of an entry: `key` (unique), `image_id`, `captions`, `where` it lies (for people), and for pictures to be shown or matched again:
`row` in the source of number `source` (of `about["sources"]`); -1 where there is none."""

ABOUT = "index.json"
QDRANT = "qdrant:"


class IndexFault(ValueError):
    """An index that is none, is damaged, or does not fit what is asked of it."""


@dataclass(frozen=True)
class Hit:
    """One picture that was found.

    Attributes:
        rank: from 1.
        score: similarity with the query, for most models the cosine of embeddings; after re-ranking the log-odds of a match.
        index: row in its source.
        key: of the row.
        caption: the first.
        where: it lies, for people.
        source: number of its source, where an index is of several.
    """

    rank: int
    score: float
    index: int
    key: str
    caption: str
    where: str = ""
    source: int = 0


class VectorIndex(Protocol):
    """Finds the nearest of many vectors.

    Attributes:
        about: what it was made of: `{"model": ..., "run": ..., "sources": [...]}`.
    """

    about: dict[str, Any]

    def __len__(self) -> int:
        """Vectors that can be found."""
        ...

    def add(self, vectors: np.ndarray, entries: Any) -> int:
        """Add vectors (n, D) of length 1 with their entries (see `entries`); a key that is there already is replaced.

        Returns:
            How many were replaced.

        Raises:
            IndexFault: for vectors of another width, not finite or not of length 1, or a key given twice.
        """
        ...

    def delete(self, keys: Sequence[str]) -> int:
        """Take out what these keys name; returns how many there were."""
        ...

    def search(self, queries: np.ndarray, k: int = 10) -> list[list[Hit]]:
        """The k nearest, best first, for each of (Q, D) queries of length 1."""
        ...

    def save(self) -> None:
        """What was changed is there for good from here on."""
        ...


def imported(package: str, what: str, extra: str) -> Any:
    """A package of an extra.

    Raises:
        IndexFault: naming the extra to install.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise IndexFault(f"{what} needs {package}, which is not installed; pip install 'multiway[{extra}]'") from error


def entries(key: Sequence[str], **columns: Sequence[Any]) -> Any:
    """Entries as `VectorIndex.add` takes them: a `pyarrow.Table` of `COLUMNS`.

    Args:
        key: of each.
        **columns: others of `COLUMNS`; what is not given says nothing.
    """
    unknown = set(columns) - set(COLUMNS)
    if unknown:
        raise IndexFault(f"entries have no {', '.join(sorted(unknown))}; they have {', '.join(COLUMNS)}")
    nothing = {"string": "", "list": [], "int64": -1, "int32": -1}
    rest = {name: columns.get(name, [nothing[TYPES[name]]] * len(key)) for name in COLUMNS[1:]}
    return table_of({"key": list(key), **rest})


def with_source(tables: Sequence[Any], source: int) -> Any:
    """Tables of pictures (`multiway embed` writes such) as entries of one source."""
    arrow = imported("pyarrow", "an index", "index")
    whole = arrow.concat_tables([table.select([name for name in COLUMNS if name != "source"]) for table in tables])
    return whole.append_column("source", arrow.array([source] * whole.num_rows, arrow.int32()))


def require_entries(vectors: np.ndarray, table: Any, width: int) -> np.ndarray:
    """The vectors as float32, if they can be added.

    Args:
        vectors: (n, D).
        table: their entries.
        width: of the vectors in the index; 0 where there are none yet.

    Raises:
        IndexFault: see `VectorIndex.add`.
    """
    if vectors.ndim != 2 or len(vectors) != table.num_rows or (width and vectors.shape[1] != width):
        raise IndexFault(
            f"given vectors {tuple(vectors.shape)} and {table.num_rows} entries; expected ({table.num_rows}, {width or 'D'})"
        )
    found = np.ascontiguousarray(vectors, dtype=np.float32)
    length = np.linalg.norm(found, axis=1)
    if not np.isfinite(length).all() or (np.abs(length - 1) > 0.02).any():
        raise IndexFault(
            "vectors have to be finite and of length 1, so that inner products are cosines; normalise them"
        )
    keys = table.column("key").to_pylist()
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise IndexFault(f"key {twice!r} is given twice; keys name vectors, and have to differ")
    return found


def is_index(place: str) -> bool:
    """Whether a name means an index, and not a model."""
    return place.startswith(QDRANT) or (Path(place) / ABOUT).is_file()


def open_index(place: str, write: bool = False) -> VectorIndex:
    """Open an index.

    Args:
        place: see above.
        write: it is to be changed.

    Raises:
        IndexFault: if there is none, it is damaged, or the package that reads it is missing.
    """
    if place.startswith(QDRANT):
        from multiway.serve.qdrant_index import QdrantIndex

        return QdrantIndex.open(place)
    from multiway.serve.faiss_index import FaissIndex

    return FaissIndex.open(Path(place), write)
