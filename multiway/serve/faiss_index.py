"""An index in a folder, by FAISS (Douze et al., 2024, arXiv 2401.08281).

    INDEX/index.json                 format, kind, settings, what it was made of, its files with size and SHA-256
    INDEX/vectors-000001.faiss       the structure with the vectors, float32
    INDEX/entries-000001.parquet     what stands beside vector i, in row i
    INDEX/dead-000001.npy            which of them were deleted

- `exact`: every vector is compared with; no error, time in proportion to their number.
- `ivf`: vectors in `nlist` cells about centroids (k-means); a query looks into the `nprobe` nearest. Small, quick to build.
- `hnsw`: a graph of near neighbours (Malkov and Yashunin, 2016, arXiv 1603.09320), walked with `ef` candidates. Quickest to search,
  slow to build, and the graph takes room beside the vectors.

Deleted vectors are passed over in a search; when a quarter of all are, the structure is made anew without them. A change writes new
files, and `index.json`, renamed last, says which are meant: whoever reads at the time sees the index as it was or as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multiway.config import digest, to_json
from multiway.data.parquet import read_columns, write_table
from multiway.engine.manifest import file_record, write_json
from multiway.serve.index import ABOUT, Hit, IndexFault, imported, require_entries

__all__ = ["FaissIndex", "How", "Kind"]

FORMAT = 1
Kind = Literal["exact", "ivf", "hnsw"]

_SPARSE = 0.25  # share of deleted vectors above which the rest is put together anew
_PER_CELL = 39  # vectors below which FAISS holds a centroid for badly placed


@dataclass(frozen=True)
class How:
    """Which structure, and how hard it looks.

    Attributes:
        kind: of the structure.
        nlist: of `ivf`: cells; 0 is 4 sqrt(n), at most n / 39.
        nprobe: of `ivf`: cells that a query looks into.
        links: of `hnsw`: neighbours that each vector is tied to (M).
        build_ef: of `hnsw`: candidates while it is built (efConstruction).
        ef: of `hnsw`: candidates of a query (efSearch).
    """

    kind: Kind = "exact"
    nlist: int = 0
    nprobe: int = 8
    links: int = 32
    build_ef: int = 100
    ef: int = 64

    @property
    def effort(self) -> int:
        """What more of costs time and finds more; 0 where nothing is left to chance."""
        return {"exact": 0, "ivf": self.nprobe, "hnsw": self.ef}[self.kind]

    def with_effort(self, effort: int) -> How:
        """The same, looking harder or less so."""
        if self.kind == "ivf":
            return replace(self, nprobe=effort)
        return replace(self, ef=effort) if self.kind == "hnsw" else self


@dataclass
class FaissIndex:
    """See `index.VectorIndex`; in memory until `save`.

    Attributes:
        folder: that it is kept in.
        how: structure and effort.
        about: what it was made of.
        structure: FAISS's; None before the first vector.
        table: an entry for every vector ever added, in the structure's order.
        dead: (n,) bool, which were deleted.
        generation: of the files; 0 before the first.
    """

    folder: Path
    how: How = How()
    about: dict[str, Any] = field(default_factory=dict)
    structure: Any = None
    table: Any = None
    dead: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    generation: int = 0

    def __post_init__(self) -> None:
        self._faiss = imported("faiss", f"an index of kind {self.how.kind}", "index")

    @classmethod
    def open(cls, folder: Path, write: bool = False, verify: bool = False) -> FaissIndex:
        """Open a folder. To look only, vectors are mapped from the disk.

        Args:
            write: it is to be changed.
            verify: hold every file's SHA-256 against `index.json`.

        Raises:
            IndexFault: if it is none, or a file is missing or damaged.
        """
        try:
            return cls._opened(folder, write, verify)
        except FileNotFoundError:  # replaced between reading `index.json` and its files
            try:
                return cls._opened(folder, write, verify)
            except FileNotFoundError as error:
                raise IndexFault(f"{error.filename} is missing; build the index again") from error

    @classmethod
    def _opened(cls, folder: Path, write: bool, verify: bool) -> FaissIndex:
        body = _read(folder / ABOUT)
        faiss = imported("faiss", f"{folder}", "index")
        for name, record in body["files"].items():
            path = folder / name
            if path.stat().st_size != record["bytes"] or (verify and file_record(path).sha256 != record["sha256"]):
                raise IndexFault(f"{path} is not the file that was written; build the index again")
        files = {name.partition("-")[0]: folder / name for name in body["files"]}
        mapped = 0 if write else getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
        try:
            structure = faiss.read_index(str(files["vectors"]), mapped)
        except RuntimeError as error:
            raise IndexFault(f"{files['vectors']} cannot be read ({error}); build the index again") from error
        table, dead = read_columns(files["entries"]), np.load(files["dead"], allow_pickle=False)
        if not structure.ntotal == table.num_rows == len(dead):
            raise IndexFault(f"{folder}: {structure.ntotal} vectors, {table.num_rows} entries; build the index again")
        return cls(folder, How(**body["how"]), body["about"], structure, table, dead, body["generation"])

    def __len__(self) -> int:
        return int((~self.dead).sum())

    @property
    def width(self) -> int:
        """Of the vectors; 0 while there are none."""
        return 0 if self.structure is None else int(self.structure.d)

    def add(self, vectors: np.ndarray, entries: Any) -> int:
        """See `VectorIndex.add`. The first vectors place IVF's centroids, so that they should be many, and like the others."""
        vectors = require_entries(vectors, entries, self.width)
        if not len(vectors):
            return 0
        replaced = self.delete(entries.column("key").to_pylist()) if self.table is not None else 0
        if self.structure is None:  # also when all that was there has been replaced
            self.how, self.structure = self._empty(vectors)
            self.table, self.dead = entries.slice(0, 0), np.zeros(0, bool)
        self.structure.add(vectors)
        arrow = imported("pyarrow", "an index", "index")
        self.table = arrow.concat_tables([self.table, entries.select(self.table.column_names)]).combine_chunks()
        self.dead = np.concatenate([self.dead, np.zeros(len(vectors), bool)])
        return replaced

    def delete(self, keys: Sequence[str]) -> int:
        """See `VectorIndex.delete`."""
        if self.table is None:
            return 0
        arrow, compute = imported("pyarrow", "an index", "index"), imported("pyarrow.compute", "an index", "index")
        named = compute.is_in(self.table.column("key"), value_set=arrow.array(list(keys), arrow.string()))
        gone = np.asarray(named) & ~self.dead
        self.dead = self.dead | gone
        if gone.any() and self.dead.mean() > _SPARSE:
            self._compact()
        return int(gone.sum())

    def search(self, queries: np.ndarray, k: int = 10) -> list[list[Hit]]:
        """See `VectorIndex.search`."""
        scores, places = self.nearest(queries, k)
        wanted = np.unique(places[places >= 0])
        found = dict(zip(wanted.tolist(), self.table.take(wanted).to_pylist(), strict=True)) if len(wanted) else {}
        return [
            [
                _hit(rank, float(score), found[place])
                for rank, (score, place) in enumerate(zip(line, at, strict=True), 1)
                if place >= 0
            ]
            for line, at in zip(scores.tolist(), places.tolist(), strict=True)
        ]

    def nearest(self, queries: np.ndarray, k: int, how: How | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(Q, k) cosines and places, best first; place -1 where fewer were found.

        Args:
            how: to look harder or less so than the index itself does.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if self.structure is None or not len(self):
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise IndexFault(
                f"queries are {tuple(queries.shape)}; expected (Q, {self.width}), as the vectors of the index"
            )
        how = how or self.how
        more: dict[str, Any] = {}
        if self.dead.any():
            more["sel"] = self._faiss.IDSelectorBitmap(np.packbits(~self.dead, bitorder="little"))
        k = min(k, len(self))
        if how.kind == "exact":
            settings = self._faiss.SearchParameters(**more)
        elif how.kind == "ivf":
            settings = self._faiss.SearchParametersIVF(nprobe=min(how.nprobe, self.structure.nlist), **more)
        else:
            settings = self._faiss.SearchParametersHNSW(efSearch=max(how.ef, k), **more)
        scores, places = self.structure.search(queries, k, params=settings)
        return scores, places

    def live(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (n,) and vectors (n, D) of what can be found."""
        places = np.flatnonzero(~self.dead)
        if self.structure is None:
            return places, np.zeros((0, 0), np.float32)
        if self.how.kind == "ivf":
            self.structure.make_direct_map()  # places to cells; not kept, since adding would have to keep it up
        vectors = self.structure.reconstruct_n(0, self.structure.ntotal)
        if self.how.kind == "ivf":
            self.structure.set_direct_map_type(self._faiss.DirectMap.NoMap)
        return places, vectors[places]

    def save(self) -> None:
        """See `VectorIndex.save`.

        Raises:
            OSError: if it cannot be written; the index is then as it was.
        """
        if self.structure is None:
            raise IndexFault("there are no vectors to keep; add some first")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.generation += 1
        names = {kind: f"{kind}-{self.generation:06d}.{end}" for kind, end in _ENDS.items()}
        asides = {kind: self.folder / f".{name}" for kind, name in names.items()}
        self._faiss.write_index(self.structure, str(asides["vectors"]))
        write_table(asides["entries"], self.table)
        with asides["dead"].open("wb") as file:
            np.save(file, self.dead, allow_pickle=False)
        files = {names[kind]: asdict(file_record(path)) for kind, path in asides.items()}
        for kind, path in asides.items():
            path.replace(self.folder / names[kind])
        body = {
            "format": FORMAT,
            "generation": self.generation,
            "how": to_json(self.how),
            "about": self.about,
            "files": files,
        }
        write_json(self.folder / f".{ABOUT}", {**body, "digest": digest(body)})
        (self.folder / f".{ABOUT}").replace(self.folder / ABOUT)
        for kind in _ENDS:
            for old in (*self.folder.glob(f"{kind}-*"), *self.folder.glob(f".{kind}-*")):
                if old.name not in files:
                    old.unlink(missing_ok=True)

    def _empty(self, vectors: np.ndarray) -> tuple[How, Any]:
        """A structure for vectors like these, and how it came out."""
        width, inner = vectors.shape[1], self._faiss.METRIC_INNER_PRODUCT
        if self.how.kind == "exact":
            return self.how, self._faiss.IndexFlatIP(width)
        if self.how.kind == "hnsw":
            graph = self._faiss.IndexHNSWFlat(width, self.how.links, inner)
            graph.hnsw.efConstruction = self.how.build_ef
            return self.how, graph
        most = max(1, len(vectors) // _PER_CELL)
        nlist = min(self.how.nlist or round(4 * len(vectors) ** 0.5), most)
        cells = self._faiss.IndexIVFFlat(self._faiss.IndexFlatIP(width), width, nlist, inner)
        cells.cp.spherical, cells.cp.seed = True, 1
        # A quarter of FAISS's sample and fewer rounds: placing the centroids is most of the time, and little of the recall.
        cells.cp.max_points_per_centroid, cells.cp.niter = 64, 10
        cells.train(vectors)
        return replace(self.how, nlist=nlist), cells

    def _compact(self) -> None:
        """Put together what is left without what was deleted."""
        places, vectors = self.live()
        self.table, self.dead = self.table.take(places), np.zeros(len(places), bool)
        self.structure = None
        if len(vectors):
            self.how, self.structure = self._empty(vectors)
            self.structure.add(vectors)
        else:
            self.table = None


_ENDS = {"vectors": "faiss", "entries": "parquet", "dead": "npy"}


def _read(path: Path) -> dict[str, Any]:
    """`index.json`, if it is whole and of this format."""
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise IndexFault(f"{path.parent} has no {ABOUT}; expected the --out of `multiway index`") from None
    except (OSError, ValueError) as error:
        raise IndexFault(f"{path} cannot be read ({error}); build the index again") from error
    if not isinstance(body, dict) or body.pop("digest", None) != digest(body):
        raise IndexFault(f"{path} does not agree with its own digest; build the index again")
    if body.get("format") != FORMAT:
        raise IndexFault(
            f"{path} has format {body.get('format')!r}; this version reads format {FORMAT}: build it again"
        )
    if any(name != Path(name).name for name in body["files"]):
        raise IndexFault(f"{path} names files that do not lie beside it; build the index again")
    return body


def _hit(rank: int, score: float, entry: dict[str, Any]) -> Hit:
    said = entry["captions"] or [""]
    return Hit(rank, score, entry["row"], entry["key"], said[0], entry["where"], entry["source"])
