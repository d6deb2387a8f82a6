"""`multiway index EMBEDDINGS --out INDEX`, `multiway index INDEX --add EMBEDDINGS`, `multiway index INDEX --delete KEYS ...`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from multiway.cli.output import print_json
from multiway.config import ConfigError, differences
from multiway.engine.lock import RunLock
from multiway.serve.faiss_index import FaissIndex, How
from multiway.serve.index import QDRANT, VectorIndex, is_index, with_source
from multiway.serve.qdrant_index import QdrantIndex
from multiway.serve.recall import Recall, held_out, measured, tuned
from multiway.workflows.embeddings import Embeddings

__all__ = ["Command", "run"]


@dataclass(frozen=True)
class Command:
    """Build an index of embeddings that is searched by words and pictures, or change one.

    Attributes:
        place: what `multiway embed` wrote, to build an index of; or an index, to change it or say what it is.
        out: folder of the new index, `qdrant:URL/COLLECTION` or `qdrant:PATH`.
        kind: `exact` compares with every vector; `ivf` and `hnsw` are quicker and miss some.
        nlist: of `ivf`: cells; 0 is 4 sqrt(n).
        nprobe: of `ivf`: cells that a query looks into; 0 is as many as `--recall` takes.
        links: of `hnsw`: neighbours that each vector is tied to.
        build_ef: of `hnsw`: candidates while it is built.
        ef: of `hnsw`: candidates of a query; 0 is as many as `--recall` takes.
        recall: of the ten nearest, that is wanted on held-out queries.
        add: embeddings to add to an index, by the same model; a picture that is there already is replaced.
        delete: keys of pictures to take out.
        check: hold the index's files against their SHA-256.
        json: print one JSON object instead of a sentence.
    """

    place: Annotated[str, tyro.conf.Positional]
    out: str = ""
    kind: Literal["exact", "ivf", "hnsw"] = "exact"
    nlist: int = 0
    nprobe: int = 0
    links: int = 32
    build_ef: int = 100
    ef: int = 0
    recall: float = 0.95
    add: str = ""
    delete: tuple[str, ...] = ()
    check: bool = False
    json: bool = False


def run(args: list[str]) -> int:
    """Build or change, and say what came of it."""
    asked = tyro.cli(Command, args=args, prog="multiway index")
    if (
        min(asked.nlist, asked.nprobe, asked.ef) < 0
        or min(asked.links, asked.build_ef) < 1
        or not 0 < asked.recall <= 1
    ):
        raise ConfigError(
            "--nlist, --nprobe and --ef count from 0, --links and --build-ef from 1, and --recall is a share"
        )
    if is_index(asked.place):
        if asked.out:
            raise ConfigError(
                f"{asked.place} is an index; to build one, name embeddings: multiway index EMBEDDINGS --out INDEX"
            )
        return _change(asked)
    if not asked.out or asked.add or asked.delete:
        raise ConfigError(
            f"{asked.place} is no index; with embeddings, say where their index goes: multiway index {asked.place} --out INDEX"
        )
    return _build(asked)


def _build(asked: Command) -> int:
    embeddings = Embeddings.open(asked.place)
    began = time.perf_counter()
    about: dict[str, Any] = {
        "model": embeddings.identity["model"],
        "run": embeddings.where.get("run", ""),
        "sources": [_source(embeddings)],
    }
    vectors, entries = _gathered(embeddings, 0)
    if asked.out.startswith(QDRANT):
        server = QdrantIndex(asked.out, about)
        server.add(vectors, entries)
        server.save()
        server.close()
        return _told(asked, asked.out, {"vectors": len(vectors), "seconds": time.perf_counter() - began})
    if is_index(asked.out):
        raise ConfigError(
            f"{asked.out} holds an index already; change it with --add or --delete, or choose another --out"
        )
    folder = Path(asked.out)
    folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder)
    try:
        efforts = {name: value for name, value in (("nprobe", asked.nprobe), ("ef", asked.ef)) if value}
        index = FaissIndex(
            folder, How(asked.kind, asked.nlist, links=asked.links, build_ef=asked.build_ef, **efforts), about
        )
        index.add(vectors, entries)
        seconds = time.perf_counter() - began
        queries = held_out(index, embeddings.sample("texts", 1000))
        if not efforts:
            index.how = tuned(index, queries, asked.recall)
        found = list(measured(index, queries))
        index.about["recall"] = _as_json(found)
        index.save()
    finally:
        lock.release()
    return _told(asked, asked.out, {"vectors": len(index), "seconds": seconds}, index, found)


def _change(asked: Command) -> int:
    if asked.place.startswith(QDRANT):
        server = QdrantIndex.open(asked.place)
        changed = _changed(server, asked)
        server.save()
        vectors = len(server)
        server.close()
        return _told(asked, asked.place, {"vectors": vectors, **changed})
    if not asked.add and not asked.delete:
        index = FaissIndex.open(Path(asked.place), verify=asked.check)
        return _told(asked, asked.place, {"vectors": len(index)}, index, _of_json(index.about))
    lock = RunLock(Path(asked.place))
    try:
        index = FaissIndex.open(Path(asked.place), write=True, verify=True)
        changed = _changed(index, asked)
        found = list(measured(index, held_out(index)))
        index.about["recall"] = _as_json(found)
        index.save()
    finally:
        lock.release()
    return _told(asked, asked.place, {"vectors": len(index), **changed}, index, found)


def _changed(index: VectorIndex, asked: Command) -> dict[str, int]:
    """Take out, then put in; how many of each."""
    counts: dict[str, int] = {}
    if asked.delete:
        counts["deleted"] = index.delete(asked.delete)
    if asked.add:
        embeddings = Embeddings.open(asked.add)
        differ = differences(index.about.get("model", {}), embeddings.identity["model"])
        if differ:
            raise ConfigError(
                f"{asked.add} was embedded by another model than {asked.place} is of ({'; '.join(map(str, differ))}); their "
                "vectors cannot be compared: embed it by the same one"
            )
        own, known = _source(embeddings), index.about.setdefault("sources", [])
        if own not in known:
            known.append(own)
        vectors, entries = _gathered(embeddings, known.index(own))
        counts["replaced"] = index.add(vectors, entries)
        counts["added"] = len(vectors) - counts["replaced"]
    return counts


def _source(embeddings: Embeddings) -> dict[str, Any]:
    """How the pictures are found again, to be shown and matched."""
    named = {name: embeddings.where.get(name, "") for name in ("data", "images", "image_column", "caption_column")}
    return {**named, "fingerprint": embeddings.identity["data"]["fingerprint"]}


def _gathered(embeddings: Embeddings, source: int) -> tuple[np.ndarray, Any]:
    """(n, D) float32 vectors of the pictures, and their entries."""
    parts = list(embeddings.parts("images", verify=True))
    if not parts:
        raise ConfigError(f"{embeddings.folder} has no vectors of pictures; embed with --what images or both")
    vectors = np.concatenate([np.asarray(part.vectors, np.float32) for part in parts])
    return vectors, with_source([part.table for part in parts], source)


def _told(
    asked: Command,
    place: str,
    counts: dict[str, Any],
    index: FaissIndex | None = None,
    recall: list[Recall] | None = None,
) -> int:
    how = {} if index is None else {"kind": index.how.kind, "width": index.width}
    if index is not None and index.how.effort:
        how |= (
            {"nlist": index.how.nlist, "nprobe": index.how.nprobe} if index.how.kind == "ivf" else {"ef": index.how.ef}
        )
    if asked.json:
        print_json({"index": place, **counts, **how, "recall": _as_json(recall or [])})
        return 0
    said = [f"{place}: {counts['vectors']:,} vectors"]
    said += [f"{counts[name]:,} {name}" for name in ("added", "replaced", "deleted") if name in counts]
    said += [f"{name} {value}" for name, value in how.items()]
    said += [f"recall@{each.k} {each.value:.3f} on {each.n:,} held-out {each.name}" for each in recall or []]
    said += [f"built in {counts['seconds']:.1f} s"] if "seconds" in counts else []
    print(", ".join(said))
    return 0


def _as_json(found: list[Recall]) -> dict[str, Any]:
    return {each.name: {"k": each.k, "value": each.value, "n": each.n} for each in found}


def _of_json(about: dict[str, Any]) -> list[Recall]:
    return [Recall(name, each["k"], each["value"], each["n"]) for name, each in about.get("recall", {}).items()]
